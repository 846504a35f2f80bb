// Checkpoints: the saves of a run, and what it resumes from.
//
// A save copies the state to the host, behind the forward and backward of the next step: nothing of it changes until
// that step's update, which waits (BeforeUpdate). A thread of each rank then writes the copy, and one of rank 0 the
// manifest. There is memory for two copies: while one is written the next waits for its turn; another is skipped. The
// last step's save, and all without checkpoint.background, are waited for.
//
// Every rank writes what it owns of the optimizer's state into a file of its own (shard-RRRRR.safetensors): of each
// parameter weight.NAME (F32: the master where weights are narrower), adamw.m.NAME and adamw.v.NAME, in its shape.
// Weights are rounded from that. So a checkpoint loads on any ranks, layout, device and type.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/manifest.h"
#include "launch/checkpoint/reader.h"
#include "launch/checkpoint/snapshot.h"
#include "launch/config/run_config.h"
#include "model/training/optimizer.h"
#include "parallel/comm/comm.h"

namespace longspan {

// Of host memory that a rank takes for its copies of a run that saves by these rules.
int64_t CheckpointBytes(const CheckpointConfig& rules, const Optimizer& optimizer);

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

  // Takes the memory for the copies; before the first step.
  void Reserve();
  // After each step: goes on with the saves under way, and begins one where the rules of the configuration ask for it.
  void AfterStep(const RunState& state);
  // Later work of the compute stream may change the state. Of this rank alone.
  void BeforeUpdate() {
    if (!pending_.empty()) compute_.Wait(*copied_, "stall.checkpoint");
  }
  // Saves now, and returns once this and all saves under way are on the disk. False when this could not be: a warning
  // says why, what was saved before is as it was.
  bool Save(const RunState& state);
  // Until no save is under way. Like all that saves it throws Error (io) when three saves in a row failed.
  void Finish();

 private:
  enum class Stage { kCopied, kWritten, kCommitted };  // that comes next
  struct Pending {
    RunState state;
    Snapshot* snapshot;
    Stage stage = Stage::kCopied;
    double begin = 0;
    std::future<std::string> work = {};  // of a thread
  };
  bool Due(int64_t step);
  void Begin(const RunState& state);
  // Takes the first save under way as far as it goes, with `wait` to its end.
  void Advance(bool wait);
  bool Ready(bool wait);  // of the first, its work, on all ranks
  void Commit(Pending& save);
  void End(const std::optional<Error>& error);

  Communicator& world_;
  Device& device_;
  Stream& compute_;
  const std::unique_ptr<Stream> copies_;
  const std::unique_ptr<Event> stepped_, copied_;
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
  std::array<Snapshot, 2> snapshots_;
  std::deque<Pending> pending_;  // the first is written; goes first, as its threads read the rest
};

}  // namespace longspan
