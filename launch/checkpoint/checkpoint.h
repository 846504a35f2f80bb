// Checkpoints: the saves of a run, on the disk and in memory, and what it resumes from.
//
// Every rank writes what it owns of the optimizer's state into a file of its own (shard-RRRRR.safetensors): of each
// parameter weight.NAME (F32: the master where weights are narrower), adamw.m.NAME and adamw.v.NAME, in its shape.
// Weights are rounded from that. So a checkpoint loads on any ranks, layout, device and type.
//
// Saves go on behind training (launch/checkpoint/saver.h); on the disk the last step's, and all without
// checkpoint.background, are waited for.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "launch/checkpoint/find.h"
#include "launch/checkpoint/manifest.h"
#include "launch/checkpoint/saver.h"
#include "launch/checkpoint/tier.h"
#include "launch/config/run_config.h"
#include "model/training/optimizer.h"
#include "parallel/comm/comm.h"

namespace longspan {

// Of host memory that a rank takes for its copies of a run that saves by these rules.
int64_t CopyBytes(const CheckpointConfig& rules, const Optimizer& optimizer);
// Of files in memory, where a node keeps `bytes` of each step for a rank: the last step, and the next until it is
// complete.
int64_t MemoryTierBytes(const CheckpointConfig& rules, int64_t bytes);
std::string DiskFolder(const std::string& run);   // of the run's folder
std::string MemoryFolder(const std::string& id);  // of the run's id

class Checkpoints {
 public:
  struct Args {
    Communicator& world;  // all ranks, on host memory
    Device& device;
    Stream& compute;
    Optimizer& optimizer;
    const RunConfig& config;
    std::string run;     // the run's folder
    std::string memory;  // of files in memory, on each node
    std::string node;    // this rank's
    Manifest about;      // what manifests say of the run besides time, state, tensors and files
    std::function<void(const std::string&)> say;  // a line to the log
    std::string tokenizer = {};  // bytes of its model, which every save has with it as tokenizer.model; "": none
  };
  explicit Checkpoints(Args args);  // collective; what it refers to outlives it

  // All of these are collective.

  int64_t MemoryBytes() const;  // of files in memory, that this rank's node will hold for it
  const std::string& memory() const { return memory_.path(); }  // their folder

  // FindCheckpoint; none where there is none at all.
  std::optional<RunState> Find();
  bool found_on_disk() const { return found_ && !found_->tier->in_memory(); }
  // Reads what was found into the optimizer and the weights; without any, it only removes what memory holds. Sets aside
  // on the disk what Find passed over.
  void Load();

  // Takes the memory for the copies; before the first step.
  void Reserve();
  // After each step: goes on with the saves under way, and begins one where the rules of the configuration ask for it.
  void AfterStep(const RunState& state);
  // Later work of the compute stream may change the state. Of this rank alone.
  void BeforeUpdate() {
    disk_saver_.BeforeUpdate();
    memory_saver_.BeforeUpdate();
  }
  // Saves now, and returns once this and all saves under way are on the disk. False when this could not be: a warning
  // says why, what was saved before is as it was.
  bool Save(const RunState& state);
  // Until no save is under way. Like all that saves it throws Error (io) when three saves in a row failed.
  void Finish();
  // Of a run that ends well: removes what memory holds of it.
  void Forget();

 private:
  bool Due(int64_t step);
  void KeepInMemory(int64_t step);  // this one alone

  Communicator& world_;
  Device& device_;
  Stream& compute_;
  Optimizer& optimizer_;
  const RunConfig& config_;
  const std::vector<DataClaim> data_;
  const std::function<void(const std::string&)> say_;
  const Tier disk_, memory_;
  Saver disk_saver_, memory_saver_;

  std::optional<Tier::Found> found_;
  std::vector<std::string> broken_;  // paths of what Find passed over
  double saved_at_;                  // to the disk, or begun
};

}  // namespace longspan
