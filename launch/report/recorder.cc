#include "launch/report/recorder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <utility>

#include "launch/report/clocks.h"
#include "launch/report/link_speed.h"
#include "launch/report/profile_writer.h"
#include "runtime/error.h"
#include "runtime/gpu_monitor.h"
#include "runtime/planted_fault.h"
#include "runtime/profiler_range.h"

namespace longspan {
namespace {

constexpr double kWriteSeconds = 2, kCompareSeconds = 10;
constexpr double kLeastSeconds = 1e-3;  // of a period between two steps

// The same on all ranks, larger at every start.
uint64_t AgreeOnSession(Communicator& world) {
  auto session = static_cast<int64_t>(std::time(nullptr)) << 20 | (getpid() & 0xFFFFF);
  const auto stream = MakeCpuDevice()->MakeStream("profile");
  world.Broadcast(*stream, HostView(&session, {1}), 0);
  stream->Synchronize();
  return static_cast<uint64_t>(session);
}

}  // namespace

std::string Recorder::PathOf(const std::string& folder, int rank) {
  return fmt::format("{}/profile/rank{:05}.pb", folder, rank);
}

Recorder::Recorder(Args args) : args_(std::move(args)), gpu_(args_.device.kind() == DeviceKind::kGpu) {
  Trace::Get().Enable(args_.level != ProfileLevel::kOff);
  if (args_.level == ProfileLevel::kOff) return;
  Communicator& world = args_.world;
  clocks_ = world.Split(0, world.rank());
  const uint64_t session = AgreeOnSession(world);
  try {
    writer_ = std::make_unique<ProfileWriter>(PathOf(args_.folder, world.rank()), args_.append);
    writer_->Begin(session, world.rank(), world.size(), args_.device, args_.facts);
  } catch (const Error& error) {
    writer_.reset();
    fmt::print(stderr, "warning: rank {} has no profile: {}\n", world.rank(), error.what());
  }
  written_ = WallSeconds();
  Trace::Get().Reset();
  Trace::Get().BeginPeriod(0);
  Trace::Get().Keep(writer_ != nullptr);
  CompareClocksNow();
  TakeHeldMemory();  // from here on
  AddMemory();
  Write();
  if (writer_ && !args_.gpu.empty()) monitor_ = std::make_unique<GpuMonitor>(args_.gpu);
}

Recorder::~Recorder() {
  Write();  // of a run that failed
  Trace::Get().Keep(false);
  Trace::Get().Enable(true);
}

double Recorder::wish() const {
  return clocks_ && args_.world.rank() == 0 && WallSeconds() - compared_ > kCompareSeconds ? 1 : 0;
}

void Recorder::CompareAgain() {
  if (clocks_) CompareClocksNow();
}

void Recorder::CompareClocksNow() {
  args_.device.CompareClocks(args_.compute);
  const ClockDifference difference = CompareClocks(*clocks_);
  compared_ = WallSeconds();
  const LinkSpeed link = MeasureNextLink(*clocks_);
  if (!writer_) return;
  writer_->Add(difference, compared_);
  writer_->Add(link, compared_);
}

bool Recorder::InFull(int64_t step) const {
  const int64_t place = step - args_.facts.first_step + 1;  // 1: the first of this start
  return args_.level == ProfileLevel::kFull || (args_.level == ProfileLevel::kSteps && place >= args_.first_full &&
                                                place < args_.first_full + args_.full_steps);
}

void Recorder::Begin(RunPeriod what, int64_t step) {
  if (what == RunPeriod::kStep) PlantedFault::Get().BeginStep(args_.world.rank(), step, step_seconds_);
  Forget();
  PushRange(what == RunPeriod::kStep ? "step" : what == RunPeriod::kEvaluation ? "evaluation" : "checkpoint", step);
  PeriodRecord& period = open_[++period_];
  period.what = what;
  period.step = step;
  period.full = args_.level == ProfileLevel::kFull || (what == RunPeriod::kStep && InFull(step));
  Trace::Get().BeginPeriod(period_);
  in_period_ = true;
  period_cpu_ = ThreadCpuSeconds();
  period.begin = WallSeconds();
}

// What has begun and did not end.
void Recorder::Forget() {
  if (!in_period_) return;
  open_.erase(period_);
  in_period_ = false;
  PopRange();
}

void Recorder::UnderWay() {
  if (gpu_) Gather(period_ - 1);
}

void Recorder::End(int64_t memory_bytes) {
  if (!in_period_) return;
  PeriodRecord& period = open_[period_];
  const double end = WallSeconds();
  period.seconds = end - period.begin;
  period.cpu = ThreadCpuSeconds() - period_cpu_;
  period.memory_bytes = memory_bytes;
  in_period_ = false;
  PopRange();
  Trace::Get().BeginPeriod(0);
  AddMemory();
  if (period.what == RunPeriod::kStep) {
    step_seconds_ = period.seconds;
  } else if (period.seconds < kLeastSeconds) {
    open_.erase(period_);
  }
  Gather(gpu_ ? period_ - 1 : period_);
  if (end - written_ > kWriteSeconds) Write();
}

void Recorder::Finish() {
  Forget();
  Gather(period_);
  TakeReadings();
  if (writer_) writer_->End();
  Write();
}

// Writes periods up to `resolved`, of which all spans have come or are waited for.
void Recorder::Gather(int64_t resolved) {
  if (!writer_) {
    open_.clear();
    return;
  }
  for (TraceSpan& span : Trace::Get().Take(resolved)) {
    const auto found = open_.find(span.period);
    if (found != open_.end()) found->second.spans.push_back(span);
  }
  while (!open_.empty() && open_.begin()->first <= resolved) {
    writer_->Add(open_.begin()->second);
    open_.erase(open_.begin());
  }
}

void Recorder::TakeReadings() {
  if (!writer_ || !monitor_) return;
  for (const GpuReading& reading : monitor_->Take()) writer_->Add(reading);
  if (const std::string problem = monitor_->TakeProblem(); !problem.empty()) writer_->AddProblem(problem);
}

void Recorder::AddMemory() {
  if (writer_) writer_->Add(TakeHeldMemory());
}

void Recorder::Write() {
  if (!writer_) return;
  TakeReadings();
  try {
    writer_->Write();
    written_ = WallSeconds();
  } catch (const Error& error) {
    fmt::print(stderr, "warning: the profile of rank {} ends here: {}\n", args_.world.rank(), error.what());
    writer_.reset();
    monitor_.reset();
    Trace::Get().Keep(false);
  }
}

}  // namespace longspan
