#include "launch/data/batches.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "runtime/error.h"

namespace longspan {

BatchLoader::BatchLoader(const SequenceSource& source, const Layout& layout, int cp_index, const NsaConfig& nsa,
                         uint64_t seed)
    : source_(source),
      layout_(layout),
      cp_index_(cp_index),
      nsa_(nsa),
      seed_(seed),
      tokens_(layout.sequence()),
      targets_(layout.sequence()) {
  LS_CHECK(source.length() == layout.sequence(), "batches: sequences of {} tokens, a layout of {}", source.length(),
           layout.sequence());
}

int64_t BatchLoader::SequenceAt(int64_t place) {
  const int64_t epoch = place / source_.size();
  if (epoch != epoch_) {
    order_ = ShuffledOrder(source_.size(), seed_, epoch);
    epoch_ = epoch;
  }
  return order_[place % source_.size()];
}

void BatchLoader::Load(int64_t place, Batch& batch) {
  batch.doc_start.resize(layout_.sequence());
  source_.Fill(SequenceAt(place), tokens_, targets_, batch.doc_start);
  batch.labels = layout_.sequence() - std::count(targets_.begin(), targets_.end(), -1);

  batch.tokens.resize(layout_.tokens());
  batch.targets.resize(layout_.tokens());
  batch.positions.resize(layout_.tokens());
  for (const Segment& segment : layout_.segments(cp_index_)) {
    for (int64_t i = 0; i < segment.length; ++i) {
      const int64_t t = segment.begin + i, row = segment.row + i;
      batch.tokens[row] = tokens_[t];
      batch.targets[row] = targets_[t];
      batch.positions[row] = static_cast<int32_t>(t) - batch.doc_start[t];
    }
  }
  batch.positions_cmp = SummaryPositions(layout_, cp_index_, nsa_, batch.doc_start);
}

std::vector<int32_t> SummaryPositions(const Layout& layout, int rank, const NsaConfig& nsa,
                                      std::span<const int32_t> doc_start) {
  std::vector<int32_t> positions(layout.tokens() / nsa.stride);
  for (const Segment& segment : layout.segments(rank)) {
    // Row i of the sequence's compressed rows holds token i - lead.
    for (int64_t i = 0; i < segment.length / nsa.stride; ++i) {
      const int64_t t = (segment.begin / nsa.stride + i - nsa.lead()) * nsa.stride;
      positions[segment.row / nsa.stride + i] = t < 0 ? 0 : static_cast<int32_t>(t) - doc_start[t];
    }
  }
  return positions;
}

std::vector<int64_t> ShuffledOrder(int64_t size, uint64_t seed, uint64_t epoch) {
  std::vector<int64_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  // Fisher-Yates by hand: the standard fixes this generator's numbers, but not what std::shuffle does with them.
  std::seed_seq sequence{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), static_cast<uint32_t>(epoch),
                         static_cast<uint32_t>(epoch >> 32)};
  std::mt19937_64 random(sequence);
  for (uint64_t left = size; left > 1; --left) {
    const uint64_t fair = UINT64_MAX - UINT64_MAX % left;  // numbers from here on would favour low places
    uint64_t number = random();
    while (number >= fair) number = random();
    std::swap(order[left - 1], order[number % left]);
  }
  return order;
}

void ValidateDocStart(std::span<const int32_t> doc_start, int64_t select_block, const std::string& what) {
  for (int64_t t = 0; t < static_cast<int64_t>(doc_start.size()); ++t) {
    const int64_t start = doc_start[t];
    const auto refuse = [&](const std::string& rule) {
      Fail(ExitCode::kData, "{}: doc_start[{}] = {}: {}", what, t, start, rule);
    };
    if (start < 0 || start > t) refuse("a document starts between 0 and its tokens");
    if (start % select_block != 0) refuse(fmt::format("documents start at multiples of {}", select_block));
    if (t > 0 && start < doc_start[t - 1])
      refuse(fmt::format("{} comes before it; starts never fall", doc_start[t - 1]));
    if (doc_start[start] != start)
      refuse(fmt::format("position {} belongs to {}, so no document starts there", start, doc_start[start]));
  }
}

}  // namespace longspan
