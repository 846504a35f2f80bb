// The rules between the values of a configuration. What each key means stands in configs/run.proto.
#include "runtime/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace longspan {
namespace {

constexpr int64_t kLargest = (int64_t{1} << 31) - 1;  // of any size: products of two then fit int64

// Collects broken rules, each as "key = value: rule; cure" or "key = value and key = value disagree: rule; cure".
class Rules {
 public:
  std::vector<std::string> problems;

  // False when the value is out of range: rules that compute with it are then skipped.
  bool Size(const std::string& key, int64_t value, int64_t least = 1) {
    if (value >= least && value <= kLargest) return true;
    Add("{} = {}: must be {} to {}", key, value, least, kLargest);
    return false;
  }

  // `below`: the end of the range is not part of it.
  void Fraction(const std::string& key, double value, bool below) {
    if (value >= 0 && (below ? value < 1 : value <= 1)) return;
    Add("{} = {}: must be 0 to {}1", key, value, below ? "below " : "");
  }

  void Above(const std::string& key, double value, double bound) {
    if (std::isfinite(value) && value > bound) return;
    Add("{} = {}: must be a finite number above {}", key, value, bound);
  }

  void NotNegative(const std::string& key, double value) {
    if (std::isfinite(value) && value >= 0) return;
    Add("{} = {}: must be a finite number, 0 or more", key, value);
  }

  template <typename... Args>
  void Add(fmt::format_string<Args...> text, Args&&... args) {
    problems.push_back(fmt::format(text, std::forward<Args>(args)...));
  }
};

// "1024 or 2048": the multiples of `unit` on both sides of `value`.
std::string NearestMultiples(int64_t value, int64_t unit) {
  const int64_t below = value / unit * unit;
  return below > 0 ? fmt::format("{} or {}", below, below + unit) : fmt::format("{}", unit);
}

bool NsaSizes(const NsaConfig& nsa, const std::string& prefix, Rules* rules) {
  bool good = true;
  const auto size = [&](const char* name, int64_t value, int64_t least) {
    good = rules->Size(prefix + name, value, least) && good;
  };
  size("block", nsa.block, 1);
  size("stride", nsa.stride, 1);
  size("select_block", nsa.select_block, 1);
  size("select", nsa.select, 1);
  size("init", nsa.init, 0);
  size("local", nsa.local, 0);
  size("window", nsa.window, 1);
  size("phi_hidden", nsa.phi_hidden, 0);
  return good;
}

void CheckNsa(const NsaConfig& nsa, const std::string& prefix, Rules* rules) {
  if (!NsaSizes(nsa, prefix, rules)) return;
  if (nsa.block % nsa.stride != 0) {
    rules->Add("{0}stride = {1} and {0}block = {2} disagree: the stride must divide the block; set {0}block to {3}",
               prefix, nsa.stride, nsa.block, NearestMultiples(nsa.block, nsa.stride));
  }
  if (nsa.select_block % nsa.stride != 0) {
    rules->Add(
        "{0}stride = {1} and {0}select_block = {2} disagree: the stride must divide the selection block; set "
        "{0}select_block to {3}",
        prefix, nsa.stride, nsa.select_block, NearestMultiples(nsa.select_block, nsa.stride));
  }
  if (nsa.block > nsa.select_block) {
    rules->Add(
        "{0}block = {1} and {0}select_block = {2} disagree: a compressed token may not be longer than a selection "
        "block; "
        "set {0}block to {2} or less",
        prefix, nsa.block, nsa.select_block);
  }
  if (nsa.select < nsa.init + nsa.local) {
    rules->Add(
        "{0}select = {1} and {0}init + {0}local = {2} disagree: the blocks that are always taken must fit; set "
        "{0}select to {2} or more",
        prefix, nsa.select, nsa.init + nsa.local);
  }
}

void CheckRope(const RopeConfig& rope, Rules* rules) {
  rules->Above("model.rope.theta", rope.theta, 1);
  rules->NotNegative("model.rope.attention_factor", rope.attention_factor);
  rules->Size("model.rope.original_max_position", rope.original_max_position);
  rules->Above("model.rope.beta_slow", rope.beta_slow, 0);
  rules->Above("model.rope.beta_fast", rope.beta_fast, 0);
  if (rope.beta_fast <= rope.beta_slow) {
    rules->Add(
        "model.rope.beta_fast = {} and model.rope.beta_slow = {} disagree: fast must be above slow; the usual values "
        "are "
        "32 and 1",
        rope.beta_fast, rope.beta_slow);
  }
  if (!std::isfinite(rope.factor) || rope.factor < 1) {
    rules->Add("model.rope.factor = {}: must be a finite number, 1 or more; 4 makes sequences four times as long",
               rope.factor);
  } else if (rope.scaling == RopeScaling::kNone && rope.factor != 1) {
    rules->Add(
        "model.rope.factor = {} and model.rope.scaling = NONE disagree: only YARN scales; set model.rope.scaling to "
        "YARN or "
        "model.rope.factor to 1",
        rope.factor);
  }
}

void CheckModel(const ModelConfig& model, Rules* rules) {
  const bool layers = rules->Size("model.layers", model.layers);
  rules->Size("model.hidden", model.hidden);
  const bool heads = rules->Size("model.heads", model.heads);
  const bool kv_heads = rules->Size("model.kv_heads", model.kv_heads);
  if (heads && kv_heads && model.heads % model.kv_heads != 0) {
    rules->Add(
        "model.heads = {} and model.kv_heads = {} disagree: every group has the same number of heads; set model.heads "
        "to "
        "{}",
        model.heads, model.kv_heads, NearestMultiples(model.heads, model.kv_heads));
  }
  if (rules->Size("model.key_width", model.key_width) && model.key_width % 2 != 0) {
    rules->Add("model.key_width = {}: must be even, RoPE turns pairs of channels; set it to {}", model.key_width,
               model.key_width + 1);
  }
  rules->Size("model.value_width", model.value_width);
  rules->Size("model.ffn", model.ffn);
  rules->Size("model.vocab", model.vocab);
  rules->Above("model.norm_eps", model.norm_eps, 0);
  const int64_t kinds = static_cast<int64_t>(model.attention.size());
  if (kinds == 0) {
    rules->Add("model.attention = []: names no kind; set it to NSA");
  } else if (layers && kinds > model.layers) {
    rules->Add(
        "model.attention = {} kinds and model.layers = {} disagree: the last kinds have no layer; name one for each "
        "layer or "
        "fewer",
        kinds, model.layers);
  }
  CheckRope(model.rope, rules);
}

// The world is dp x cp, and every replica gets the same number of sequences.
void CheckRanks(const RunConfig& config, int64_t world, Rules* rules) {
  const ParallelConfig& parallel = config.parallel;
  const bool cp = rules->Size("parallel.cp", parallel.cp);
  const bool dp = rules->Size("parallel.dp", parallel.dp, 0);
  if (!cp || !dp) return;
  int64_t replicas = parallel.dp;
  if (world > 0 && parallel.dp > 0 && parallel.dp * parallel.cp != world) {
    rules->Add(
        "parallel.dp = {} and parallel.cp = {} disagree with a world of size {}: dp * cp is the number of ranks; start "
        "{} "
        "ranks{}",
        parallel.dp, parallel.cp, world, parallel.dp * parallel.cp,
        world % parallel.cp == 0 ? fmt::format(" or set parallel.dp to {}", world / parallel.cp) : "");
  } else if (world > 0 && parallel.dp == 0) {
    if (world % parallel.cp != 0) {
      rules->Add("parallel.cp = {}: must divide the number of ranks, {}; start {} ranks", parallel.cp, world,
                 NearestMultiples(world, parallel.cp));
      return;
    }
    replicas = world / parallel.cp;
  }
  if (rules->Size("train.sequences_per_step", config.train.sequences_per_step) && replicas > 0 &&
      config.train.sequences_per_step % replicas != 0) {
    rules->Add(
        "train.sequences_per_step = {} and parallel.dp = {} disagree: every replica takes the same number of "
        "sequences; set "
        "train.sequences_per_step to {}",
        config.train.sequences_per_step, replicas, NearestMultiples(config.train.sequences_per_step, replicas));
  }
}

// A sequence can be cut into equal chunks of whole selection blocks (parallel/layout.h), and NSA can summarise it.
void CheckSequence(const RunConfig& config, bool nsa_good, Rules* rules) {
  const int64_t length = config.data.sequence_length;
  const NsaConfig& nsa = config.model.nsa;
  const ParallelConfig& parallel = config.parallel;
  if (!rules->Size("data.sequence_length", length) || !nsa_good) return;
  const std::vector<AttentionKind>& kinds = config.model.attention;
  const bool summarised = std::find(kinds.begin(), kinds.end(), AttentionKind::kNsa) != kinds.end();
  if (summarised && length < nsa.block) {
    rules->Add(
        "data.sequence_length = {} and model.nsa.block = {} disagree: a sequence shorter than a compressed token has "
        "no "
        "summaries; set data.sequence_length to {} or more",
        length, nsa.block, nsa.block);
  } else if (summarised && length % nsa.stride != 0) {
    rules->Add(
        "data.sequence_length = {} and model.nsa.stride = {} disagree: every stride of a sequence has its row of "
        "summaries; set data.sequence_length to {}",
        length, nsa.stride, NearestMultiples(length, nsa.stride));
  }
  if (parallel.cp < 2 || parallel.cp > kLargest) return;
  const bool head_tail = parallel.layout == LayoutKind::kHeadTail;
  const int64_t chunks = parallel.cp * (head_tail ? 2 : 1);
  if (nsa.select_block > kLargest / chunks) {
    rules->Add("parallel.cp = {} and model.nsa.select_block = {} disagree: no sequence is that long; make one smaller",
               parallel.cp, nsa.select_block);
  } else if (length % (chunks * nsa.select_block) != 0) {
    rules->Add(
        "parallel.cp = {} and data.sequence_length = {} disagree: parallel.layout = {} cuts a sequence into {} chunks "
        "of whole "
        "selection blocks (model.nsa.select_block = {}), so its length is a multiple of {}; set data.sequence_length "
        "to {}",
        parallel.cp, length, head_tail ? "HEAD_TAIL" : "CONTIGUOUS", chunks, nsa.select_block,
        chunks * nsa.select_block, NearestMultiples(length, chunks * nsa.select_block));
  }
}

void CheckData(const RunConfig& config, Rules* rules) {
  const DataConfig& data = config.data;
  rules->Fraction("data.validation_fraction", data.validation_fraction, true);
  if (data.format == DataFormat::kFibonacci) {
    if (config.model.vocab < 10) {
      rules->Add(
          "model.vocab = {} and data.format = FIBONACCI disagree: its symbols are the digits 0 to 9; set model.vocab "
          "to 10",
          config.model.vocab);
    }
    return;
  }
  if (data.train.empty()) {
    rules->Add("data.train = \"\": names no dataset; make one with `longspan data` and set data.train to its path");
  }
  if (data.validation.empty() && data.validation_fraction == 0 && config.train.eval_sequences > 0) {
    rules->Add(
        "data.validation_fraction = 0 and train.eval_sequences = {} disagree: nothing is held out to evaluate on; set "
        "data.validation, or train.eval_sequences to 0",
        config.train.eval_sequences);
  }
}

void CheckRuntime(const RuntimeConfig& runtime, Rules* rules) {
  if (runtime.device == RuntimeDevice::kCpu && runtime.dtype == RuntimeType::kBf16) {
    rules->Add(
        "runtime.device = CPU and runtime.dtype = BF16 disagree: the CPU computes in F32; set runtime.dtype to AUTO");
  }
}

void CheckOptimizer(const OptimizerConfig& optimizer, int64_t steps, Rules* rules) {
  rules->Above("optimizer.learning_rate", optimizer.learning_rate, 0);
  rules->Fraction("optimizer.final_fraction", optimizer.final_fraction, false);
  rules->Fraction("optimizer.beta1", optimizer.beta1, true);
  rules->Fraction("optimizer.beta2", optimizer.beta2, true);
  rules->Above("optimizer.eps", optimizer.eps, 0);
  rules->NotNegative("optimizer.weight_decay", optimizer.weight_decay);
  rules->NotNegative("optimizer.clip_norm", optimizer.clip_norm);
  const bool warmup = rules->Size("optimizer.warmup_steps", optimizer.warmup_steps, 0);
  const bool decay = rules->Size("optimizer.decay_steps", optimizer.decay_steps, 0);
  if (!warmup || !decay || steps < 1) return;
  const bool stable_decay = optimizer.schedule == ScheduleKind::kWarmupStableDecay;
  if (optimizer.warmup_steps > steps) {
    rules->Add(
        "optimizer.warmup_steps = {} and train.steps = {} disagree: the warm-up must end within the run; set "
        "optimizer.warmup_steps to {} or less",
        optimizer.warmup_steps, steps, steps);
  } else if (stable_decay && optimizer.warmup_steps + optimizer.decay_steps > steps) {
    rules->Add(
        "optimizer.decay_steps = {} and train.steps = {} disagree: after {} steps of warm-up at most {} are left",
        optimizer.decay_steps, steps, optimizer.warmup_steps, steps - optimizer.warmup_steps);
  }
  if (!stable_decay && optimizer.decay_steps != 0) {
    const char* names[] = {"CONSTANT", "LINEAR", "COSINE"};
    rules->Add(
        "optimizer.decay_steps = {} and optimizer.schedule = {} disagree: only WARMUP_STABLE_DECAY has a final decay; "
        "set "
        "optimizer.schedule to it or optimizer.decay_steps to 0",
        optimizer.decay_steps, names[static_cast<int>(optimizer.schedule)]);
  }
}

}  // namespace

std::vector<std::string> Problems(const NsaConfig& nsa, const std::string& prefix) {
  Rules rules;
  CheckNsa(nsa, prefix, &rules);
  return rules.problems;
}

std::vector<std::string> Problems(const RunConfig& config, int64_t world) {
  Rules rules;
  if (config.name.empty() || config.name == "." || config.name == ".." || config.name.find('/') != std::string::npos) {
    rules.Add("name = \"{}\": must be the name of a folder, without '/'", config.name);
  }
  if (config.output.empty()) rules.Add("output = \"\": must be a folder; set it to \".\" for the current one");
  CheckModel(config.model, &rules);
  const size_t before = rules.problems.size();
  CheckNsa(config.model.nsa, "model.nsa.", &rules);
  const bool nsa_good = rules.problems.size() == before;
  CheckRanks(config, world, &rules);
  if (config.runtime.device == RuntimeDevice::kCpu && config.parallel.transport != Transport::kAuto) {
    rules.Add(
        "parallel.transport = {} and runtime.device = CPU disagree: on the CPU all transfers are MPI's; set "
        "parallel.transport to AUTO",
        config.parallel.transport == Transport::kNccl ? "NCCL" : "STAGED");
  }
  if (config.runtime.graphs == Graphs::kOn) {
    if (config.parallel.transport == Transport::kStaged) {
      rules.Add(
          "runtime.graphs = ON and parallel.transport = STAGED disagree: staged transfers wait on the host; set "
          "runtime.graphs to AUTO");
    }
    if (config.parallel.selected_exchange == SelectedExchange::kFetch && config.parallel.cp > 1) {
      rules.Add(
          "runtime.graphs = ON and parallel.selected_exchange = FETCH disagree: a fetch waits on the host; set "
          "runtime.graphs to AUTO");
    }
  }
  CheckSequence(config, nsa_good, &rules);
  CheckRuntime(config.runtime, &rules);
  CheckData(config, &rules);
  const TrainConfig& train = config.train;
  const bool steps = rules.Size("train.steps", train.steps);
  CheckOptimizer(config.optimizer, steps ? train.steps : 0, &rules);
  rules.Size("train.eval_interval", train.eval_interval, 0);
  rules.Size("train.eval_sequences", train.eval_sequences, 0);
  rules.Size("train.log_interval", train.log_interval);
  if (train.offload && train.recompute == Recompute::kNone) {
    rules.Add(
        "train.offload = true and train.recompute = NONE disagree: only what recomputation starts from is offloaded; "
        "set "
        "train.recompute to SELECTIVE or FULL");
  }
  return rules.problems;
}

}  // namespace longspan
