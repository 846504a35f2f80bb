#include "launch/job/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace longspan {
namespace {

using Transfer = RankReport::Transfer;
using GroupKey = std::tuple<uint32_t, int, bool>;  // id, instance, device

constexpr size_t kMost = 16;  // ranks of a list

GroupKey KeyOf(const RankReport::Group& group) { return {group.id, group.instance, group.device}; }

// The call of a group that some rank waits in.
struct Meeting {
  std::vector<int> members, arrived, missing;  // ranks of the world
  int64_t sequence = 0;
  GroupKey group;
  bool pair = false;  // a message between two ranks of it
};

class Case {
 public:
  Case(const std::vector<std::optional<RankReport>>& ranks, bool all_told) : ranks_(ranks), all_told_(all_told) {
    for (int rank = 0; rank < size(); ++rank) {
      if (!ranks_[rank]) continue;
      for (const RankReport::Group& group : ranks_[rank]->groups)
        members_[KeyOf(group)].emplace_back(rank, group.arrived);
    }
    for (int rank = 0; rank < size(); ++rank) {
      if (const Transfer* const waiting = Waiting(rank)) meetings_[rank] = MeetingOf(rank, *waiting);
    }
  }

  int size() const { return static_cast<int>(ranks_.size()); }
  const RankReport& at(int rank) const { return *ranks_[rank]; }
  bool silent(int rank) const { return !ranks_[rank]; }
  bool lifeless(int rank) const { return silent(rank) ? all_told_ : at(rank).stopped || at(rank).gone; }
  const Transfer* Waiting(int rank) const { return silent(rank) ? nullptr : at(rank).waiting(); }
  const std::map<int, Meeting>& meetings() const { return meetings_; }  // by the rank that waits

  // What `rank` called in that meeting, if its ring still has it.
  const Transfer* CallOf(int rank, const Meeting& meeting) const {
    if (silent(rank)) return nullptr;
    for (auto call = at(rank).transfers.rbegin(); call != at(rank).transfers.rend(); ++call) {
      if (call->sequence != meeting.sequence || KeyOf(at(rank).groups[call->group]) != meeting.group) continue;
      if (!meeting.pair ? call->peer < 0 : call->peer >= 0 && Paired(rank, *call, meeting)) return &*call;
    }
    return nullptr;
  }

  // Those that nobody else excuses, and why.
  enum class Guilt { kNone, kLifeless, kDiffers, kMissing, kCircle };
  std::set<int> Culprits(Guilt* guilt) const {
    std::set<int> found;
    const auto take = [&](Guilt kind, const auto& guilty) {
      for (const auto& [rank, at] : meetings_) {
        std::copy_if(at.members.begin(), at.members.end(), std::inserter(found, found.end()),
                     [&, &at = at](int member) { return guilty(member, at); });
      }
      if (!found.empty()) *guilt = kind;
      return !found.empty();
    };
    *guilt = Guilt::kNone;
    take(Guilt::kLifeless, [&](int rank, const Meeting&) { return lifeless(rank); }) ||
        take(Guilt::kDiffers, [&](int rank, const Meeting& at) { return Differs(rank, at); }) ||
        take(Guilt::kMissing, [&](int rank, const Meeting& at) { return Misses(rank, at) && !Waiting(rank); }) ||
        take(Guilt::kCircle, [&](int rank, const Meeting& at) { return Misses(rank, at); });
    return found;
  }

  // The rank that waits for none but culprits, or for fewest others; of several the one that has waited longest.
  int Witness(const std::set<int>& culprits, Guilt guilt) const {
    int witness = -1;
    std::tuple<bool, ptrdiff_t, double> best;
    for (const auto& [rank, at] : meetings_) {
      const auto culprit = [&](int member) { return culprits.contains(member); };
      const bool concerned = guilt == Guilt::kDiffers
                                 ? std::any_of(at.members.begin(), at.members.end(),
                                               [&, &at = at](int member) { return Differs(member, at); })
                                 : std::any_of(at.members.begin(), at.members.end(), culprit);
      const auto excused = std::count_if(at.missing.begin(), at.missing.end(), std::not_fn(culprit));
      const std::tuple fit = {concerned, -excused, Waited(rank)};
      if (witness >= 0 && fit <= best) continue;
      witness = rank;
      best = fit;
    }
    return witness;
  }
  double Waited(int rank) const {
    const Transfer& call = *Waiting(rank);
    return call.started.value_or(call.enqueued);
  }

 private:
  bool Misses(int rank, const Meeting& at) const {
    if (silent(rank) && !all_told_) return false;
    return std::find(at.missing.begin(), at.missing.end(), rank) != at.missing.end();
  }

  // Its index in `groups` of the rank's report; -1: it has not joined, for all that is known.
  int IndexOf(int rank, const GroupKey& key) const {
    if (silent(rank)) return -1;
    const auto& groups = at(rank).groups;
    const auto found =
        std::find_if(groups.begin(), groups.end(), [&](const RankReport::Group& group) { return KeyOf(group) == key; });
    return found != groups.end() ? static_cast<int>(found - groups.begin()) : -1;
  }
  bool Joined(int rank, const GroupKey& key) const { return IndexOf(rank, key) >= 0; }

  // Whether the message of `rank` is one with the other member of the pair.
  bool Paired(int rank, const Transfer& call, const Meeting& meeting) const {
    return std::any_of(meeting.members.begin(), meeting.members.end(), [&](int other) {
      const int index = IndexOf(other, meeting.group);
      return other != rank && (index < 0 || at(other).groups[index].rank == call.peer);
    });
  }

  // `waiting`: a message. Where nothing is known of the other rank it is one that has not joined the group.
  void AddPair(int rank, const Transfer& waiting, Meeting* meeting) const {
    const int own = at(rank).groups[waiting.group].rank;
    meeting->pair = true;
    meeting->members = meeting->arrived = {rank};
    for (int other = 0; other < size(); ++other) {
      const int index = IndexOf(other, meeting->group);
      if (other == rank || index < 0 || at(other).groups[index].rank != waiting.peer) continue;
      meeting->members.push_back(other);
      (at(other).Arrived(index, own) >= waiting.sequence ? meeting->arrived : meeting->missing).push_back(other);
    }
  }

  Meeting MeetingOf(int rank, const Transfer& waiting) const {
    const RankReport::Group& group = at(rank).groups[waiting.group];
    Meeting meeting{.members = {}, .arrived = {}, .missing = {}, .sequence = waiting.sequence, .group = KeyOf(group)};
    if (waiting.peer >= 0) {
      AddPair(rank, waiting, &meeting);
    } else {
      for (const auto& [member, arrived] : members_.at(meeting.group)) {
        meeting.members.push_back(member);
        (arrived >= waiting.sequence ? meeting.arrived : meeting.missing).push_back(member);
      }
    }
    const int size_of_meeting = meeting.pair ? 2 : group.size;
    // A rank that has not come to join the group: a silent one, or one that waits for none.
    for (const bool waits : {false, true}) {
      for (int other = 0; other < size() && std::ssize(meeting.members) < size_of_meeting; ++other) {
        if ((Waiting(other) != nullptr) != waits || Joined(other, meeting.group)) continue;
        meeting.members.push_back(other);
        meeting.missing.push_back(other);
      }
    }
    std::sort(meeting.members.begin(), meeting.members.end());
    std::sort(meeting.missing.begin(), meeting.missing.end());
    return meeting;
  }

  // From what most of the others called.
  bool Differs(int rank, const Meeting& at) const {
    using Signature = std::tuple<std::string, DType, int64_t>;
    std::map<Signature, int> counts;
    std::optional<Signature> own;
    for (const int member : at.members) {
      const Transfer* const call = CallOf(member, at);
      if (!call) continue;
      const Signature signature = {call->operation, call->dtype, call->common};
      ++counts[signature];
      if (member == rank) own = signature;
    }
    if (!own || counts.size() < 2) return false;
    const auto most = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    const auto total = static_cast<int>(at.members.size());
    return 2 * most->second <= total || *own != most->first;  // without a majority each may be the wrong one
  }

  const std::vector<std::optional<RankReport>>& ranks_;
  const bool all_told_;
  std::map<GroupKey, std::vector<std::pair<int, int64_t>>> members_;  // rank of the world, last call entered
  std::map<int, Meeting> meetings_;
};

std::string NamedRanks(const std::vector<int>& ranks) {
  return (ranks.size() > 1 ? "ranks " : "rank ") + RanksText(ranks);
}

std::string Signature(const Transfer& call) {
  return fmt::format("{}{}{}", Describe(call),
                     call.operation == "comm.barrier" ? "" : fmt::format(", {}", DTypeName(call.dtype)),
                     call.common >= 0 ? fmt::format(", {} bytes in all", call.common) : "");
}

// "rank 1 on node7, pid 123: in step 5 for 3.2 s; .."
std::string Whereabouts(int rank, const std::optional<RankReport>& known, const std::vector<std::string>& nodes) {
  if (!known) {
    return fmt::format("\n  rank {}{}: no word of it; its node may be lost or out of reach", rank,
                       nodes.empty() ? "" : " on " + nodes[rank]);
  }
  const RankReport& report = *known;
  std::string text =
      fmt::format("\n  rank {} on {}, pid {}: {}{} for {:.1f} s", rank, report.node, report.pid,
                  report.state.empty() ? "" : report.state + "; it was ", DescribePhase(report), report.phase_seconds);
  if (!report.transfers.empty()) {
    const Transfer& last = report.transfers.back();
    text += fmt::format("; its last transfer: {}, {}", Describe(last),
                        last.done      ? fmt::format("done {:.1f} s ago", *last.done)
                        : last.started ? fmt::format("entered {:.1f} s ago, not done", *last.started)
                                       : fmt::format("enqueued {:.1f} s ago, not entered", last.enqueued));
  }
  text += DescribeDriver(report);
  if (report.threads.empty()) return text + "\n    no native stack: the process cannot give one";
  return text + "\n" + report.threads.substr(0, report.threads.size() - 1);
}

std::string CallsText(const Case& job, const Meeting& meeting) {
  std::string text = "\n  ranks called different operations under this number:";
  for (const int rank : meeting.members) {
    const Transfer* const call = job.CallOf(rank, meeting);
    if (call) text += fmt::format("\n    rank {}: {}", rank, Signature(*call));
  }
  return text;
}

}  // namespace

std::string RanksText(const std::vector<int>& ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    if (end - i < 3) end = i + 1;
    text += (text.empty() ? "" : ", ") + std::to_string(ranks[i]);
    if (end > i + 1) text += fmt::format(" to {}", ranks[end - 1]);
    i = end;
  }
  return text;
}

std::string StallVerdict(const std::vector<std::optional<RankReport>>& ranks, const std::string& limit, bool all_told,
                         const std::vector<std::string>& nodes) {
  using Guilt = Case::Guilt;
  const Case job(ranks, all_told);
  Guilt guilt = Guilt::kNone;
  std::set<int> told = job.Culprits(&guilt);
  const int witness = job.Witness(told, guilt);
  if (witness < 0) {
    std::string text =
        fmt::format("communication stalled: hosts wait for their GPUs, in nothing that is recorded ({})", limit);
    for (int rank = 0; rank < std::min<int>(job.size(), kMost); ++rank) text += Whereabouts(rank, ranks[rank], nodes);
    return text;
  }
  const Meeting& meeting = job.meetings().at(witness);
  std::string text =
      fmt::format("communication stalled: {} of ranks {} has not ended for {:.1f} s ({})",
                  Describe(*job.Waiting(witness)), RanksText(meeting.members), job.Waited(witness), limit);
  if (guilt == Guilt::kDiffers) {
    text += CallsText(job, meeting);
  } else if (guilt == Guilt::kNone && !meeting.missing.empty()) {
    text += "\n  on other nodes, of which nothing is known here: " + NamedRanks(meeting.missing);
  } else if (guilt == Guilt::kNone) {
    text += std::get<2>(meeting.group)
                ? "\n  all its ranks have enqueued it: a link has failed, or a GPU has not done its work before it"
                : "\n  all its ranks have arrived, and nothing moves: a link, or what carries the messages, has failed";
    told.insert(meeting.members.begin(), meeting.members.end());
  } else {
    if (!meeting.missing.empty()) text += "\n  not arrived: " + NamedRanks(meeting.missing);
    if (guilt == Guilt::kCircle) text += "\n  ranks wait for each other in different operations:";
  }
  size_t named = 0;
  for (const int rank : told) {
    if (++named <= kMost) text += Whereabouts(rank, ranks[rank], nodes);
  }
  if (named > kMost) text += fmt::format("\n  and {} more like these", named - kMost);
  size_t others = 0;
  for (const auto& [rank, at] : job.meetings()) {
    if (told.contains(rank) || ++others > kMost) continue;
    text += fmt::format("\n  rank {} on {}: waits for {:.1f} s in {}{}{}", rank, job.at(rank).node, job.Waited(rank),
                        Describe(*job.Waiting(rank)), at.missing.empty() ? "" : ", for " + NamedRanks(at.missing),
                        DescribeDriver(job.at(rank)));
  }
  if (others > kMost) text += fmt::format("\n  and {} more wait", others - kMost);
  return text;
}

std::string Disagreement(const std::vector<std::optional<RankReport>>& ranks) {
  const Case job(ranks, /*all_told=*/false);
  Case::Guilt guilt = Case::Guilt::kNone;
  const std::set<int> told = job.Culprits(&guilt);
  if (guilt != Case::Guilt::kDiffers) return "";
  return CallsText(job, job.meetings().at(job.Witness(told, guilt)));
}

std::string LossVerdict(const RankReport& lost) {
  return fmt::format("rank {} ended while others need it{}", lost.rank, Whereabouts(lost.rank, lost, {}));
}

}  // namespace longspan
