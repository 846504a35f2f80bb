#include "launch/report/clocks.h"

#include <array>

#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr int kClockTries = 8, kMostClockTries = 64;  // as long as the best is not good
constexpr double kGood = 50e-6;                       // seconds

using Values = std::array<double, 2>;

class Peer {
 public:
  Peer(Communicator& group, int rank) : group_(group), rank_(rank) {}
  void Send(Values values) { Move(Transfer::Kind::kSend, &values); }
  Values Receive() {
    Values values{};
    Move(Transfer::Kind::kReceive, &values);
    return values;
  }

 private:
  void Move(Transfer::Kind kind, Values* values) {
    group_.Message(*stream_, {kind, rank_, HostView(values->data(), {std::ssize(*values)})});
    stream_->Synchronize();
  }

  Communicator& group_;
  const int rank_;
  const std::unique_ptr<Stream> stream_ = MakeCpuDevice()->MakeStream("clocks");
};

// Both ends of a pair: `own` is what the asking one knows of itself.
void Ask(Peer peer, const ClockDifference& own) {
  ClockDifference other{0, 1e300};
  for (int i = 0; i < kClockTries || (i < kMostClockTries && other.error > kGood); ++i) {
    const double begin = WallSeconds();
    peer.Send({1, 0});
    const double answer = peer.Receive()[0], half = (WallSeconds() - begin) / 2;
    if (half < other.error) other = {begin + half - answer, half};
  }
  peer.Send({0, 0});
  peer.Send({other.ahead + own.ahead, other.error + own.error});
}

ClockDifference Answer(Peer peer) {
  while (peer.Receive()[0] > 0) peer.Send({WallSeconds(), 0});
  const Values found = peer.Receive();
  return {found[0], found[1]};
}

}  // namespace

ClockDifference CompareClocks(Communicator& group) {
  ClockDifference own;
  const int rank = group.rank();
  for (int known = 1; known < group.size(); known *= 2) {
    if (rank < known && rank + known < group.size()) Ask({group, rank + known}, own);
    if (rank >= known && rank < 2 * known) own = Answer({group, rank - known});
  }
  return own;
}

}  // namespace longspan
