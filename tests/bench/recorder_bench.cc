// What it costs a CPU rank to record its profile: nanoseconds of its thread for each span, of periods of empty ones, by
// profile.level, interleaved. Exits 1 when STEPS costs more than kMost over OFF.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "launch/report/recorder.h"
#include "parallel/comm/local_comm.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

constexpr int kRounds = 5, kPeriods = 100, kSpans = 1600;
constexpr double kMost = 300;

double SpanNanoseconds(ProfileLevel level) {
  const TempFolder folder;
  const auto device = MakeCpuDevice();
  const auto world = MakeLocalCommunicator(*device);
  const auto stream = device->MakeStream("compute");
  Recorder recorder(
      {.world = *world, .device = *device, .compute = *stream, .folder = folder / "run", .level = level, .facts = {}});
  const double begin = ThreadCpuSeconds();
  for (int period = 1; period <= kPeriods; ++period) {
    recorder.Begin(RunPeriod::kStep, period);
    for (int i = 0; i < kSpans; ++i) {
      const AtPlace place({i % 3 > 0 ? "window" : "halo", i % 4, i % 2 > 0 ? Pass::kForward : Pass::kBackward});
      const TransferId transfer = i % 8 > 0 ? TransferId{} : TransferId{7, 4, int64_t{period} * kSpans + i};
      Launch(
          *stream, "bench.nothing", {1, 2}, [] {}, transfer);
    }
    recorder.UnderWay();
    recorder.End();
  }
  recorder.Finish();
  return 1e9 * (ThreadCpuSeconds() - begin) / (kPeriods * kSpans);
}

int Run() {
  std::array<double, 3> least{1e300, 1e300, 1e300};
  for (int round = 0; round < kRounds; ++round) {
    for (const ProfileLevel level : {ProfileLevel::kOff, ProfileLevel::kSteps, ProfileLevel::kFull}) {
      double& best = least[static_cast<size_t>(level)];
      best = std::min(best, SpanNanoseconds(level));
    }
  }
  fmt::print("ns a span: OFF {:.0f}, STEPS {:.0f}, FULL {:.0f}\n", least[0], least[1], least[2]);
  return least[1] - least[0] > kMost ? 1 : 0;
}

}  // namespace
}  // namespace longspan

int main() { return longspan::Run(); }
