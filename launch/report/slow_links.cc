// Links that are slow: between nodes by the messages that the recorder sends, of GPUs by their transfers.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "launch/report/summary.h"

namespace longspan {
namespace {

constexpr double kSlowMessage =
    3.0;  // times as long as a message usually takes: the median where one node, so two links, are slow
constexpr double kVerySlow = 10;  // times: once is enough
constexpr size_t kLeastLinks = 3;
constexpr double kSlowMoving = 2.0;  // times the median rank's time of moving data, in
constexpr double kSlowSteps = 0.8;   // of the steps

struct NodeLink {
  size_t rank = 0;  // index; to its next
  std::string from, to;
  std::vector<double> begins, seconds;  // of each measurement
  // Of the newest two, lest one was disturbed, unless that would be a disturbance beyond all measure.
  double Now(double usual) const {
    const size_t count = seconds.size();
    const double newest = seconds[count - 1];
    if (newest >= kVerySlow * usual) return newest;
    return count > 1 ? std::min(newest, seconds[count - 2]) : usual;
  }
};

std::vector<NodeLink> NodeLinks(const ProfileData& data) {
  std::map<int, std::string> hosts;
  for (const RankProfile& rank : data.ranks) hosts[rank.rank] = rank.header.host();
  std::vector<NodeLink> links;
  for (size_t r = 0; r < data.ranks.size(); ++r) {
    NodeLink link{.rank = r, .from = hosts[data.ranks[r].rank], .to = {}, .begins = {}, .seconds = {}};
    for (const ProfileLink& measured : data.ranks[r].links) {
      const auto peer = hosts.find(measured.peer);
      if (peer == hosts.end() || peer->second == link.from || measured.bytes <= 0) continue;
      link.to = peer->second;
      link.begins.push_back(measured.begin);
      link.seconds.push_back(measured.seconds);
    }
    if (!link.seconds.empty()) links.push_back(link);
  }
  return links;
}

// What steps lose to a link on which messages should take `usual` seconds: of the node's ranks, the most.
Straggler Slow(const ProfileData& data, const StepTable& steps, const NodeLink& link, const std::string& node,
               double usual) {
  Straggler found;
  found.what = SlowClass::kLink;
  found.ratio = link.Now(usual) / usual;
  double step = 0;
  for (size_t r = 0; r < steps.size(); ++r) {
    if (data.ranks[r].header.host() != node) continue;
    double moving = 0, seconds = 0;
    for (const ProfilePeriod* period : steps[r]) {
      moving += RowOf(*period).moving;
      seconds += period->seconds;
    }
    const double saving = moving * (1 - 1 / found.ratio) / static_cast<double>(steps[r].size());
    if (saving <= found.saving) continue;
    found.rank = data.ranks[r].rank;
    found.saving = found.excess = saving;
    step = seconds / static_cast<double>(steps[r].size());
  }
  found.saving_share = found.saving / std::max(1e-12, step);
  // Since the first of the measurements that are slow up to now.
  size_t since = link.seconds.size();
  while (since > 0 && link.seconds[since - 1] >= kSlowMessage * usual) --since;
  found.since_start = since == 0;
  found.to_end = true;
  found.first_step = found.last_step = steps[0].back()->step;
  for (size_t i = steps[0].size(); i-- > 0;) {
    if (!found.since_start && steps[0][i]->begin < link.begins[since]) break;
    found.first_step = steps[0][i]->step;
  }
  return found;
}

void FindBetweenNodes(const ProfileData& data, const StepTable& steps, std::vector<Straggler>* found) {
  const std::vector<NodeLink> links = NodeLinks(data);
  if (links.size() < kLeastLinks) return;
  std::vector<double> seconds;
  for (const NodeLink& link : links) seconds.push_back(link.seconds.back());
  std::sort(seconds.begin(), seconds.end());
  const double usual = seconds[(seconds.size() - 2) / 2];
  const auto is_slow = [&](const NodeLink& link) { return link.Now(usual) >= kSlowMessage * usual; };
  std::map<std::string, int> all, slow;  // links of each node
  std::map<std::string, double> slowest;
  for (const NodeLink& link : links) {
    for (const std::string& node : {link.from, link.to}) {
      slowest[node] = std::max(slowest[node], link.Now(usual));
    }
  }
  for (const NodeLink& link : links) {
    for (const std::string& node : {link.from, link.to}) {
      ++all[node];
      if (is_slow(link) && link.Now(usual) * kSlowMessage >= slowest[node]) ++slow[node];  // by one cause
    }
  }
  const auto own = [&](const std::string& node) { return all[node] > 1 && slow[node] == all[node]; };
  std::set<std::string> named;
  for (const NodeLink& link : links) {
    if (!is_slow(link)) continue;
    const bool of_from = own(link.from), of_to = own(link.to);
    const std::string node = of_from || !of_to ? link.from : link.to;
    Straggler straggler = Slow(data, steps, link, node, usual);
    straggler.link = of_from || of_to ? "of " + node : fmt::format("between {} and {}", link.from, link.to);
    if (straggler.saving_share >= kLeastSaving && named.insert(straggler.link).second) found->push_back(straggler);
  }
}

// All of whose transfers move slowly, beside ranks of the same work. Of a CPU that would as well be a processor that
// others use.
void FindOfGpus(const ProfileData& data, const StepTable& steps, std::vector<Straggler>* found) {
  const size_t count = steps[0].size();
  std::vector<double> moving(steps.size()), seconds(steps.size()), slow_steps(steps.size());
  for (size_t i = 0; i < count; ++i) {
    std::vector<double> now;
    for (const auto& own : steps) now.push_back(RowOf(*own[i]).moving);
    const double median = LowerMedian(now);
    for (size_t r = 0; r < steps.size(); ++r) {
      slow_steps[r] += now[r] >= kSlowMoving * median ? 1 : 0;
      moving[r] += now[r] / static_cast<double>(count);
      seconds[r] += steps[r][i]->seconds / static_cast<double>(count);
    }
  }
  const double median = LowerMedian(moving);
  for (size_t r = 0; r < steps.size(); ++r) {
    const double excess = moving[r] - median;
    if (!data.ranks[r].header.gpu() || steps.size() < 3 || excess < kLeastExcess * seconds[r] ||
        moving[r] < kSlowMoving * median || slow_steps[r] < kSlowSteps * static_cast<double>(count)) {
      continue;
    }
    Straggler link;
    link.rank = data.ranks[r].rank;
    link.what = SlowClass::kLink;
    link.first_step = steps[r].front()->step;
    link.last_step = steps[r].back()->step;
    link.since_start = link.to_end = true;
    link.excess = link.saving = excess;
    link.ratio = moving[r] / std::max(1e-12, median);
    link.saving_share = excess / seconds[r];
    found->push_back(link);
  }
}

}  // namespace

std::vector<Straggler> FindSlowLinks(const ProfileData& data, const StepTable& steps) {
  std::vector<Straggler> found;
  FindBetweenNodes(data, steps, &found);
  FindOfGpus(data, steps, &found);
  return found;
}

}  // namespace longspan
