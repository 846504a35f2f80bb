#include "launch/checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "kernels/host_copy.h"
#include "launch/checkpoint/on_ranks.h"
#include "launch/checkpoint/reader.h"
#include "parallel/comm/recorder.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

// That a run with these rules will want at once.
int64_t DiskCopies(const CheckpointConfig& rules) {
  const bool often = rules.interval > 0 || rules.minutes > 0;
  if (often && rules.background) return 2;
  return often || rules.at_end ? 1 : 0;
}
int64_t MemoryCopies(const CheckpointConfig& rules) { return rules.memory_interval > 0 ? 1 : 0; }

Saver::Args SaverArgs(const Checkpoints::Args& args, const Tier& tier) {
  Saver::Args result{.world = args.world,
                     .device = args.device,
                     .compute = args.compute,
                     .optimizer = args.optimizer,
                     .tier = tier,
                     .before = args.run + "/metrics.jsonl",
                     .about = args.about,
                     .say = args.say,
                     .tokenizer = args.tokenizer};
  const CheckpointConfig& rules = args.config.checkpoint;
  result.copies = tier.in_memory() ? MemoryCopies(rules) : DiskCopies(rules);
  if (!tier.in_memory()) {
    result.keep_last = rules.keep_last;
    result.keep_every = rules.keep_every;
  }
  return result;
}

}  // namespace

int64_t CopyBytes(const CheckpointConfig& rules, const Optimizer& optimizer) {
  return (DiskCopies(rules) + MemoryCopies(rules)) * optimizer.own_state_bytes();
}

int64_t MemoryTierBytes(const CheckpointConfig& rules, int64_t bytes) {
  return rules.memory_interval > 0 ? 2 * bytes : 0;
}

std::string DiskFolder(const std::string& run) { return run + "/checkpoints"; }
std::string MemoryFolder(const std::string& id) { return "/dev/shm/longspan-" + id; }

Checkpoints::Checkpoints(Args args)
    : world_(args.world),
      device_(args.device),
      compute_(args.compute),
      optimizer_(args.optimizer),
      config_(args.config),
      data_(args.about.data),
      say_(args.say),
      disk_(args.world, DiskFolder(args.run), Nodes::One(args.world.size()), /*in_memory=*/false),
      memory_(args.world, args.memory, Nodes::Gather(args.world, args.node), /*in_memory=*/true),
      disk_saver_(SaverArgs(args, disk_)),
      memory_saver_(SaverArgs(args, memory_)),
      saved_at_(WallSeconds()) {}

int64_t Checkpoints::MemoryBytes() const {
  const Nodes& nodes = memory_.nodes();
  const std::string own = fmt::format("{}", optimizer_.own_state_bytes());
  const std::vector<std::string> all = OnAllRanks(world_, [&] { return own; });
  int64_t bytes = optimizer_.own_state_bytes();
  for (int rank = 0; nodes.count() > 1 && rank < world_.size(); ++rank) {
    if (nodes.partner(rank) == world_.rank()) bytes += std::stoll(all[rank]);
  }
  return MemoryTierBytes(config_.checkpoint, bytes);
}

std::optional<RunState> Checkpoints::Find() {
  Resumption resumption = FindCheckpoint(disk_, memory_, config_, data_, say_);
  found_ = std::move(resumption.found);
  broken_ = std::move(resumption.broken);
  if (!found_) return std::nullopt;
  return found_->manifest.state;
}

void Checkpoints::KeepInMemory(int64_t step) {
  OnAllRanks(world_, [&] {
    if (memory_.keeper()) {
      for (const auto& found : memory_.folder().List()) {
        if (found.step != step) memory_.folder().Remove(found.path);
      }
    }
    return std::string();
  });
}

void Checkpoints::Load() {
  if (world_.rank() == 0) {
    for (const std::string& path : broken_) {
      try {
        disk_.folder().SetAside(path);
      } catch (const Error& error) {
        say_(fmt::format("warning: {}", error.what()));
      }
    }
  }
  KeepInMemory(found_ && !found_on_disk() ? found_->manifest.state.step : -1);
  if (!found_) return;

  const auto tensors = NamedTensors(optimizer_.OwnState());
  std::set<std::string> files;
  for (const auto& [name, to] : tensors) {
    const auto entry = found_->manifest.tensors.find(name);
    if (entry == found_->manifest.tensors.end()) continue;  // Read says so
    for (const Manifest::Part& part : entry->second.parts) files.insert(part.file);
  }
  found_->tier->Bring(*found_, files);
  CheckpointReader reader(found_->path, found_->manifest);
  std::vector<std::byte> bytes;
  for (const auto& [name, to] : tensors) {
    bytes.resize(std::max<size_t>(bytes.size(), to.bytes()));
    const Tensor host(bytes.data(), to.dtype, DeviceKind::kCpu, to.shape);
    reader.Read(name, 0, host);
    HostCopy(device_, compute_, host, to);
  }
  optimizer_.SpreadWeights();
  compute_.Synchronize();
  if (found_on_disk()) disk_saver_.SetSaved(found_->manifest.state.step);
  saved_at_ = WallSeconds();
  found_.reset();
}

bool Checkpoints::Due(int64_t step) {
  const CheckpointConfig& rules = config_.checkpoint;
  if (rules.interval > 0 && step % rules.interval == 0) return true;
  if (rules.at_end && step == config_.train.steps) return true;
  if (rules.minutes == 0) return false;
  return Largest(world_, WallSeconds() - saved_at_) >= 60 * rules.minutes;
}

void Checkpoints::Reserve() {
  disk_saver_.Reserve();
  memory_saver_.Reserve();
  if (config_.checkpoint.memory_interval == 0 || !memory_.keeper()) return;
  std::error_code error;  // shows when a save begins
  fs::create_directories(memory_.path(), error);
  fs::permissions(memory_.path(), fs::perms::owner_all, error);
}

void Checkpoints::AfterStep(const RunState& state) {
  const InPhase phase(HostPhase::kSave);
  disk_saver_.Advance();
  memory_saver_.Advance();
  const bool last = state.step == config_.train.steps;
  const int64_t interval = config_.checkpoint.memory_interval;
  if (interval > 0 && state.step % interval == 0 && !last) memory_saver_.Begin(state);
  if (!Due(state.step)) return;
  if (last || !config_.checkpoint.background) {
    Save(state);
    return;
  }
  saved_at_ = WallSeconds();
  disk_saver_.Begin(state);
}

bool Checkpoints::Save(const RunState& state) {
  const InPhase phase(HostPhase::kSave);
  if (disk_saver_.under_way() != state.step && disk_saver_.saved() != state.step) {
    disk_saver_.Finish();
    saved_at_ = WallSeconds();
    disk_saver_.Begin(state);
  }
  disk_saver_.Finish();
  return disk_saver_.saved() == state.step;
}

void Checkpoints::Finish() {
  const InPhase phase(HostPhase::kSave);
  disk_saver_.Finish();
  memory_saver_.Finish();
}

void Checkpoints::Forget() {
  memory_saver_.Finish();
  std::error_code error;
  if (memory_.keeper()) fs::remove_all(memory_.path(), error);
}

}  // namespace longspan
