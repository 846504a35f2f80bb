#include "launch/commands/links.h"

#include <algorithm>
#include <limits>

#include "launch/job/world.h"
#include "parallel/comm/texts.h"
#include "runtime/memory.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

// The best of so many counts; short messages are disturbed by whatever else runs.
constexpr int kRepeats = 5, kShortRepeats = 25;
constexpr int64_t kShort = 64 << 10;
constexpr int kAgain = 4;   // times that slow links are measured again
constexpr int kAlone = 16;  // ranks up to which one pair is measured at a time
constexpr int64_t kSmall = 8, kAcknowledge = 8;
constexpr int64_t kSizes[] = {int64_t{64} << 10, int64_t{1} << 20, int64_t{16} << 20, int64_t{128} << 20};
constexpr double kLongest = 0.01;  // seconds of a message, beyond which no larger one is tried

using Pairs = std::vector<std::pair<int, int>>;

class LinkMeter {
 public:
  LinkMeter(Job& job, Stream& stream)
      : job_(job), world_(job.mesh().world()), stream_(stream), rank_(world_.rank()), ranks_(world_.size()) {
    Grow(kSizes[0]);
  }

  // [from * ranks + to], the same on every rank. Those of `before` (empty: none) that are not `wanted` stay; of a link
  // measured again the better counts.
  template <typename Wanted>
  std::vector<Link> Links(bool together, std::vector<Link> before, Wanted wanted) {
    std::vector<Pairs> rounds;
    for (const Pairs& round : PairRounds(ranks_)) {
      if (together) rounds.push_back(round);
      if (!together) {
        for (const auto& pair : round) rounds.push_back({pair});
      }
    }
    std::vector<Link> links(static_cast<size_t>(ranks_) * ranks_);
    const auto at = [&](int from, int to) { return static_cast<size_t>(from) * ranks_ + to; };
    const std::vector<double> small = Times(rounds, kSmall, wanted);
    for (int i = 0; i < ranks_ * ranks_; ++i) links[i] = {i / ranks_, i % ranks_, small[i] / 2 * 1e6, 0, 0};
    for (size_t i = 0; i < std::size(kSizes); ++i) {
      const int64_t bytes = kSizes[i];
      const auto goes_on = [&](int from, int to) {
        const Link& link = links[at(from, to)];
        return wanted(from, to) &&
               (i == 0 || (link.bytes == kSizes[i - 1] && static_cast<double>(bytes) < link.gbps * 1e9 * kLongest));
      };
      bool any = false;
      for (const Link& link : links) any = any || (link.from != link.to && goes_on(link.from, link.to));
      if (!any) break;
      Grow(bytes);
      const std::vector<double> seconds = Times(rounds, bytes, goes_on);
      for (Link& link : links) {
        const double all = seconds[at(link.from, link.to)];
        if (all == 0) continue;
        // The acknowledgement takes what a small message does.
        const double moving = std::max(all - link.us * 1e-6, all / 10);
        link.gbps = static_cast<double>(bytes) / moving * 1e-9;
        link.bytes = bytes;
      }
    }
    for (size_t i = 0; i < before.size(); ++i) {
      if (!wanted(before[i].from, before[i].to)) {
        links[i] = before[i];
        continue;
      }
      links[i].us = std::min(links[i].us, before[i].us);
      if (links[i].gbps < before[i].gbps) links[i].gbps = before[i].gbps, links[i].bytes = before[i].bytes;
    }
    return links;
  }

  // All ranks of `group` to their successors; `own` is this rank's group. Collective over all ranks.
  std::vector<Ring> Rings(Communicator& group, const std::string& own, const std::vector<Link>& links) {
    const std::vector<std::string> names = GatherTexts(job_.mesh().host_world(), own);
    std::vector<Ring> rings;
    for (int rank = 0; rank < ranks_; ++rank) {
      const auto ring = std::find_if(rings.begin(), rings.end(), [&](const Ring& x) { return x.group == names[rank]; });
      if (ring == rings.end()) {
        rings.push_back({names[rank], {rank}});
      } else {
        ring->ranks.push_back(rank);
      }
    }
    double slowest = std::numeric_limits<double>::infinity();  // GB/s, of any ring: all take the same size
    for (const Ring& ring : rings) {
      for (size_t i = 0; i < ring.ranks.size(); ++i) {
        const int to = ring.ranks[(i + 1) % ring.ranks.size()];
        slowest = std::min(slowest, links[static_cast<size_t>(ring.ranks[i]) * ranks_ + to].gbps);
      }
    }
    int64_t bytes = kSizes[0];
    for (const int64_t size : kSizes) {
      if (size <= memory_.bytes() / 2 && static_cast<double>(size) < slowest * 1e9 * kLongest) bytes = size;
    }
    const double small = RingSeconds(group, kSmall), large = RingSeconds(group, bytes);
    std::vector<double> all(2 * static_cast<size_t>(ranks_), 0.0);
    all[2 * rank_] = small, all[2 * rank_ + 1] = large;
    Share(&all);
    for (Ring& ring : rings) {
      double us = 0, seconds = 0;
      for (const int rank : ring.ranks) {
        us = std::max(us, all[2 * rank] * 1e6);
        seconds = std::max(seconds, all[2 * rank + 1]);
      }
      ring.us = us, ring.gbps = static_cast<double>(bytes) / seconds * 1e-9, ring.bytes = bytes;
    }
    return rings;
  }

 private:
  void Grow(int64_t bytes) {
    if (memory_.bytes() >= 2 * bytes) return;
    memory_ = Buffer();
    memory_ = Buffer(job_.device(), 2 * bytes, "what is sent to measure links");
    job_.device().FillBytes(stream_, View(0, 2 * bytes), 1);
  }

  Tensor View(int64_t begin, int64_t bytes) const {
    return Tensor(memory_.data(), DType::kU8, job_.device().kind(), {memory_.bytes()}).Rows(begin, bytes);
  }

  // Sums over the ranks, each of which wrote its own.
  void Share(std::vector<double>* values) {
    job_.mesh().host_world().AllReduce(*host_stream_, HostView(values->data(), {std::ssize(*values)}), ReduceOp::kSum);
    host_stream_->Synchronize();
  }

  // Best of this rank over several runs of `action`, all ranks starting together.
  template <typename Action>
  double Best(int64_t bytes, Action action) {
    const int repeats = bytes <= kShort ? kShortRepeats : kRepeats;
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i <= repeats; ++i) {
      world_.Barrier();
      const double begin = WallSeconds();
      action();
      stream_.Synchronize();
      if (i > 0) best = std::min(best, WallSeconds() - begin);  // the first warms up
    }
    return best;
  }

  double RingSeconds(Communicator& group, int64_t bytes) {
    const int next = (group.rank() + 1) % group.size(), previous = (group.rank() + group.size() - 1) % group.size();
    return Best(bytes, [&] {
      group.SendReceive(stream_, {{Transfer::Kind::kSend, next, View(0, bytes)},
                                  {Transfer::Kind::kReceive, previous, View(memory_.bytes() / 2, bytes)}});
    });
  }

  // A message of `bytes` each way between the ranks of each pair that is `wanted` (from, to), and a short answer.
  // Seconds of both, by [from * ranks + to]; 0 where there was none.
  template <typename Wanted>
  std::vector<double> Times(const std::vector<Pairs>& rounds, int64_t bytes, Wanted wanted) {
    std::vector<double> seconds(static_cast<size_t>(ranks_) * ranks_, 0.0);
    const Tensor out = View(0, bytes), in = View(memory_.bytes() / 2, bytes);
    for (const Pairs& round : rounds) {
      for (const bool back : {false, true}) {
        int from = -1, to = -1;  // of this rank's pair
        bool any = false;
        for (auto [a, b] : round) {
          if (back) std::swap(a, b);
          if (!wanted(a, b)) continue;
          any = true;
          if (a == rank_ || b == rank_) from = a, to = b;
        }
        if (!any) continue;
        const bool sends = from == rank_, receives = to == rank_;
        std::vector<Transfer> message, answer;
        if (sends) {
          message = {{Transfer::Kind::kSend, to, out}};
          answer = {{Transfer::Kind::kReceive, to, in.Rows(0, kAcknowledge)}};
        } else if (receives) {
          message = {{Transfer::Kind::kReceive, from, in}};
          answer = {{Transfer::Kind::kSend, from, out.Rows(0, kAcknowledge)}};
        }
        const double best = Best(bytes, [&] {
          world_.SendReceive(stream_, message);
          world_.SendReceive(stream_, answer);
        });
        if (sends) seconds[static_cast<size_t>(from) * ranks_ + to] = best;
      }
    }
    Share(&seconds);
    return seconds;
  }

  Job& job_;
  Communicator& world_;
  Stream& stream_;
  const int rank_, ranks_;
  const std::unique_ptr<Stream> host_stream_ = MakeCpuDevice()->MakeStream("links");
  Buffer memory_;  // what is sent, and what is received
};

}  // namespace

std::vector<Pairs> PairRounds(int ranks) {
  const int even = ranks + ranks % 2, turning = even - 1;  // one stays in its place, the others turn around it
  std::vector<Pairs> rounds;
  for (int round = 0; round < turning; ++round) {
    Pairs pairs;
    for (int i = 0; i < even / 2; ++i) {
      const int a = i == 0 ? turning : (round + i) % turning, b = (round + turning - i) % turning;
      if (std::max(a, b) < ranks) pairs.emplace_back(std::min(a, b), std::max(a, b));
    }
    if (!pairs.empty()) rounds.push_back(pairs);
  }
  return rounds;
}

LinkReport MeasureLinks(Job& job, Stream& stream) {
  const Mesh& mesh = job.mesh();
  const int ranks = mesh.world().size();
  LinkReport found;
  found.device = job.device().name();
  found.nodes = GatherTexts(mesh.host_world(), NodeName());
  if (ranks == 1) return found;
  found.together = ranks > kAlone;
  LinkMeter meter(job, stream);
  std::vector<Link> links;
  for (int i = 0; i <= kAgain; ++i) {
    // Another program may have taken the time of the two ranks: what looks slow is measured again.
    const std::vector<SlowLink> slow = SlowLinks(found);
    if (i > 0 && slow.empty()) break;
    links = meter.Links(found.together, links, [&](int from, int to) {
      return i == 0 || std::any_of(slow.begin(), slow.end(),
                                   [&](const SlowLink& x) { return x.link.from == from && x.link.to == to; });
    });
    found.links.clear();
    for (const Link& link : links) {
      if (link.from != link.to) found.links.push_back(link);
    }
  }
  const auto add = [&](Communicator& group, const std::string& own) {
    for (Ring& ring : meter.Rings(group, own, links)) found.rings.push_back(std::move(ring));
  };
  add(mesh.world(), "all");
  if (mesh.cp_size() > 1 && mesh.dp_size() > 1) {
    add(mesh.cp(), fmt::format("cp group {}", mesh.dp_index()));
    add(mesh.dp(), fmt::format("dp group {}", mesh.cp_index()));
  }
  return found;
}

}  // namespace longspan
