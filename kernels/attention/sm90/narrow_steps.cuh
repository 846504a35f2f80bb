// Steps of the passes that own keys where rows are narrow (64 channels), 64 keys of a warpgroup against 64 rows a step.
//
// There are registers for a third array, so that weights leave the place of S, where the next step's S is under way
// beside the exponentials. Steps go in pairs: the compiler serializes products that are under way at a loop's end, and
// half of the ends are none here.
#pragma once

#include "kernels/attention/sm90/key_weights.cuh"

namespace longspan {

// A warpgroup's sums over `count` steps, one or more, from steps.First() on. Steps has, by a Stage (where a step is):
//   Stage First(), After(stage)
//   void AwaitQueries(stage), AwaitGradients(stage)     q is there; d_o, and what is known of the rows
//   uint64_t QueriesAlong(stage, i), QueriesAcross(stage, i), GradientsAlong(stage, i), GradientsAcross(stage, i)
//                                                       operand i of W / 16 channels, of kStepRows / 16 rows
//   void Weights(stage, s, p), Gradients(stage, p, d_p, d_s)
//   void Release(stage)                                 by a warp
// k, v: the addresses of the warpgroup's keys and values, one chunk of channels each.
template <int W, typename Steps>
__device__ __forceinline__ void TakeNarrowSteps(const Steps& steps, uint32_t k, uint32_t v, int count,
                                                float (&d_k)[W / 2], float (&d_v)[W / 2]) {
  using Stage = decltype(steps.First());
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  float s[kStepRows / 2], weights[kStepRows / 2], d_p[kStepRows / 2];
  uint32_t keys[W / 16][4], p[kStepRows / 16][4], d_s[kStepRows / 16][4];
  // Products of 64 columns take as long to read two operands from shared memory as to multiply.
#pragma unroll
  for (int i = 0; i < W / 16; ++i) {
    LoadMatrices<false>(keys[i], k + Swizzled(warp * 16 + lane % 16, i * 2 + lane / 16));
  }
  Pin(keys);
  const auto multiply_queries = [&](Stage stage) {
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < W / 16; ++i) WgmmaAlong(s, keys[i], steps.QueriesAlong(stage, i), i > 0);
    WgmmaCommit();
  };
  const auto multiply_gradients = [&](Stage stage) {
    steps.AwaitGradients(stage);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < W / 16; ++i) Wgmma(d_p, AlongRows(v + i * 32), steps.GradientsAlong(stage, i), i > 0);
    WgmmaCommit();
  };
  const auto take_weights = [&](Stage stage) {
    steps.Weights(stage, s, weights);
    Pin(weights);
  };
  const auto add_values = [&](Stage stage) {
    PackWeights(weights, p);
    Pin(p);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kStepRows / 16; ++i) Wgmma(d_v, p[i], steps.GradientsAcross(stage, i), true);
    WgmmaCommit();
  };
  const auto add_keys = [&](Stage stage) {
    steps.Gradients(stage, weights, d_p, d_s);
    Pin(d_s);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kStepRows / 16; ++i) Wgmma(d_k, d_s[i], steps.QueriesAcross(stage, i), true);
    WgmmaCommit();
  };
  const auto release = [&](Stage stage) {
    Pin(d_v);
    Pin(d_k);
    __syncwarp();
    steps.Release(stage);
  };

  Stage first = steps.First();
  steps.AwaitQueries(first);
  multiply_queries(first);
  WgmmaWait<0>();
  Pin(s);
  for (; count > 1; count -= 2) {
    const Stage second = steps.After(first), next = steps.After(second);
    multiply_gradients(first);
    take_weights(first);
    steps.AwaitQueries(second);
    multiply_queries(second);
    add_values(first);
    WgmmaWait<2>();
    Pin(d_p);
    add_keys(first);
    multiply_gradients(second);
    WgmmaWait<3>();
    Pin(s);
    take_weights(second);
    if (count > 2) steps.AwaitQueries(next);
    multiply_queries(next);  // after the last step of whatever lies there, for nothing
    WgmmaWait<1>();
    Pin(d_p);
    release(first);
    add_values(second);
    add_keys(second);
    WgmmaWait<0>();
    Pin(s);
    release(second);
    first = next;
  }
  if (count == 0) return;
  multiply_gradients(first);
  take_weights(first);
  add_values(first);
  WgmmaWait<1>();
  Pin(d_p);
  add_keys(first);
  WgmmaWait<0>();
  release(first);
}

}  // namespace longspan
