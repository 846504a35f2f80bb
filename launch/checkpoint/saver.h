// Saver: the saves of a run to one tier, behind training.
//
// On GPUs a thread of each rank copies the state to the host, behind the forward and backward of the next step: nothing
// of it changes until that step's update, which waits (BeforeUpdate). Another then writes the copy, and one of each
// node the manifest, once all ranks have written; older saves go when all nodes have a newer one. While one is written
// others wait for their turn, as far as there is memory for copies; more are skipped.
#pragma once

#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>

#include "launch/checkpoint/manifest.h"
#include "launch/checkpoint/snapshot.h"
#include "launch/checkpoint/tier.h"
#include "model/training/optimizer.h"
#include "parallel/comm/comm.h"
#include "runtime/error.h"

namespace longspan {

class Saver {
 public:
  struct Args {
    Communicator& world;
    Device& device;
    Stream& compute;
    Optimizer& optimizer;
    const Tier& tier;
    int64_t copies = 0;  // of the state, at once
    int64_t keep_last = 1, keep_every = 0;
    std::string before;  // file that is on the disk before a save counts, where there is one
    Manifest about;      // what manifests say of the run besides time, state, tensors and files
    std::function<void(const std::string&)> say;  // a line to the log
    std::string tokenizer = {};                   // bytes of its model, for kTokenizerName; "": none
  };
  explicit Saver(Args args);  // what it refers to outlives it

  // Of this rank alone.
  void Reserve();  // the memory of the copies
  void BeforeUpdate();
  int64_t under_way() const { return pending_.empty() ? -1 : pending_.back().state.step; }  // the newest
  int64_t saved() const { return saved_; }                                                  // the last step; -1: none
  void SetSaved(int64_t step) { saved_ = step; }

  // Collective.

  void Begin(const RunState& state);  // skips it, with a warning, when there is no memory left
  void Advance() { Advance(/*wait=*/false); }
  // Until no save is under way. Like Advance it throws Error (io) when three saves to the disk in a row failed; what
  // fails otherwise is a warning.
  void Finish();

 private:
  enum class Stage { kCopied, kWritten, kCommitted };  // that comes next
  struct Pending {
    RunState state;
    Snapshot* snapshot;
    Stage stage = Stage::kCopied;
    double begin = 0;
    std::future<void> copied;            // on a GPU
    std::future<std::string> work = {};  // of a thread
  };
  // Takes the first save under way as far as it goes, with `wait` to its end.
  void Advance(bool wait);
  bool Ready(bool wait);  // of the first, its work, on all ranks
  void Write(Pending& save);
  void Commit(Pending& save);
  void End(const std::optional<Error>& error);

  const Args args_;
  Communicator& world_;
  Stream& compute_;
  const Tier& tier_;
  const std::unique_ptr<Stream> copies_;

  int64_t saved_ = -1;
  int failures_ = 0;  // in a row
  std::deque<Snapshot> snapshots_;
  std::deque<Pending> pending_;  // the first is written; goes before the copies, as its threads read them
  std::future<void> removal_;    // of older saves
};

}  // namespace longspan
