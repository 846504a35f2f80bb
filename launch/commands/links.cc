#include "launch/commands/links.h"

#include <algorithm>
#include <vector>

#include "kernels/host_copy.h"
#include "runtime/memory.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr int kRepeats = 5;

// Median seconds of this rank over several runs of `action`, all ranks starting together.
template <typename Action>
double Median(Communicator& world, Stream& stream, Action action) {
  std::vector<double> seconds;
  for (int i = 0; i <= kRepeats; ++i) {
    world.Barrier();
    const double begin = WallSeconds();
    action();
    stream.Synchronize();
    if (i > 0) seconds.push_back(WallSeconds() - begin);  // the first warms up
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRepeats / 2, seconds.end());
  return seconds[kRepeats / 2];
}

}  // namespace

std::string MeasureLinks(Communicator& world, Device& device, Stream& stream) {
  const int ranks = world.size(), rank = world.rank();
  if (ranks == 1) return "  links: one rank, none to measure\n";
  std::string text = fmt::format("  {:<22} {:>10} {:>10} {:>10}\n", "link", "bytes", "us", "GB/s");
  const Buffer times_memory(device, (ranks + 2) * DTypeSize(DType::kF64), "the times of all ranks");
  const Tensor times(times_memory.data(), DType::kF64, device.kind(), {ranks + 2});
  for (const int64_t bytes : {int64_t{4} << 10, int64_t{4} << 20}) {
    const Buffer memory(device, bytes * (ranks + 1), "what is sent to measure links");
    const Tensor all(memory.data(), DType::kU8, device.kind(), {bytes * (ranks + 1)});
    device.FillBytes(stream, all, 1);
    const Tensor out = all.Rows(0, bytes), in = all.Rows(bytes, bytes * ranks);
    const int next = (rank + 1) % ranks, previous = (rank + ranks - 1) % ranks;
    const double ring = Median(world, stream, [&] {
      world.SendReceive(stream,
                        {{Transfer::Kind::kSend, next, out}, {Transfer::Kind::kReceive, previous, in.Rows(0, bytes)}});
    });
    const double own[] = {ring, Median(world, stream, [&] { world.AllGather(stream, out, in); })};
    HostCopy(device, stream, HostView(own, {2}), times.Rows(ranks, 2));
    world.AllGather(stream, times.Rows(ranks, 1), times.Rows(0, ranks));
    world.AllReduce(stream, times.Rows(ranks + 1, 1), ReduceOp::kMax);
    const std::vector<double> seconds = HostValues<double>(device, stream, times);
    const auto slowest = std::max_element(seconds.begin(), seconds.begin() + ranks) - seconds.begin();
    const double gather = seconds[ranks + 1];
    text += fmt::format("  {:<22} {:>10} {:>10.1f} {:>10.3f}\n",
                        fmt::format("rank {} <- {} (slowest)", slowest, (slowest + ranks - 1) % ranks), bytes,
                        seconds[slowest] * 1e6, static_cast<double>(bytes) / seconds[slowest] * 1e-9);
    text += fmt::format("  {:<22} {:>10} {:>10.1f} {:>10.3f}\n", "all-gather", bytes, gather * 1e6,
                        static_cast<double>(bytes * (ranks - 1)) / gather * 1e-9);
  }
  return text;
}

}  // namespace longspan
