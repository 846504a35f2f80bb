#include "launch/data/batches.h"

#include <numeric>
#include <random>
#include <utility>

#include "runtime/error.h"

namespace longspan {

BatchLoader::BatchLoader(const SequenceSource& source, const Layout& layout, int cp_index, const NsaConfig& nsa,
                         uint64_t seed)
    : source_(source), layout_(layout), cp_index_(cp_index), nsa_(nsa), seed_(seed), sequence_(layout.sequence()) {
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

void BatchLoader::LoadSequence(int64_t number, Batch& batch) {
  source_.Fill(number, sequence_.tokens, sequence_.targets, sequence_.doc_start);
  batch.number = number;
  CutSequence(sequence_, layout_, cp_index_, nsa_, &batch);
}

std::vector<uint32_t> ShuffledOrder(int64_t size, uint64_t seed, uint64_t epoch) {
  if (size > int64_t{1} << 32) {
    Fail(ExitCode::kData, "expected at most 2^32 sequences to shuffle, found {}; make data.sequence_length longer",
         size);
  }
  std::vector<uint32_t> order(size);
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

}  // namespace longspan
