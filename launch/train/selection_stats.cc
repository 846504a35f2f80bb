#include "launch/train/selection_stats.h"

#include <algorithm>
#include <set>
#include <vector>

namespace longspan {
namespace {

enum Distance : uint8_t { kLocal, kHalo, kRemote };

// [ranks][blocks]
std::vector<std::vector<Distance>> Distances(const Layout& layout, int64_t window) {
  const int64_t block = layout.unit(), blocks = (layout.sequence() + block - 1) / block;
  std::vector<std::vector<Distance>> distances(layout.ranks(), std::vector<Distance>(blocks, kRemote));
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t begin = i * block;
      if (layout.Find(begin).rank == rank) distances[rank][i] = kLocal;
      for (const Segment& segment : layout.segments(rank)) {
        const bool borrowed = begin < segment.begin && begin >= segment.begin - (window - 1);
        if (borrowed && distances[rank][i] == kRemote) distances[rank][i] = kHalo;
      }
    }
  }
  return distances;
}

// The blocks of a row.
std::span<const int32_t> Chosen(std::span<const int32_t> row) {
  return row.first(std::find(row.begin(), row.end(), -1) - row.begin());
}

double Jaccard(std::span<const int32_t> a, std::span<const int32_t> b) {
  int64_t common = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) ++common;
    const bool first = a[i] <= b[j], second = b[j] <= a[i];
    i += first ? 1 : 0;
    j += second ? 1 : 0;
  }
  const auto both = static_cast<double>(static_cast<int64_t>(a.size() + b.size()) - common);
  return both > 0 ? static_cast<double>(common) / both : 1;
}

}  // namespace

void SelectionStats::Add(const SelectionStats& other, double weight) {
  for (double SelectionStats::*member :
       {&SelectionStats::local, &SelectionStats::halo, &SelectionStats::remote, &SelectionStats::distinct_blocks,
        &SelectionStats::distinct_share, &SelectionStats::jaccard, &SelectionStats::hottest, &SelectionStats::union2,
        &SelectionStats::union4, &SelectionStats::union8}) {
    this->*member += weight * other.*member;
  }
}

SelectionStats StatsOf(std::span<const int32_t> selected, const Shape& shape, const Layout& layout, int64_t window) {
  const int64_t tokens = shape[0], groups = shape[1], count = shape[2];
  const int64_t blocks = (tokens + layout.unit() - 1) / layout.unit();
  const auto distances = Distances(layout, window);
  SelectionStats stats;
  std::vector<double> near(3);
  double chosen = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const auto row = [&](int64_t t) { return Chosen(selected.subspan((t * groups + g) * count, count)); };
    std::vector<double> queries(blocks);  // that chose each block
    std::vector<std::vector<bool>> by_rank(layout.ranks(), std::vector<bool>(blocks));
    double jaccard = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      const int rank = layout.Find(t).rank;
      for (const int32_t block : row(t)) {
        near[distances[rank][block]] += 1;
        chosen += 1;
        queries[block] += 1;
        by_rank[rank][block] = true;
      }
      if (t + 1 < tokens) jaccard += Jaccard(row(t), row(t + 1));
    }
    const double of_groups = 1 / static_cast<double>(groups);
    stats.jaccard += of_groups * (tokens > 1 ? jaccard / static_cast<double>(tokens - 1) : 1);
    stats.hottest += of_groups * *std::max_element(queries.begin(), queries.end()) / static_cast<double>(tokens);
    for (int rank = 0; rank < layout.ranks(); ++rank) {
      const auto distinct = static_cast<double>(std::count(by_rank[rank].begin(), by_rank[rank].end(), true));
      const Segment& last = layout.segments(rank).back();
      const auto visible = static_cast<double>((last.begin + last.length - 1) / layout.unit() + 1);
      stats.distinct_blocks += of_groups * distinct / layout.ranks();
      stats.distinct_share += of_groups * distinct / visible / layout.ranks();
    }
    for (const auto& [size, member] : {std::pair(2, &SelectionStats::union2), std::pair(4, &SelectionStats::union4),
                                       std::pair(8, &SelectionStats::union8)}) {
      double sum = 0, sets = 0;
      for (int64_t t = 0; t + size <= tokens; t += size) {
        std::set<int32_t> together;
        for (int64_t i = t; i < t + size; ++i) together.insert(row(i).begin(), row(i).end());
        sum += static_cast<double>(together.size());
        sets += 1;
      }
      stats.*member += sets > 0 ? of_groups * sum / sets : 0;
    }
  }
  if (chosen > 0) {
    stats.local = near[kLocal] / chosen;
    stats.halo = near[kHalo] / chosen;
    stats.remote = near[kRemote] / chosen;
  }
  return stats;
}

}  // namespace longspan
