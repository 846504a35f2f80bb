// Which rank is slow by its own doing, since when, where, and what it costs.
#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <tuple>

#include "launch/report/summary.h"

namespace longspan {
namespace {

constexpr int64_t kLeastSteps = 6;  // that a slow-down lasts, else it is one-off
constexpr double kOneOff = 1.0;     // excess of a single slow step
constexpr size_t kMostSingle = 5;   // that are named
// For what part of the time that work takes longer its thread ran, if it computes: who waits or is stopped runs no
// longer than others, who computes may share its processor. Of one stage; of all work, to which every stage adds its
// noise.
constexpr double kRan = 0.125, kRanInAll = 0.25;

// [ranks][steps]: own time beyond the median rank's, in parts of a usual own time.
std::vector<std::vector<double>> Excesses(const StepTable& steps) {
  const size_t count = steps[0].size();
  std::vector<double> medians;
  std::vector<std::vector<double>> excess(steps.size(), std::vector<double>(count));
  for (size_t i = 0; i < count; ++i) {
    std::vector<double> own;
    for (size_t r = 0; r < steps.size(); ++r) own.push_back(excess[r][i] = RowOf(*steps[r][i]).own());
    medians.push_back(LowerMedian(own));
    for (auto& rank : excess) rank[i] -= medians.back();
  }
  const double usual = std::max(1e-9, LowerMedian(medians));
  for (auto& rank : excess) {
    for (double& value : rank) value /= usual;
  }
  return excess;
}

// Single steps, on which something else ran, do not decide.
double Mean(std::span<const double> excess) {
  double sum = 0;
  for (const double value : excess) sum += std::clamp(value, -1.0, 3.0);
  return excess.empty() ? 0 : sum / static_cast<double>(excess.size());
}

bool IsSlow(std::span<const double> excess) {
  return std::min(Mean(excess), 2 * LowerMedian({excess.begin(), excess.end()})) >= kLeastExcess;
}

// The place at which the excess changes most, 0 where it does not: the least sum of squares of two parts, of
// logarithms, in which becoming slow weighs more than becoming slower, or than a few very slow steps.
size_t ChangePoint(std::span<const double> excess) {
  const size_t count = excess.size();
  std::vector<double> values;
  double total = 0, squares = 0;
  for (const double value : excess) {
    values.push_back(std::log1p(std::clamp(value, 0.0, 3.0) / kLeastExcess));
    total += values.back();
    squares += values.back() * values.back();
  }
  double best = 0, sum = 0;
  size_t place = 0;
  for (size_t k = 1; k < count; ++k) {
    sum += values[k - 1];
    const auto before = static_cast<double>(k), after = static_cast<double>(count - k);
    if (std::min(before, after) < kLeastSteps) continue;
    const double difference = (total - sum) / after - sum / before;
    const double gain = before * after / static_cast<double>(count) * difference * difference;
    if (gain > best) {
      best = gain;
      place = k;
    }
  }
  if (place == 0) return 0;
  // Against the noise that is left: a change that the noise itself would show is none.
  const double noise = (squares - total * total / static_cast<double>(count) - best) / static_cast<double>(count);
  return best > 12 * std::max(noise, 1e-6) ? place : 0;
}

// The steps, from the first to before the second, in which a rank is slower than in the others: all, or a part at an
// end.
std::pair<size_t, size_t> SlowSteps(std::span<const double> excess) {
  size_t begin = 0, end = excess.size();
  if (const size_t change = ChangePoint(excess); change > 0) {
    const double before = Mean(excess.first(change)), after = Mean(excess.subspan(change));
    // One of the parts is the slower one; alike slow, they are one.
    if (after > before && before < after / 2) begin = change;
    if (before > after && after < before / 2) end = change;
  }
  // It may have been slow before it became slower.
  while (begin > 0) {
    const size_t change = ChangePoint(excess.first(begin));
    const auto part = excess.subspan(change, begin - change);
    if (change == 0 || !IsSlow(part) || Mean(excess.first(change)) >= Mean(part) / 2) break;
    begin = change;
  }
  return {begin, end};
}

// The time of one rank, by what it went to, of a step.
struct Parts {
  double data = 0, other = 0, moving = 0, work = 0, cpu = 0, own = 0, late = 0, step = 0;
  struct Stage {
    double seconds = 0, cpu = 0;
  };
  std::map<std::pair<std::string, proto::Pass>, Stage> stages;
};

Parts PartsOf(const std::vector<const ProfilePeriod*>& steps, size_t begin, size_t end) {
  Parts parts;
  const double share = 1 / static_cast<double>(end - begin);
  for (size_t i = begin; i < end; ++i) {
    const RankRow row = RowOf(*steps[i]);
    parts.data += row.data * share;
    parts.other += row.other * share;
    parts.moving += row.moving * share;
    parts.work += row.work * share;
    parts.cpu += row.cpu * share;
    parts.own += row.own() * share;
    parts.late += row.awaited * share;
    parts.step += row.step * share;
    for (const ProfileCell& cell : steps[i]->cells) {
      if (cell.kind != proto::WORK) continue;
      Parts::Stage& stage = parts.stages[{cell.stage, cell.pass}];
      stage.seconds += cell.seconds * share;
      stage.cpu += cell.cpu * share;
    }
  }
  return parts;
}

double MedianOf(const std::vector<Parts>& ranks, double Parts::*member) {
  std::vector<double> values;
  for (const Parts& rank : ranks) values.push_back(rank.*member);
  return LowerMedian(values);
}

// The layer in which the rank's stage exceeds the median rank's most.
int WorstLayer(const ProfileData& data, size_t rank, const Straggler& found) {
  std::map<int, std::vector<double>> seconds;
  for (size_t r = 0; r < data.ranks.size(); ++r) {
    for (const ProfileCell& cell : data.ranks[r].layers) {
      if (cell.kind != proto::WORK || cell.layer < 0 || cell.stage != found.stage || cell.pass != found.pass) continue;
      auto& values = seconds[cell.layer];
      values.resize(data.ranks.size(), 0.0);
      values[r] += cell.seconds;
    }
  }
  int worst = -1;
  double most = 0, total = 0;
  for (const auto& [layer, values] : seconds) {
    const double excess = values[rank] - LowerMedian(values);
    total += std::max(0.0, excess);
    if (excess <= most) continue;
    most = excess;
    worst = layer;
  }
  return most > 0.5 * total && seconds.size() > 1 ? worst : -1;
}

void Explain(const ProfileData& data, const StepTable& steps, size_t rank, size_t begin, size_t end, Straggler* found) {
  std::vector<Parts> all;
  for (const auto& own : steps) all.push_back(PartsOf(own, begin, end));
  const Parts& own = all[rank];
  const double median = MedianOf(all, &Parts::own);
  found->excess = own.own - median;
  found->ratio = own.own / std::max(1e-12, median);
  found->saving = std::min(own.late, found->excess);
  found->saving_share = found->saving / std::max(1e-12, own.step);

  const double work_excess = own.work - MedianOf(all, &Parts::work);
  // Of the work that takes longer, for how much of that time its thread ran: of the one stage, where there is one.
  double ran = (own.cpu - MedianOf(all, &Parts::cpu)) / std::max(1e-12, work_excess);
  for (const auto& [key, stage] : own.stages) {
    std::vector<double> seconds, cpu;
    for (const Parts& other : all) {
      const auto place = other.stages.find(key);
      seconds.push_back(place == other.stages.end() ? 0 : place->second.seconds);
      cpu.push_back(place == other.stages.end() ? 0 : place->second.cpu);
    }
    const double longer = stage.seconds - LowerMedian(seconds);
    const double share = longer / std::max(1e-12, found->excess);
    if (share <= found->stage_share) continue;
    if (share >= 0.5) ran = (stage.cpu - LowerMedian(cpu)) / longer;
    found->stage_share = share;
    found->stage = key.first;
    found->pass = key.second;
  }
  const double data_excess = own.data - MedianOf(all, &Parts::data);
  const double half = found->excess / 2;
  if (data_excess > half) {
    found->what = SlowClass::kData;
    found->stage = "data";
    found->pass = proto::NONE;
    found->stage_share = data_excess / found->excess;
  } else if (work_excess > half &&
             (data.ranks[rank].header.gpu() || ran > (found->stage_share < 0.5 ? kRanInAll : kRan))) {
    found->what = SlowClass::kCompute;
  } else {
    found->what = SlowClass::kHost;
  }
  if (work_excess > half) FindThrottling(data, steps, rank, begin, end, found);
  if (found->stage_share < 0.5) {
    found->stage.clear();
    found->pass = proto::NONE;
  } else if (found->what != SlowClass::kData) {
    found->layer = WorstLayer(data, rank, *found);
  }
}

}  // namespace

std::vector<Straggler> FindStragglers(const ProfileData& data, const StepTable& steps) {
  std::vector<Straggler> found;
  if (steps.size() < 2 || std::ssize(steps[0]) < kLeastSteps) return found;
  const auto excesses = Excesses(steps);
  const size_t count = steps[0].size();
  for (size_t r = 0; r < steps.size(); ++r) {
    const std::vector<double>& excess = excesses[r];
    const auto [begin, end] = SlowSteps(excess);
    Straggler straggler;
    straggler.rank = data.ranks[r].rank;
    straggler.first_step = steps[r][begin]->step;
    straggler.last_step = steps[r][end - 1]->step;
    straggler.since_start = begin == 0;
    straggler.to_end = end == count;
    if (IsSlow(std::span(excess).subspan(begin, end - begin))) {
      Explain(data, steps, r, begin, end, &straggler);
      if (straggler.saving_share >= kLeastSaving) found.push_back(straggler);
      continue;
    }
    double saving = 0, seconds = 0;
    for (size_t i = 0; i < count; ++i) {
      seconds += steps[r][i]->seconds;
      if (excess[i] < kOneOff) continue;
      saving += RowOf(*steps[r][i]).awaited;
      if (straggler.single.size() < kMostSingle) straggler.single.push_back(steps[r][i]->step);
      if (straggler.single.size() > 1) continue;
      Explain(data, steps, r, i, i + 1, &straggler);
    }
    straggler.saving = saving / static_cast<double>(count);
    straggler.saving_share = saving / seconds;
    if (straggler.saving_share >= kLeastSaving / 2) found.push_back(straggler);
  }
  for (const Straggler& link : FindSlowLinks(data, steps)) found.push_back(link);
  std::sort(found.begin(), found.end(),
            [](const Straggler& a, const Straggler& b) { return a.saving_share > b.saving_share; });
  return found;
}

}  // namespace longspan
