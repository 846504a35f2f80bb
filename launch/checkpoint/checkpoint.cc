#include "launch/checkpoint/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <sstream>
#include <utility>

#include "kernels/host_copy.h"
#include "launch/checkpoint/compare.h"
#include "parallel/comm/texts.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr int kMaxFailures = 3;

// Calls `part` on every rank and returns what each returned. When one fails, all throw the Error of the first.
std::vector<std::string> OnAllRanks(Communicator& world, const std::function<std::string()>& part) {
  std::string text;
  try {
    text = "0 " + part();
  } catch (const Error& error) {
    text = fmt::format("{} {}", static_cast<int>(error.code()), error.what());
  } catch (const std::exception& error) {
    text = fmt::format("{} {}{}", static_cast<int>(ExitCode::kIo), ProcessPrefix(), error.what());
  }
  std::vector<std::string> texts = GatherTexts(world, text);
  for (std::string& each : texts) {
    const size_t space = each.find(' ');
    const auto code = static_cast<ExitCode>(std::stoi(each.substr(0, space)));
    each.erase(0, space + 1);
    if (code != ExitCode::kOk) throw Error(code, each);
  }
  return texts;
}

// The same on rank 0 alone.
std::string OnRoot(Communicator& world, const std::function<std::string()>& part) {
  return OnAllRanks(world, [&] { return world.rank() == 0 ? part() : ""; })[0];
}

double Largest(Communicator& world, double value) {
  const auto stream = MakeCpuDevice()->MakeStream("checkpoints");
  world.AllReduce(*stream, HostView(&value, {1}), ReduceOp::kMax);
  stream->Synchronize();
  return value;
}

// That a run with these rules will want at once.
int64_t Copies(const CheckpointConfig& rules) {
  const bool often = rules.interval > 0 || rules.minutes > 0;
  if (often && rules.background) return 2;
  return often || rules.at_end ? 1 : 0;
}

}  // namespace

int64_t CheckpointBytes(const CheckpointConfig& rules, const Optimizer& optimizer) {
  return Copies(rules) * optimizer.own_state_bytes();
}

Checkpoints::Checkpoints(Args args)
    : world_(args.world),
      device_(args.device),
      compute_(args.compute),
      copies_(device_.MakeStream("checkpoint")),
      stepped_(device_.MakeEvent()),
      copied_(device_.MakeEvent()),
      optimizer_(args.optimizer),
      config_(args.config),
      folder_(args.run + "/checkpoints"),
      about_(std::move(args.about)),
      say_(std::move(args.say)),
      saved_at_(WallSeconds()) {}

std::optional<RunState> Checkpoints::Find() {
  const std::string listed = OnRoot(world_, [&] {
    std::vector<int64_t> steps;
    for (const auto& found : folder_.List()) steps.push_back(found.step);
    return fmt::format("{}", fmt::join(steps, " "));
  });
  std::istringstream steps(listed);
  for (int64_t step = 0; steps >> step;) {
    const std::string path = folder_.PathOf(step);
    try {
      OnAllRanks(world_, [&] {
        found_.emplace(path);
        int turn = 0;
        for (const auto& [name, file] : found_->manifest().files) {
          if (turn++ % world_.size() == world_.rank()) found_->CheckFile(name);
        }
        return std::string();
      });
    } catch (const Error& error) {
      found_.reset();
      broken_.push_back(path);
      say_(fmt::format("warning: checkpoint {} is passed over: {}", path, error.what()));
      continue;
    }
    break;
  }
  if (!found_) {
    if (broken_.empty()) return std::nullopt;
    Fail(ExitCode::kData, "{}: none of the {} in it is complete; --overwrite begins again from the first step",
         fmt::format("{}/checkpoints", config_.output + "/" + config_.name),
         broken_.size() == 1 ? "checkpoint" : fmt::format("{} checkpoints", broken_.size()));
  }
  const Manifest& manifest = found_->manifest();
  const Differences differences = Compare(manifest, config_, about_.data);
  if (!differences.refused.empty()) {
    Fail(ExitCode::kConfig, "{} does not fit this run:\n  {}\nset these as they were, or set name to another",
         found_->path(), fmt::join(differences.refused, "\n  "));
  }
  say_(fmt::format("  resume     {}, after step {}", found_->path(), manifest.state.step));
  for (const std::string& changed : differences.changed) say_("  changed    " + changed);
  return manifest.state;
}

void Checkpoints::Load() {
  if (world_.rank() == 0) {
    for (const std::string& path : broken_) {
      try {
        folder_.SetAside(path);
      } catch (const Error& error) {
        say_(fmt::format("warning: {}", error.what()));
      }
    }
  }
  std::vector<std::byte> bytes;
  for (const auto& [name, to] : OwnTensors(optimizer_)) {
    bytes.resize(std::max<size_t>(bytes.size(), to.bytes()));
    const Tensor host(bytes.data(), to.dtype, DeviceKind::kCpu, to.shape);
    found_->Read(name, 0, host);
    HostCopy(device_, compute_, host, to);
  }
  optimizer_.SpreadWeights();
  compute_.Synchronize();
  saved_step_ = found_->manifest().state.step;
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
  const int64_t copies = Copies(config_.checkpoint);
  for (int64_t i = 0; i < copies; ++i) snapshots_[i].Reserve(device_, optimizer_.own_state_bytes());
}

void Checkpoints::AfterStep(const RunState& state) {
  Advance(/*wait=*/false);
  if (!Due(state.step)) return;
  const bool last = state.step == config_.train.steps;
  if (last || !config_.checkpoint.background) {
    Save(state);
    return;
  }
  if (pending_.size() == snapshots_.size()) {
    say_(fmt::format(
        "warning: step {} is not saved: step {} is still being written, and step {} waits for it; save less often, or "
        "write to a faster disk",
        state.step, pending_[0].state.step, pending_[1].state.step));
    return;
  }
  Begin(state);
}

bool Checkpoints::Save(const RunState& state) {
  const bool under_way = !pending_.empty() && pending_.back().state.step == state.step;
  if (!under_way && state.step != saved_step_) {
    Finish();
    Begin(state);
  }
  Finish();
  return saved_step_ == state.step;
}

void Checkpoints::Finish() {
  const double begin = WallSeconds();
  while (!pending_.empty()) Advance(/*wait=*/true);
  Trace::Get().AddWait("checkpoint.wait", begin);
}

void Checkpoints::Begin(const RunState& state) {
  const double begin = saved_at_ = WallSeconds();
  Snapshot* const free = &snapshots_[!pending_.empty() && pending_[0].snapshot == &snapshots_[0] ? 1 : 0];
  compute_.Record(*stepped_);
  copies_->Wait(*stepped_);
  free->Take(device_, *copies_, optimizer_);
  copies_->Record(*copied_);
  pending_.push_back({.state = state, .snapshot = free, .begin = begin});
  Trace::Get().AddWait("checkpoint.begin", begin);
}

void Checkpoints::Advance(bool wait) {
  if (pending_.empty()) return;
  Pending& save = pending_[0];
  try {
    if (save.stage == Stage::kCopied) {
      copies_->Synchronize();
      OnRoot(world_, [&] {
        folder_.Begin(save.state.step);
        return std::string();
      });
      save.work =
          std::async(std::launch::async, [&snapshot = *save.snapshot, folder = folder_.PartialOf(save.state.step),
                                          name = fmt::format("shard-{:05}.safetensors", world_.rank())] {
            return snapshot.Write(folder, name).Text();
          });
      save.stage = Stage::kWritten;
    }
    if (save.stage == Stage::kWritten && Ready(wait)) Commit(save);
    if (save.stage == Stage::kCommitted && Ready(wait)) {
      OnRoot(world_, [&] { return save.work.get(); });
      End(std::nullopt);
    }
  } catch (const Error& error) {
    End(error);
  }
}

bool Checkpoints::Ready(bool wait) {
  const std::future<std::string>& work = pending_[0].work;
  if (wait) {
    if (work.valid()) work.wait();
    return true;
  }
  const bool busy = work.valid() && work.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
  return Largest(world_, busy ? 1 : 0) == 0;
}

// The parts of all ranks are on the disk, or an error is thrown on all.
void Checkpoints::Commit(Pending& save) {
  const std::vector<std::string> parts = OnAllRanks(world_, [&] { return save.work.get(); });
  save.stage = Stage::kCommitted;
  if (world_.rank() != 0) return;
  Manifest manifest = about_;
  manifest.state = save.state;
  manifest.time = UtcTime();
  save.work = std::async(std::launch::async, [this, parts, manifest = std::move(manifest)]() mutable {
    for (const std::string& part : parts) manifest.Add(Manifest::Parse(part, "a part of the manifest"));
    folder_.Commit(manifest);
    folder_.Retain(config_.checkpoint.keep_last, config_.checkpoint.keep_every);
    return std::string();
  });
}

void Checkpoints::End(const std::optional<Error>& error) {
  if (pending_[0].work.valid()) pending_[0].work.wait();  // another rank failed
  const int64_t step = pending_[0].state.step;
  const double seconds = WallSeconds() - pending_[0].begin;
  pending_.pop_front();
  if (!error) {
    failures_ = 0;
    saved_step_ = step;
    say_(fmt::format("saved step {} after {:.2f} s: {}", step, seconds, folder_.PathOf(step)));
    return;
  }
  if (world_.rank() == 0) folder_.Abandon(step);
  if (++failures_ == kMaxFailures) {
    pending_.clear();
    throw Error(error->code(),
                fmt::format("{}; {} checkpoints in a row could not be written", error->what(), kMaxFailures));
  }
  say_(fmt::format("warning: step {} is not saved: {}; training goes on", step, error->what()));
}

}  // namespace longspan
