#include "launch/checkpoint/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
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

std::vector<std::pair<std::string, Tensor>> Named(const Optimizer::State& state) {
  return {
      {"weight." + state.name, state.weight}, {"adamw.m." + state.name, state.m}, {"adamw.v." + state.name, state.v}};
}

}  // namespace

Checkpoints::Checkpoints(Args args)
    : world_(args.world),
      device_(args.device),
      compute_(args.compute),
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
  for (const Optimizer::State& state : optimizer_.OwnState()) {
    for (const auto& [name, to] : Named(state)) {
      bytes.resize(std::max<size_t>(bytes.size(), to.bytes()));
      const Tensor host(bytes.data(), to.dtype, DeviceKind::kCpu, to.shape);
      found_->Read(name, 0, host);
      HostCopy(device_, compute_, host, to);
    }
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
  const auto stream = MakeCpuDevice()->MakeStream("checkpoints");
  double since = WallSeconds() - saved_at_;
  world_.AllReduce(*stream, HostView(&since, {1}), ReduceOp::kMax);
  stream->Synchronize();
  return since >= 60 * rules.minutes;
}

bool Checkpoints::Save(const RunState& state) {
  if (state.step == saved_step_) return true;
  const double begin = saved_at_ = WallSeconds();
  try {
    Write(state);
  } catch (const Error& error) {
    if (world_.rank() == 0) folder_.Abandon(state.step);
    if (++failures_ == kMaxFailures) {
      throw Error(error.code(),
                  fmt::format("{}; {} checkpoints in a row could not be written", error.what(), failures_));
    }
    say_(fmt::format("warning: step {} is not saved: {}; training goes on", state.step, error.what()));
    return false;
  }
  failures_ = 0;
  saved_step_ = state.step;
  say_(fmt::format("saved step {} in {:.2f} s: {}", state.step, WallSeconds() - begin, folder_.PathOf(state.step)));
  return true;
}

void Checkpoints::Write(const RunState& state) {
  OnRoot(world_, [&] {
    folder_.Begin(state.step);
    return std::string();
  });
  const std::vector<std::string> parts =
      OnAllRanks(world_, [&] { return WriteOwnFile(folder_.PartialOf(state.step)).Text(); });
  OnRoot(world_, [&] {
    Manifest manifest = about_;
    manifest.state = state;
    manifest.time = UtcTime();
    for (const std::string& part : parts) manifest.Add(Manifest::Parse(part, "a part of the manifest"));
    folder_.Commit(manifest);
    folder_.Retain(config_.checkpoint.keep_last, config_.checkpoint.keep_every);
    return std::string();
  });
}

Manifest Checkpoints::WriteOwnFile(const std::string& folder) {
  Manifest part;
  const std::string name = fmt::format("shard-{:05}.safetensors", world_.rank());
  std::vector<std::pair<std::string, Tensor>> tensors;
  std::vector<std::vector<std::byte>> copies;
  for (const Optimizer::State& state : optimizer_.OwnState()) {
    for (const auto& [tensor_name, from] : Named(state)) {
      const Tensor host(copies.emplace_back(from.bytes()).data(), from.dtype, DeviceKind::kCpu, from.shape);
      HostCopy(device_, compute_, from, host);
      tensors.emplace_back(tensor_name, host);
      std::vector<int64_t> shape;
      for (int i = 0; i < from.shape.rank(); ++i) shape.push_back(from.dim(i));
      part.tensors[tensor_name] = {from.dtype, shape, {{name, 0, from.size()}}};
    }
  }
  if (tensors.empty()) return part;
  const WrittenFile written = WriteSafetensors(folder + "/" + name, tensors);
  part.files[name] = {written.bytes, written.checksum};
  return part;
}

}  // namespace longspan
