#include "launch/links.h"

#include <algorithm>
#include <vector>

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

std::string MeasureLinks(Communicator& world, Stream& stream) {
  const int ranks = world.size(), rank = world.rank();
  if (ranks == 1) return "  links: one rank, none to measure\n";
  std::string text = fmt::format("  {:<22} {:>10} {:>10} {:>10}\n", "link", "bytes", "us", "GB/s");
  for (const int64_t bytes : {int64_t{4} << 10, int64_t{4} << 20}) {
    std::vector<uint8_t> send(bytes, 1), receive(bytes * ranks);
    const Tensor out = HostView(send.data(), {bytes}), in = HostView(receive.data(), {bytes});
    const int next = (rank + 1) % ranks, previous = (rank + ranks - 1) % ranks;
    double ring = Median(world, stream, [&] {
      world.SendReceive(stream, {{Transfer::Kind::kSend, next, out}, {Transfer::Kind::kReceive, previous, in}});
    });
    double gather =
        Median(world, stream, [&] { world.AllGather(stream, out, HostView(receive.data(), {bytes * ranks})); });
    std::vector<double> rings(ranks);
    world.AllGather(stream, HostView(&ring, {1}), HostView(rings.data(), {ranks}));
    world.AllReduce(stream, HostView(&gather, {1}), ReduceOp::kMax);
    stream.Synchronize();
    const auto slowest = std::max_element(rings.begin(), rings.end()) - rings.begin();
    text += fmt::format("  {:<22} {:>10} {:>10.1f} {:>10.3f}\n",
                        fmt::format("rank {} <- {} (slowest)", slowest, (slowest + ranks - 1) % ranks), bytes,
                        rings[slowest] * 1e6, static_cast<double>(bytes) / rings[slowest] * 1e-9);
    text += fmt::format("  {:<22} {:>10} {:>10.1f} {:>10.3f}\n", "all-gather", bytes, gather * 1e6,
                        static_cast<double>(bytes * (ranks - 1)) / gather * 1e-9);
  }
  return text;
}

}  // namespace longspan
