// What a model is, what it keeps for its backward, and how it is trained.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention/nsa_config.h"
#include "kernels/dense/rope_config.h"
#include "parallel/config.h"

namespace longspan {

enum class AttentionKind { kNsa, kFull, kWindow };
enum class Recompute { kNone, kSelective, kFull };
enum class ScheduleKind { kConstant, kLinear, kCosine, kWarmupStableDecay };

// Of numbers that one token has of a kind: as many tokens as there may be, or rows of weights, then fit a tensor.
inline constexpr int64_t kWidestRow = int64_t{1} << 27;

struct ModelConfig {
  int64_t layers = 4;
  int64_t hidden = 128;      // D
  int64_t heads = 8;         // H
  int64_t kv_heads = 2;      // G
  int64_t key_width = 16;    // K
  int64_t value_width = 16;  // V
  int64_t ffn = 344;         // F
  int64_t vocab = 256;       // X
  bool tied_head = true;
  bool qk_norm = false;
  double norm_eps = 1e-5;
  // Attention kind of each layer, repeated cyclically: [NSA] all layers; [NSA, FULL] alternating.
  std::vector<AttentionKind> attention = {AttentionKind::kNsa};
  NsaConfig nsa;
  RopeConfig rope;

  AttentionKind AttentionOf(int64_t layer) const { return attention[layer % attention.size()]; }
  bool operator==(const ModelConfig&) const = default;
};

// What must hold between the values, nsa's too: every broken rule, keys written with `prefix`. Empty: good.
std::vector<std::string> Problems(const ModelConfig& model, const std::string& prefix);

struct KeepConfig {
  Recompute recompute = Recompute::kNone;  // activations that the backward makes again instead of keeping them
  bool offload = false;                    // what recomputation starts from waits in host memory
  bool operator==(const KeepConfig&) const = default;
};

// What a rank needs to know to run a model (model/network/session.h).
struct SessionConfig {
  ModelConfig model;
  ParallelConfig parallel;
  int64_t sequence_length = 0;  // S
  KeepConfig keep;
};

struct OptimizerConfig {
  double learning_rate = 3e-3;
  ScheduleKind schedule = ScheduleKind::kCosine;
  int64_t warmup_steps = 20;
  int64_t decay_steps = 0;      // WARMUP_STABLE_DECAY: length of the final decay; 0 = a fifth of the steps
  double final_fraction = 0.1;  // learning rate at the end / learning_rate
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;  // 0 = no clipping

  int64_t DecaySteps(int64_t steps) const { return decay_steps > 0 ? decay_steps : std::max<int64_t>(1, steps / 5); }
  bool operator==(const OptimizerConfig&) const = default;
};

}  // namespace longspan
