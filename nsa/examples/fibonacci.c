/* A small model learns that each digit is the sum of the two before it, modulo ten. cc fibonacci.c $(pkg-config --cflags
 * --libs nsa) */
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>

enum { kBatch = 8, kLength = 128, kSteps = 60 };

static void Check(int status) {
  if (status == NSA_SUCCESS) return;
  fprintf(stderr, "%s: %s\n", nsa_status_string(status), nsa_last_error());
  exit(1);
}

/* The first two digits of a sequence are anyone's guess: the first has no target. */
static void Draw(int32_t* tokens, int32_t* targets) {
  for (int i = 0; i < kBatch; ++i, tokens += kLength, targets += kLength) {
    int32_t digits[kLength + 1] = {rand() % 10, rand() % 10};
    for (int t = 2; t <= kLength; ++t) digits[t] = (digits[t - 1] + digits[t - 2]) % 10;
    for (int t = 0; t < kLength; ++t) {
      tokens[t] = digits[t];
      targets[t] = t == 0 ? -1 : digits[t + 1];
    }
  }
}

int main(void) {
  NSAModelConfig config = nsa_model_default_config(10, 2, 64, 4);
  config.sequence_length = kLength;
  config.attention.device = NSA_DEVICE_CPU;
  NSAModel model;
  Check(nsa_model_init(&model, &config));
  int32_t tokens[kBatch * kLength], targets[kBatch * kLength];
  double loss = 0;
  for (int step = 1; step <= kSteps; ++step) {
    Draw(tokens, targets);
    Check(nsa_model_backward(&model, tokens, targets, kBatch, &loss));
    Check(nsa_model_step(&model, 3e-3, NULL));
    if (step % 20 == 0) printf("step %d: loss %.4f\n", step, loss);
  }
  Draw(tokens, targets);
  Check(nsa_model_loss(&model, tokens, targets, kBatch, &loss));
  static float logits[kBatch * kLength * 10];
  Check(nsa_model_logits(&model, tokens, kBatch, logits));
  int right = 0;
  for (int i = 0; i < kBatch * kLength; ++i) {
    int best = 0;
    for (int digit = 1; digit < 10; ++digit) best = logits[i * 10 + digit] > logits[i * 10 + best] ? digit : best;
    right += best == targets[i];
  }
  printf("new sequences: loss %.4f, %d of %d digits right\n", loss, right, kBatch * (kLength - 1));
  nsa_model_free(&model);
  return loss < 0.5 ? 0 : 1;
}
