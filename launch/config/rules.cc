// What each key means stands in configs/run.proto.
#include "launch/config/rules.h"

#include <algorithm>
#include <utility>

#include "kernels/attention/nsa_config.h"
#include "launch/config/blend.h"
#include "launch/config/stages.h"
#include "runtime/count.h"
#include "runtime/problem_list.h"

namespace longspan {
namespace {

// The world is dp x cp, and every replica gets the same number of sequences.
void CheckRanks(const RunConfig& config, int64_t world, ProblemList* problems) {
  const ParallelConfig& parallel = config.parallel;
  const bool cp = problems->Size("parallel.cp", parallel.cp);
  const bool dp = problems->Size("parallel.dp", parallel.dp, 0);
  if (!cp || !dp) return;
  int64_t replicas = parallel.dp;
  if (world > 0 && parallel.dp > 0 && parallel.dp * parallel.cp != world) {
    problems->Add(
        "parallel.dp = {} and parallel.cp = {} disagree with a world of size {}: dp * cp is the number of ranks; start "
        "{}{}",
        parallel.dp, parallel.cp, world, Count(parallel.dp * parallel.cp, "rank"),
        world % parallel.cp == 0 ? fmt::format(" or set parallel.dp to {}", world / parallel.cp) : "");
  } else if (world > 0 && parallel.dp == 0) {
    if (world % parallel.cp != 0) {
      problems->Add("parallel.cp = {}: must divide the number of ranks, {}; start {} ranks", parallel.cp, world,
                    NearestMultiples(world, parallel.cp));
      return;
    }
    replicas = world / parallel.cp;
  }
  if (problems->Size("train.sequences_per_step", config.train.sequences_per_step) && replicas > 0 &&
      config.train.sequences_per_step % replicas != 0) {
    problems->Add(
        "train.sequences_per_step = {} and parallel.dp = {} disagree: every replica takes the same number of "
        "sequences; set train.sequences_per_step to {}",
        config.train.sequences_per_step, replicas, NearestMultiples(config.train.sequences_per_step, replicas));
  }
}

// A sequence can be cut into equal chunks of whole selection blocks (parallel/layout.h), and NSA can summarise it.
void CheckSequence(const RunConfig& config, bool nsa_good, ProblemList* problems) {
  const int64_t length = config.data.sequence_length;
  const NsaConfig& nsa = config.model.nsa;
  const ParallelConfig& parallel = config.parallel;
  if (!problems->Size("data.sequence_length", length)) return;
  constexpr int64_t kLeastRetrieval = 256;
  if (config.data.format == DataFormat::kRetrieval && length < kLeastRetrieval) {
    problems->Add(
        "data.sequence_length = {} and data.format = RETRIEVAL disagree: set data.sequence_length to {} or more",
        length, kLeastRetrieval);
  }
  if (!nsa_good) return;
  const std::vector<AttentionKind>& kinds = config.model.attention;
  const bool summarised = std::find(kinds.begin(), kinds.end(), AttentionKind::kNsa) != kinds.end();
  if (summarised && length < nsa.block) {
    problems->Add(
        "data.sequence_length = {} and model.nsa.block = {} disagree: a sequence shorter than a compressed token has "
        "no summaries; set data.sequence_length to {} or more",
        length, nsa.block, nsa.block);
  } else if (summarised && length % nsa.stride != 0) {
    problems->Add(
        "data.sequence_length = {} and model.nsa.stride = {} disagree: every stride of a sequence has its row of "
        "summaries; set data.sequence_length to {}",
        length, nsa.stride, NearestMultiples(length, nsa.stride));
  }
  if (parallel.cp < 2 || parallel.cp > ProblemList::kLargest) return;
  const bool head_tail = parallel.layout == LayoutKind::kHeadTail;
  const int64_t chunks = parallel.cp * (head_tail ? 2 : 1);
  if (nsa.select_block > ProblemList::kLargest / chunks) {
    problems->Add(
        "parallel.cp = {} and model.nsa.select_block = {} disagree: no sequence is that long; make one smaller",
        parallel.cp, nsa.select_block);
  } else if (length % (chunks * nsa.select_block) != 0) {
    problems->Add(
        "parallel.cp = {} and data.sequence_length = {} disagree: parallel.layout = {} cuts a sequence into {} chunks "
        "of whole selection blocks (model.nsa.select_block = {}), so its length is a multiple of {}; set "
        "data.sequence_length "
        "to {}",
        parallel.cp, length, head_tail ? "HEAD_TAIL" : "CONTIGUOUS", chunks, nsa.select_block,
        chunks * nsa.select_block, NearestMultiples(length, chunks * nsa.select_block));
  }
}

// Each as if it were all of the run.
void CheckStages(const RunConfig& config, int64_t world, bool nsa_good, ProblemList* problems) {
  int64_t length = 0;
  for (const std::string& entry : config.data.stages) {
    const auto add = [&](const std::string& problem) {
      problems->lines.push_back(fmt::format("data.stages = \"{}\": {}", entry, problem));
    };
    Stage stage;
    if (const std::string expected = ReadStageEntry(entry, &stage); !expected.empty()) {
      add(expected);
      return;
    }
    if (problems->lines.empty()) {  // else they would be said again
      ProblemList own;
      const RunConfig at = AtStage(config, stage);
      CheckRanks(at, world, &own);
      CheckSequence(at, nsa_good, &own);
      for (const std::string& problem : own.lines) add(problem);
    }
    if (stage.sequence_length <= length) add("must be longer than the stage before");
    length = stage.sequence_length;
  }
  if (config.data.stages.empty()) return;
  if (config.data.sequence_length <= length) {
    problems->Add(
        "data.stages and data.sequence_length = {} disagree: the last stage must be longer than those before, {}",
        config.data.sequence_length, length);
  }
  for (const auto& [key, path] : {std::pair("train.record_selection", &config.train.record_selection),
                                  std::pair("train.frozen_selection", &config.train.frozen_selection)}) {
    if (!path->empty()) problems->Add("data.stages and {} = \"{}\" disagree: selections are of one length", key, *path);
  }
}

void CheckBlend(const RunConfig& config, ProblemList* problems) {
  const DataConfig& data = config.data;
  for (const auto& [key, path] : {std::pair("data.train", &data.train), {"data.validation", &data.validation}}) {
    if (path->empty()) continue;
    problems->Add("data.blend and {} = \"{}\" disagree: the entries of data.blend name all datasets; set {} to \"\"",
                  key, *path, key);
  }
  bool held_out = false;
  for (const std::string& entry : data.blend) {
    BlendPart part;
    part.validation_fraction = data.validation_fraction;
    const std::string expected = ReadBlendEntry(entry, &part);
    if (!expected.empty()) problems->Add("data.blend = \"{}\": {}", entry, expected);
    held_out |= !part.validation.empty() || part.validation_fraction > 0;
  }
  if (!held_out && config.train.evaluates()) {
    problems->Add(
        "data.blend and train.eval_sequences = {} disagree: no entry holds anything out to evaluate on; give one "
        "validation=PATH, or set data.validation_fraction above 0, or train.eval_interval to 0",
        config.train.eval_sequences);
  }
}

void CheckData(const RunConfig& config, bool reads_data, ProblemList* problems) {
  const DataConfig& data = config.data;
  problems->Fraction("data.validation_fraction", data.validation_fraction, true);
  const bool generated = data.format == DataFormat::kFibonacci || data.format == DataFormat::kRetrieval;
  if (generated && !data.blend.empty()) {
    problems->Add("data.blend and data.format = {} disagree: it is generated; set data.format to the files'",
                  data.format == DataFormat::kFibonacci ? "FIBONACCI" : "RETRIEVAL");
  }
  if (data.format == DataFormat::kFibonacci) {
    if (config.model.vocab < 10) {
      problems->Add(
          "model.vocab = {} and data.format = FIBONACCI disagree: its symbols are the digits 0 to 9; set model.vocab "
          "to 10",
          config.model.vocab);
    }
    return;
  }
  if (data.format == DataFormat::kRetrieval) {
    constexpr int64_t kLeastVocab = 64;
    if (config.model.vocab < kLeastVocab) {
      problems->Add("model.vocab = {} and data.format = RETRIEVAL disagree: set model.vocab to {} or more",
                    config.model.vocab, kLeastVocab);
    }
    return;
  }
  if (!data.blend.empty()) {
    CheckBlend(config, problems);
    return;
  }
  if (data.train.empty() && reads_data) {
    problems->Add("data.train = \"\": names no dataset; make one with `longspan data` and set data.train to its path");
  }
  if (data.validation.empty() && data.validation_fraction == 0 && config.train.evaluates()) {
    problems->Add(
        "data.validation_fraction = 0 and train.eval_sequences = {} disagree: nothing is held out to evaluate on; set "
        "data.validation, or train.eval_interval to 0",
        config.train.eval_sequences);
  }
}

void CheckRuntime(const RuntimeConfig& runtime, ProblemList* problems) {
  if (runtime.device == RuntimeDevice::kCpu && runtime.dtype == RuntimeType::kBf16) {
    problems->Add(
        "runtime.device = CPU and runtime.dtype = BF16 disagree: the CPU computes in F32; set runtime.dtype to AUTO");
  }
}

const char* ScheduleName(ScheduleKind schedule) {
  constexpr const char* kNames[] = {"CONSTANT", "LINEAR", "COSINE", "WARMUP_STABLE_DECAY"};
  return kNames[static_cast<int>(schedule)];
}

// Steps with less than the highest learning rate that end the run (model/training/schedule.h), as few as can be.
int64_t FallingSteps(const OptimizerConfig& optimizer, int64_t steps) {
  if (optimizer.schedule == ScheduleKind::kConstant) return 0;
  if (optimizer.schedule != ScheduleKind::kWarmupStableDecay) return 1;
  return optimizer.DecaySteps(steps);
}

void CheckOptimizer(const OptimizerConfig& optimizer, int64_t steps, ProblemList* problems) {
  problems->Above("optimizer.learning_rate", optimizer.learning_rate, 0);
  problems->Fraction("optimizer.final_fraction", optimizer.final_fraction, false);
  problems->Fraction("optimizer.beta1", optimizer.beta1, true);
  problems->Fraction("optimizer.beta2", optimizer.beta2, true);
  problems->Above("optimizer.eps", optimizer.eps, 0);
  problems->NotNegative("optimizer.weight_decay", optimizer.weight_decay);
  problems->NotNegative("optimizer.clip_norm", optimizer.clip_norm);
  const bool warmup = problems->Size("optimizer.warmup_steps", optimizer.warmup_steps, 0);
  const bool decay = problems->Size("optimizer.decay_steps", optimizer.decay_steps, 0);
  if (!warmup || !decay || steps < 1) return;
  const char* const name = ScheduleName(optimizer.schedule);
  const bool stable_decay = optimizer.schedule == ScheduleKind::kWarmupStableDecay;
  const int64_t falling = FallingSteps(optimizer, steps), needed = falling + 1;  // one at the peak
  const bool warmup_alone = optimizer.warmup_steps == steps && !(stable_decay && optimizer.decay_steps > 0);
  if (optimizer.warmup_steps > steps) {
    problems->Add(
        "optimizer.warmup_steps = {} and train.steps = {} disagree: the warm-up must end within the run; set "
        "optimizer.warmup_steps to {} or less",
        optimizer.warmup_steps, steps, steps);
  } else if (!warmup_alone && falling > 0 && optimizer.warmup_steps + needed > steps) {
    if (stable_decay && optimizer.decay_steps > 0) {
      problems->Add(
          "optimizer.decay_steps = {} and train.steps = {} disagree: after {} steps of warm-up and one at "
          "optimizer.learning_rate at most {} are left",
          optimizer.decay_steps, steps, optimizer.warmup_steps,
          std::max<int64_t>(0, steps - optimizer.warmup_steps - 1));
      return;
    }
    problems->Add(
        "optimizer.warmup_steps = {} and train.steps = {} disagree: optimizer.schedule = {} takes {} steps after the "
        "warm-up, one at optimizer.learning_rate and {} to fall to optimizer.final_fraction of it; set {}",
        optimizer.warmup_steps, steps, name, needed, falling,
        needed > steps ? fmt::format("train.steps to {} or more, or optimizer.schedule to CONSTANT", needed)
                       : fmt::format("optimizer.warmup_steps to {} or less", steps - needed));
  }
  if (!stable_decay && optimizer.decay_steps != 0) {
    problems->Add(
        "optimizer.decay_steps = {} and optimizer.schedule = {} disagree: only WARMUP_STABLE_DECAY has a final decay; "
        "set optimizer.schedule to it or optimizer.decay_steps to 0",
        optimizer.decay_steps, name);
  }
}

void CheckCheckpoints(const CheckpointConfig& checkpoint, ProblemList* problems) {
  const bool interval = problems->Size("checkpoint.interval", checkpoint.interval, 0);
  problems->NotNegative("checkpoint.minutes", checkpoint.minutes);
  problems->Size("checkpoint.keep_last", checkpoint.keep_last);
  problems->Size("checkpoint.memory_interval", checkpoint.memory_interval, 0);
  const bool every = problems->Size("checkpoint.keep_every", checkpoint.keep_every, 0);
  if (!interval || !every || checkpoint.keep_every == 0) return;
  if (checkpoint.interval == 0) {
    problems->Add(
        "checkpoint.keep_every = {} and checkpoint.interval = 0 disagree: saves by time alone seldom meet such a step; "
        "set checkpoint.interval to {}",
        checkpoint.keep_every, checkpoint.keep_every);
  } else if (checkpoint.keep_every % checkpoint.interval != 0) {
    problems->Add(
        "checkpoint.keep_every = {} and checkpoint.interval = {} disagree: what is kept must have been saved; set "
        "checkpoint.keep_every to {}",
        checkpoint.keep_every, checkpoint.interval, NearestMultiples(checkpoint.keep_every, checkpoint.interval));
  }
}

void CheckSelections(const RunConfig& config, bool steps, ProblemList* problems) {
  const TrainConfig& train = config.train;
  const std::vector<AttentionKind>& kinds = config.model.attention;
  const bool selects = std::find(kinds.begin(), kinds.end(), AttentionKind::kNsa) != kinds.end();
  for (const auto& [key, path] : {std::pair("train.record_selection", &train.record_selection),
                                  std::pair("train.frozen_selection", &train.frozen_selection)}) {
    if (path->empty() || selects) continue;
    problems->Add("{} = \"{}\" and model.attention disagree: no layer selects; name NSA in model.attention", key,
                  *path);
  }
  if (!train.record_selection.empty() && !train.frozen_selection.empty()) {
    problems->Add(
        "train.record_selection = \"{}\" and train.frozen_selection = \"{}\" disagree: given blocks are not chosen; "
        "leave one empty",
        train.record_selection, train.frozen_selection);
  }
  if (!problems->Size("train.record_step", train.record_step, 0) || train.record_step == 0) return;
  if (train.record_selection.empty()) {
    problems->Add(
        "train.record_step = {} and train.record_selection = \"\" disagree: nothing is recorded; name a file, or set "
        "train.record_step to 0",
        train.record_step);
  }
  if (steps && train.record_step > train.steps) {
    problems->Add("train.record_step = {} and train.steps = {} disagree: there is no such step; set it to {} or less",
                  train.record_step, train.steps, train.steps);
  }
}

}  // namespace

std::vector<std::string> Problems(const RunConfig& config, int64_t world, bool reads_data) {
  ProblemList problems;
  if (config.name.empty() || config.name == "." || config.name == ".." || config.name.find('/') != std::string::npos) {
    problems.Add("name = \"{}\": must be the name of a folder, without '/'", config.name);
  }
  if (config.output.empty()) problems.Add("output = \"\": must be a folder; set it to \".\" for the current one");
  const std::vector<std::string> model = Problems(config.model, "model.");
  problems.lines.insert(problems.lines.end(), model.begin(), model.end());
  const bool nsa_good = Problems(config.model.nsa, "").empty();
  CheckRanks(config, world, &problems);
  if (config.runtime.device == RuntimeDevice::kCpu && config.parallel.transport != Transport::kAuto) {
    problems.Add(
        "parallel.transport = {} and runtime.device = CPU disagree: on the CPU all transfers are MPI's; set "
        "parallel.transport to AUTO",
        TransportName(config.parallel.transport));
  }
  const int64_t left = config.parallel.transfer_processors;
  if (problems.Size("parallel.transfer_processors", left, 0) && config.runtime.device == RuntimeDevice::kCpu &&
      left > 0) {
    problems.Add(
        "parallel.transfer_processors = {} and runtime.device = CPU disagree: a CPU leaves none; set "
        "parallel.transfer_processors to 0",
        left);
  }
  if (config.runtime.graphs == Graphs::kOn) {
    if (config.parallel.transport == Transport::kStaged) {
      problems.Add(
          "runtime.graphs = ON and parallel.transport = STAGED disagree: staged transfers wait on the host; set "
          "runtime.graphs to AUTO");
    }
    if (config.parallel.selected_exchange == SelectedExchange::kFetch && config.parallel.cp > 1) {
      problems.Add(
          "runtime.graphs = ON and parallel.selected_exchange = FETCH disagree: a fetch waits on the host; set "
          "runtime.graphs to AUTO, or parallel.selected_exchange to GATHER");
    }
  }
  CheckSequence(config, nsa_good, &problems);
  CheckStages(config, world, nsa_good, &problems);
  CheckRuntime(config.runtime, &problems);
  CheckData(config, reads_data, &problems);
  const TrainConfig& train = config.train;
  const bool steps = problems.Size("train.steps", train.steps);
  CheckOptimizer(config.optimizer, steps ? train.steps : 0, &problems);
  CheckSelections(config, steps, &problems);
  problems.Size("train.eval_interval", train.eval_interval, 0);
  problems.Size("train.eval_sequences", train.eval_sequences, 0);
  problems.Size("train.log_interval", train.log_interval);
  problems.NotNegative("train.max_minutes", train.max_minutes);
  problems.Size("train.max_bad_steps", train.max_bad_steps);
  problems.NotNegative("train.max_z_score", train.max_z_score);
  problems.Size("train.compare_interval", train.compare_interval, 0);
  if (train.keep.offload && train.keep.recompute == Recompute::kNone) {
    problems.Add(
        "train.offload = true and train.recompute = NONE disagree: only what recomputation starts from is offloaded; "
        "set train.recompute to SELECTIVE or FULL");
  }
  CheckCheckpoints(config.checkpoint, &problems);
  problems.Size("profile.first_step", config.profile.first_step);
  problems.Size("profile.steps", config.profile.steps, 0);
  problems.NotNegative("comm.timeout", config.comm.timeout);
  problems.NotNegative("comm.load_timeout", config.comm.load_timeout);
  problems.NotNegative("comm.evaluation_timeout", config.comm.evaluation_timeout);
  problems.NotNegative("comm.save_timeout", config.comm.save_timeout);
  return problems.lines;
}

}  // namespace longspan
