#include "launch/report/link_speed.h"

#include <algorithm>
#include <vector>

#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr int64_t kBytes = 256 << 10;
constexpr int kMessageTries = 32;
constexpr double kLongest = 0.02;  // seconds, after which no other try begins

class MeasuredLink {
 public:
  MeasuredLink(Communicator& group, int peer) : group_(group), peer_(peer), message_(kBytes) {}

  // One end asks, the other answers.
  double Ask() {
    double best = 1e300;
    Move(Transfer::Kind::kSend, 1);
    Move(Transfer::Kind::kReceive, 1);  // the other end has no other link to measure now
    const double begin = WallSeconds();
    for (int i = 0; i < kMessageTries && (i == 0 || WallSeconds() - begin < kLongest); ++i) {
      message_[0] = 1;
      const double sent = WallSeconds();
      Move(Transfer::Kind::kSend);
      Move(Transfer::Kind::kReceive);
      best = std::min(best, (WallSeconds() - sent) / 2);
    }
    message_[0] = 0;
    Move(Transfer::Kind::kSend);
    return best;
  }
  void Answer() {
    Move(Transfer::Kind::kReceive, 1);
    Move(Transfer::Kind::kSend, 1);
    for (Move(Transfer::Kind::kReceive); message_[0] != 0; Move(Transfer::Kind::kReceive)) Move(Transfer::Kind::kSend);
  }

 private:
  void Move(Transfer::Kind kind, int64_t bytes = kBytes) {
    group_.Message(*stream_, {kind, peer_, HostView(message_.data(), {bytes})});
    stream_->Synchronize();
  }

  Communicator& group_;
  const int peer_;
  std::vector<uint8_t> message_;
  const std::unique_ptr<Stream> stream_ = MakeCpuDevice()->MakeStream("links");
};

}  // namespace

LinkSpeed MeasureNextLink(Communicator& group) {
  const int rank = group.rank(), ranks = group.size();
  if (ranks < 2) return {};
  const int next = (rank + 1) % ranks, before = (rank + ranks - 1) % ranks;
  LinkSpeed found{next, 0, static_cast<double>(kBytes)};
  // Links from even ranks, from odd ones, and from the last rank, whose next may be even as itself.
  const auto round = [&](int from) { return from == ranks - 1 ? 2 : from % 2; };
  for (int i = 0; i < 3; ++i) {
    if (round(rank) == i) found.seconds = MeasuredLink(group, next).Ask();
    if (round(before) == i) MeasuredLink(group, before).Answer();
  }
  return found;
}

}  // namespace longspan
