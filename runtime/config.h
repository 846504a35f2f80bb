// The configuration as plain typed structs. Filled once by launch/config from a textproto and overrides, then
// immutable. The schema with the meaning of every key is configs/run.proto; names and defaults here are the same (a
// test compares).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

enum class Phi { kMlp, kLinear, kMean };
enum class KvBranches { kSeparate, kShared };
enum class CompressRope { kAfter, kBefore };
enum class AttentionKind { kNsa, kFull, kWindow };
enum class LayoutKind { kContiguous, kHeadTail };
enum class SelectedExchange { kGather, kFetch };
enum class Transport { kAuto, kNccl, kStaged };  // of tensors in GPU memory
enum class RopeScaling { kNone, kYarn };
enum class ScheduleKind { kConstant, kLinear, kCosine, kWarmupStableDecay };
enum class RuntimeDevice { kAuto, kCpu, kGpu };
enum class RuntimeType { kAuto, kF32, kBf16 };
enum class Graphs { kAuto, kOff, kOn };
enum class Recompute { kNone, kSelective, kFull };
enum class DataFormat { kMegatron, kLlmc, kNanogpt, kFibonacci };

// The parameters of Native Sparse Attention, named as in arXiv 2502.11089 (DESIGN.md section 2).
struct NsaConfig {
  int64_t block = 32;         // l, tokens of a compressed token
  int64_t stride = 16;        // d
  int64_t select_block = 64;  // b (the paper's l')
  int64_t select = 16;        // n, blocks taken
  int64_t init = 1;           // n_init, first blocks always taken
  int64_t local = 2;          // n_local, last blocks always taken, the query's own included
  int64_t window = 512;       // w, tokens, the query's own included
  Phi phi = Phi::kMlp;
  int64_t phi_hidden = 0;  // M, hidden width of the MLP; 0 = twice the width of its input rows (2K, 2V)
  CompressRope compress_rope = CompressRope::kAfter;
  KvBranches kv_branches = KvBranches::kSeparate;

  int64_t lead() const { return block / stride - 1; }  // rows before compressed token 0 (never visible)
  int64_t halo() const { return block - stride; }      // l-d, raw rows that the first compressed token borrows
  bool operator==(const NsaConfig&) const = default;
};

struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  // YaRN (arXiv 2309.00071), named as in Hugging Face's rope_scaling.
  double factor = 1.0;
  int64_t original_max_position = 4096;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double attention_factor = 0.0;  // 0 = 0.1 ln(factor) + 1
  bool operator==(const RopeConfig&) const = default;
};

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

struct ParallelConfig {
  int64_t cp = 1;  // ranks a sequence is cut over
  int64_t dp = 0;  // replicas; 0 = world size / cp
  LayoutKind layout = LayoutKind::kHeadTail;
  SelectedExchange selected_exchange = SelectedExchange::kGather;
  Transport transport = Transport::kAuto;
  bool share_gpu = false;  // several ranks may use one GPU
  bool operator==(const ParallelConfig&) const = default;
};

struct RuntimeConfig {
  RuntimeDevice device = RuntimeDevice::kAuto;  // AUTO: GPUs where there are any
  RuntimeType dtype = RuntimeType::kAuto;       // of weights and activations; AUTO: BF16 on a GPU, F32 on a CPU
  Graphs graphs = Graphs::kAuto;                // of forward and backward; AUTO: where they pay
  bool operator==(const RuntimeConfig&) const = default;
};

struct DataConfig {
  DataFormat format = DataFormat::kMegatron;
  std::string train;       // path prefix (MEGATRON: PREFIX.bin and PREFIX.idx) or file; not used by FIBONACCI
  std::string validation;  // the same; empty = the last `validation_fraction` of the training documents
  double validation_fraction = 0.05;
  int64_t sequence_length = 2048;  // S
  bool document_masks = true;      // attention does not cross documents
  uint64_t seed = 1;               // order of the training sequences
  bool operator==(const DataConfig&) const = default;
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
  bool operator==(const OptimizerConfig&) const = default;
};

struct TrainConfig {
  int64_t steps = 200;
  int64_t sequences_per_step = 2;  // over all dp replicas; the rest of the division by dp is gradient accumulation
  int64_t eval_interval = 0;       // steps between evaluations; 0 = only after the last step
  int64_t eval_sequences = 8;      // 0 = no evaluation
  int64_t log_interval = 1;
  uint64_t seed = 1;                       // of the initialisation
  Recompute recompute = Recompute::kNone;  // activations that the backward makes again instead of keeping them
  bool offload = false;                    // what recomputation starts from waits in host memory
  bool operator==(const TrainConfig&) const = default;
};

struct RunConfig {
  std::string name = "run";
  std::string output = "runs";  // the run's folder is output/name
  ModelConfig model;
  ParallelConfig parallel;
  RuntimeConfig runtime;
  DataConfig data;
  OptimizerConfig optimizer;
  TrainConfig train;
  bool operator==(const RunConfig&) const = default;
};

// What must hold between the values, and with a world of `world` ranks (0 = not known yet). Every broken rule is one
// line "key = value: rule; cure". An empty list means good.
std::vector<std::string> Problems(const RunConfig& config, int64_t world);
std::vector<std::string> Problems(const NsaConfig& nsa, const std::string& prefix);  // section 2's rules on l,d,b,n,w

}  // namespace longspan
