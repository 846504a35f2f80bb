/* The public header's usage, as its users write it, against ours; and the specification of that call, evaluated as it
 * reads: the mean of every block, attention to them, the blocks they say, the window, summed. Also compiled as C++. */
#include <nsa/nsa.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct CUstream_st* cudaStream_t; /* what CUDA's headers say; here there may be none */

enum { L = 32, D = 16, B = 64, N = 16, W = 512, K = 64, S = 3000, C = (S - L) / D + 1, BLOCKS = (S + B - 1) / B };

/* out += attention of q over the rows of k and v that `seen` marks; p, when not null, gets the probabilities. */
static void Attend(const float* q, const double* k, const double* v, const char* seen, int rows, double* p, double* out) {
  double* weight = (double*)calloc((size_t)rows, sizeof(double));
  double sum = 0;
  for (int i = 0; i < rows; ++i) {
    double score = 0;
    for (int c = 0; c < K; ++c) score += q[c] * k[i * K + c];
    if (seen[i]) sum += weight[i] = exp(score / sqrt((double)K));
  }
  for (int i = 0; i < rows; ++i) {
    if (p) p[i] = weight[i] / sum;
    for (int c = 0; c < K; ++c) out[c] += weight[i] / sum * v[i * K + c];
  }
  free(weight);
}

static void Specification(const float* q, const float* keys, const float* values, double* out) {
  static double k[S * K], v[S * K], k_cmp[C * K], v_cmp[C * K], p[C], score[BLOCKS];
  static char seen[S], all[S];
  for (int i = 0; i < S * K; ++i) {
    k[i] = keys[i];
    v[i] = values[i];
  }
  for (int j = 0; j < C; ++j) {
    all[j] = 1;
    for (int i = 0; i < L * K; ++i) {
      k_cmp[j * K + i % K] += k[(j * D + i / K) * K + i % K] / L;
      v_cmp[j * K + i % K] += v[(j * D + i / K) * K + i % K] / L;
    }
  }
  for (int c = 0; c < K; ++c) out[c] = 0;
  Attend(q, k_cmp, v_cmp, all, C, p, out);
  for (int j = 0; j < C; ++j) {
    for (int cell = j; cell < j + L / D; ++cell) score[cell / (B / D)] += p[j];
  }
  score[0] = score[BLOCKS - 1] = score[BLOCKS - 2] = 1e9; /* the first and the last two are always taken */
  for (int n = 0; n < N; ++n) {
    int best = 0;
    for (int i = 1; i < BLOCKS; ++i) best = score[i] > score[best] ? i : best;
    score[best] = -1;
    for (int t = best * B; t < (best + 1) * B && t < S; ++t) seen[t] = 1;
  }
  Attend(q, k, v, seen, S, NULL, out);
  for (int t = 0; t < S; ++t) seen[t] = t >= S - W;
  Attend(q, k, v, seen, S, NULL, out);
}

static float* Random(int count) {
  float* x = (float*)malloc(sizeof(float) * (size_t)count);
  for (int i = 0; i < count; ++i) x[i] = (float)rand() / (float)RAND_MAX * 4 - 2;
  return x;
}

int main(void) {
  float* query = Random(K);
  float* keys = Random(S * K);
  float* values = Random(S * K);
  float output[K];
  int32_t seq_len = S;
  cudaStream_t stream = NULL;

  NSAConfig config = nsa_create_default_config(64, 8);
  if (config.block_length != L || config.block_stride != D || config.selection_block_size != B ||
      config.num_selected_blocks != N || config.window_size != W || config.head_dim != 64 || config.num_heads != 8 ||
      config.scaling_factor != 0.125F) {
    fprintf(stderr, "other defaults than the public header's\n");
    return 1;
  }
  config.block_length = 32;
  config.block_stride = 16;
  config.selection_block_size = 64;
  config.num_selected_blocks = 16;
  config.window_size = 512;
  if (nsa_get_workspace_size(&config) == 0) return 1;

  NSAContext ctx;
  if (nsa_init(&ctx, &config) != 0) {
    fprintf(stderr, "%s\n", nsa_last_error());
    return 1;
  }
  if (nsa_compute_attention(&ctx, query, keys, values, seq_len, output, stream) != 0) {
    fprintf(stderr, "%s\n", nsa_last_error());
    return 1;
  }
  double expected[K], error = 0, size = 0;
  Specification(query, keys, values, expected);
  for (int c = 0; c < K; ++c) {
    error += pow(output[c] - expected[c], 2);
    size += pow(expected[c], 2);
  }
  printf("RMS error %.1e of the specification\n", sqrt(error / size));

  /* The window that the sequence has anyway. */
  int32_t num_new = 64;
  float with_window[K];
  for (int32_t t = 0; t < S; t += num_new) {
    if (nsa_update_window(&ctx, keys + t * K, values + t * K, S - t < num_new ? S - t : num_new, stream) != 0) return 1;
  }
  if (nsa_compute_attention(&ctx, query, keys, values, seq_len, with_window, stream) != 0) return 1;
  double moved = 0;
  for (int c = 0; c < K; ++c) moved += pow(with_window[c] - output[c], 2);
  printf("RMS error %.1e with a window of its own\n", sqrt(moved / size));
  nsa_reset(&ctx);
  nsa_free(&ctx);
  free(query);
  free(keys);
  free(values);
  return sqrt(error / size) <= 1e-5 && sqrt(moved / size) <= 1e-5 ? 0 : 1;
}
