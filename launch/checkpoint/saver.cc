#include "launch/checkpoint/saver.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "launch/checkpoint/on_ranks.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr int kMaxFailures = 3;

}  // namespace

Saver::Saver(Args args)
    : args_(std::move(args)),
      world_(args_.world),
      compute_(args_.compute),
      tier_(args_.tier),
      copies_(args_.device.MakeStream(tier_.in_memory() ? "memory_tier" : "checkpoint")) {}

void Saver::Reserve() {
  while (std::ssize(snapshots_) < args_.copies) {
    snapshots_.emplace_back().Reserve(args_.device, args_.optimizer.own_state_bytes());
  }
}

void Saver::BeforeUpdate() {
  if (pending_.empty()) return;
  const std::future<void>& copied = pending_.back().copied;
  if (!copied.valid() || copied.wait_for(std::chrono::seconds(0)) == std::future_status::ready) return;
  compute_.Synchronize();  // beside forward and backward the copy costs nothing
  const double begin = WallSeconds();
  copied.wait();
  Trace::Get().AddWait("stall.checkpoint", begin);
}

void Saver::Begin(const RunState& state) {
  const double begin = WallSeconds();
  if (!pending_.empty() && std::ssize(pending_) >= args_.copies) {
    const std::string waits =
        pending_.size() > 1 ? fmt::format(", and step {} waits for it", pending_.back().state.step) : "";
    args_.say(fmt::format("warning: step {} is not {}: step {} is still being written{}; save less often{}", state.step,
                          tier_.in_memory() ? "kept in memory" : "saved", pending_[0].state.step, waits,
                          tier_.in_memory() ? "" : ", or write to a faster disk"));
    return;
  }
  const auto taken = [&](const Snapshot& snapshot) {
    return std::any_of(pending_.begin(), pending_.end(),
                       [&](const Pending& save) { return save.snapshot == &snapshot; });
  };
  auto free = std::find_if_not(snapshots_.begin(), snapshots_.end(), taken);
  Snapshot& snapshot = free != snapshots_.end() ? *free : snapshots_.emplace_back();
  compute_.Synchronize();
  const auto take = [this, &snapshot] { snapshot.Take(args_.device, *copies_, args_.optimizer); };
  std::future<void> copied;
  if (args_.device.kind() == DeviceKind::kCpu) {
    take();  // one thread drives all of a CPU's streams
  } else {
    copied = std::async(std::launch::async, take);
  }
  pending_.push_back({.state = state, .snapshot = &snapshot, .begin = begin, .copied = std::move(copied)});
  Trace::Get().AddWait("checkpoint.begin", begin);
}

void Saver::Finish() {
  const double begin = WallSeconds();
  while (!pending_.empty()) Advance(/*wait=*/true);
  try {
    OnAllRanks(world_, [&] {
      if (removal_.valid()) removal_.get();
      return std::string();
    });
  } catch (const Error& error) {
    args_.say(fmt::format("warning: {}", error.what()));
  }
  Trace::Get().AddWait("checkpoint.wait", begin);
}

void Saver::Advance(bool wait) {
  if (pending_.empty()) return;
  Pending& save = pending_[0];
  try {
    if (save.stage == Stage::kCopied) Write(save);
    if (save.stage == Stage::kWritten && Ready(wait)) Commit(save);
    if (save.stage == Stage::kCommitted && Ready(wait)) {
      OnAllRanks(world_, [&] { return save.work.valid() ? save.work.get() : ""; });
      End(std::nullopt);
    }
  } catch (const Error& error) {
    End(error);
  }
}

bool Saver::Ready(bool wait) {
  const std::future<std::string>& work = pending_[0].work;
  if (wait) {
    if (work.valid()) work.wait();
    return true;
  }
  const bool busy = work.valid() && work.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
  return Largest(world_, busy ? 1 : 0) == 0;
}

void Saver::Write(Pending& save) {
  OnAllRanks(world_, [&] {
    if (save.copied.valid()) save.copied.get();
    if (removal_.valid()) removal_.get();
    if (tier_.keeper()) tier_.folder().Begin(save.state.step);
    return std::string();
  });
  save.work =
      std::async(std::launch::async, [&snapshot = *save.snapshot, folder = tier_.folder().PartialOf(save.state.step),
                                      name = fmt::format("shard-{:05}.safetensors", world_.rank()),
                                      tokenizer = world_.rank() == 0 ? args_.tokenizer : ""] {
        Manifest part = snapshot.Write(folder, name);
        WriteTokenizerModel(folder, tokenizer, &part);
        return part.Text();
      });
  save.stage = Stage::kWritten;
}

// The parts of all ranks are written, or an error is thrown on all.
void Saver::Commit(Pending& save) {
  std::vector<Manifest> parts;
  for (const std::string& text : OnAllRanks(world_, [&] { return save.work.get(); })) {
    parts.push_back(Manifest::Parse(text, "a part of the manifest"));
  }
  tier_.Spread(save.state.step, parts);
  save.stage = Stage::kCommitted;
  if (!tier_.keeper()) return;
  Manifest manifest = args_.about;
  manifest.state = save.state;
  manifest.time = UtcTime();
  for (const Manifest& part : parts) manifest.Add(part);
  save.work = std::async(std::launch::async, [this, manifest = std::move(manifest)] {
    if (world_.rank() == 0 && !args_.before.empty()) SyncFile(args_.before);
    tier_.folder().Commit(manifest);
    return std::string();
  });
}

void Saver::End(const std::optional<Error>& error) {
  if (pending_[0].work.valid()) pending_[0].work.wait();  // another rank failed
  const int64_t step = pending_[0].state.step;
  const double seconds = WallSeconds() - pending_[0].begin;
  pending_.pop_front();
  if (!error) {
    failures_ = 0;
    saved_ = step;
    if (tier_.keeper()) {
      removal_ = std::async(std::launch::async, [this] { tier_.folder().Retain(args_.keep_last, args_.keep_every); });
    }
    if (!tier_.in_memory()) {
      args_.say(fmt::format("saved step {} after {:.2f} s: {}", step, seconds, tier_.folder().PathOf(step)));
    }
    return;
  }
  if (tier_.keeper()) tier_.folder().Abandon(step);
  if (tier_.in_memory()) {
    args_.say(fmt::format("warning: step {} is not kept in memory: {}", step, error->what()));
    return;
  }
  if (++failures_ == kMaxFailures) {
    pending_.clear();
    throw Error(error->code(),
                fmt::format("{}; {} checkpoints in a row could not be written", error->what(), kMaxFailures));
  }
  args_.say(fmt::format("warning: step {} is not saved: {}; training goes on", step, error->what()));
}

}  // namespace longspan
