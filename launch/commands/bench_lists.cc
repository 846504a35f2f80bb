#include "launch/commands/bench_lists.h"

#include <algorithm>
#include <random>

namespace longspan {

std::vector<int32_t> DrawSelection(const Shape& shape, const NsaConfig& nsa, double keep) {
  const int64_t groups = shape[1], count = shape[2];
  std::mt19937_64 random(1);
  const auto kept = static_cast<double>(random.max()) * keep;
  std::vector<int32_t> selected(shape.count(), -1), chosen;
  for (int64_t group = 0; group < groups; ++group) {
    std::vector<int32_t> before;
    for (int64_t t = 0; t < shape[0]; ++t) {
      const int64_t visible = t / nsa.select_block + 1, wanted = std::min(count, visible);
      const auto choose = [&](int64_t block) {
        const bool full = static_cast<int64_t>(chosen.size()) == wanted;
        if (full || std::find(chosen.begin(), chosen.end(), block) != chosen.end()) return;
        chosen.push_back(static_cast<int32_t>(block));
      };
      chosen.clear();
      for (int64_t block = 0; block < std::min(wanted == visible ? visible : nsa.init, visible); ++block) choose(block);
      for (int64_t block = std::max<int64_t>(0, visible - nsa.local); block < visible; ++block) choose(block);
      for (const int32_t block : before) {
        if (static_cast<double>(random()) < kept) choose(block);
      }
      while (static_cast<int64_t>(chosen.size()) < wanted) choose(static_cast<int64_t>(random() % visible));
      std::sort(chosen.begin(), chosen.end());
      std::copy(chosen.begin(), chosen.end(), selected.begin() + (t * groups + group) * count);
      before = chosen;
    }
  }
  return selected;
}

double UnionOfEight(const std::vector<int32_t>& selected, const Shape& shape) {
  constexpr int64_t kNeighbours = 8;
  const int64_t groups = shape[1], count = shape[2];
  std::vector<int32_t> blocks;
  int64_t sum = 0, tiles = 0;
  for (int64_t t = 0; t + kNeighbours <= shape[0]; t += kNeighbours) {
    for (int64_t group = 0; group < groups; ++group, ++tiles) {
      blocks.clear();
      for (int64_t i = 0; i < kNeighbours; ++i) {
        const auto row = selected.begin() + ((t + i) * groups + group) * count;
        blocks.insert(blocks.end(), row, std::find(row, row + count, -1));
      }
      std::sort(blocks.begin(), blocks.end());
      sum += std::unique(blocks.begin(), blocks.end()) - blocks.begin();
    }
  }
  return tiles > 0 ? static_cast<double>(sum) / static_cast<double>(tiles) : 0;
}

}  // namespace longspan
