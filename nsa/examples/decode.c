/* Decodes one sequence on the CPU: the first tokens at once, the others one by one, and compares every output with that of
 * the whole sequence at once. cc decode.c $(pkg-config --cflags --libs nsa) -lm */
#include <math.h>
#include <nsa/nsa.h>
#include <stdio.h>
#include <stdlib.h>

enum { kTokens = 1000, kPrefill = 700, kHeads = 8, kGroups = 2, kWidth = 32, kPages = (kTokens + 63) / 64 };

static void Check(int status) {
  if (status == NSA_SUCCESS) return;
  fprintf(stderr, "%s: %s\n", nsa_status_string(status), nsa_last_error());
  exit(1);
}

static float* Random(int count) {
  float* x = (float*)malloc(sizeof(float) * (size_t)count);
  for (int i = 0; i < count; ++i) x[i] = (float)rand() / (float)RAND_MAX * 2 - 1;
  return x;
}

int main(void) {
  NSAConfig config = nsa_create_default_config(kWidth, kHeads);
  config.num_groups = kGroups;
  config.phi = NSA_PHI_MEAN; /* no weights to set */
  config.device = NSA_DEVICE_CPU;
  config.max_length = kTokens;
  NSAContext ctx;
  NSACache cache;
  Check(nsa_init(&ctx, &config));
  Check(nsa_cache_init(&ctx, &cache, kPages));

  float* q = Random(kTokens * kHeads * kWidth);
  float *k[3], *v[3];
  NSAInputs all = {0};
  all.tokens = kTokens;
  all.q = q;
  for (int branch = 0; branch < 3; ++branch) {
    all.k[branch] = k[branch] = Random(kTokens * kGroups * kWidth);
    all.v[branch] = v[branch] = Random(kTokens * kGroups * kWidth);
  }
  float *expected = Random(kTokens * kHeads * kWidth), *found = Random(kTokens * kHeads * kWidth);
  NSAOutputs outputs = {expected, malloc(nsa_saved_size(&ctx, kTokens)), NULL};
  Check(nsa_forward(&ctx, &all, &outputs, NULL));

  int32_t pages[kPages]; /* any will do */
  for (int i = 0; i < kPages; ++i) pages[i] = kPages - 1 - i;
  NSAInputs first = all;
  first.tokens = kPrefill;
  outputs.out = found;
  Check(nsa_prefill(&ctx, &cache, 0, &first, pages, &outputs, NULL));
  for (int64_t t = kPrefill; t < kTokens; ++t) {
    NSADecodeStep step = {0};
    step.num_sequences = 1;
    step.lengths = &t;
    step.page_table = pages;
    step.page_table_width = kPages;
    step.q = q + t * kHeads * kWidth;
    for (int branch = 0; branch < 3; ++branch) {
      step.k[branch] = k[branch] + t * kGroups * kWidth;
      step.v[branch] = v[branch] + t * kGroups * kWidth;
    }
    step.out = found + t * kHeads * kWidth;
    Check(nsa_decode(&ctx, &cache, &step, NULL));
  }

  double error = 0, size = 0;
  for (int i = 0; i < kTokens * kHeads * kWidth; ++i) {
    error += pow(found[i] - expected[i], 2);
    size += pow(expected[i], 2);
  }
  printf("nsa %s: %d tokens decoded after %d, RMS error %.1e of the whole sequence's outputs\n", nsa_version(),
         kTokens - kPrefill, kPrefill, sqrt(error / size));
  nsa_cache_free(&cache);
  nsa_free(&ctx);
  for (int branch = 0; branch < 3; ++branch) {
    free(k[branch]);
    free(v[branch]);
  }
  free(q);
  free(expected);
  free(found);
  free(outputs.saved);
  return sqrt(error / size) <= 1e-5 ? 0 : 1;
}
