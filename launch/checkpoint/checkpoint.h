// Checkpoints: the saves of a run, and what it resumes from.
//
// Every rank writes what it owns of the optimizer's state into a file of its own (shard-RRRRR.safetensors): of each
// parameter weight.NAME (F32: the master where weights are narrower), adamw.m.NAME and adamw.v.NAME, in its shape.
// Weights are rounded from that. So a checkpoint loads on any ranks, layout, device and type.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/manifest.h"
#include "launch/checkpoint/reader.h"
#include "launch/config/run_config.h"
#include "model/training/optimizer.h"
#include "parallel/comm/comm.h"

namespace longspan {

class Checkpoints {
 public:
  struct Args {
    Communicator& world;  // all ranks, on host memory
    Device& device;
    Stream& compute;
    Optimizer& optimizer;
    const RunConfig& config;
    std::string run;  // the run's folder
    Manifest about;   // what manifests say of the run besides time, state, tensors and files
    std::function<void(const std::string&)> say;  // a line to the log
  };
  explicit Checkpoints(Args args);  // what it refers to outlives it

  // All of these are collective.

  // The newest complete checkpoint, all of it read and checked; says which are passed over and why, and what this run
  // has otherwise. None where there is none at all. Throws Error: (data) when none of those there is good,
  // (configuration) naming each difference when it is of another model, tokenizer or dataset.
  std::optional<RunState> Find();
  // Sets aside what Find passed over, and reads what it found into the optimizer and the weights.
  void Load();

  // Whether the rules of the configuration ask for a save after `step`.
  bool Due(int64_t step);
  // Saves, and returns once all is on the disk; nothing when the step is saved already. False when it could not be: a
  // warning says why, what was saved before is as it was. Throws Error (io) when three in a row failed.
  bool Save(const RunState& state);

 private:
  void Write(const RunState& state);
  Manifest WriteOwnFile(const std::string& folder);

  Communicator& world_;
  Device& device_;
  Stream& compute_;
  Optimizer& optimizer_;
  const RunConfig& config_;
  const CheckpointFolder folder_;
  const Manifest about_;
  const std::function<void(const std::string&)> say_;

  std::optional<CheckpointReader> found_;
  std::vector<std::string> broken_;  // paths of what Find passed over
  int64_t saved_step_ = -1;
  double saved_at_;   // or begun
  int failures_ = 0;  // in a row
};

}  // namespace longspan
