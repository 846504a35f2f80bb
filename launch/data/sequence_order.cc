#include "launch/data/sequence_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "runtime/error.h"

namespace longspan {
namespace {

constexpr uint64_t kSeedStep = 0x9E3779B97F4A7C15;  // between parts

}  // namespace

SequenceOrder::SequenceOrder(std::vector<SequenceSource::Part> parts, uint64_t seed)
    : parts_(std::move(parts)), seed_(seed), epochs_(parts_.size()) {
  double sum = 0;
  for (const auto& part : parts_) sum += part.weight;
  for (const auto& part : parts_) shares_.push_back(part.weight / sum);
}

size_t SequenceOrder::NextPart(const std::vector<int64_t>& turns) const {
  size_t next = 0;
  for (size_t part = 1; part < turns.size(); ++part) {
    if (Time(part, turns[part]) < Time(next, turns[next])) next = part;
  }
  return next;
}

std::vector<int64_t> SequenceOrder::TurnsBefore(int64_t place) const {
  if (parts_.size() == 1) return {place};
  // All turns up to a time that is a little too early, then those after it one by one.
  const auto early = static_cast<double>(place - std::ssize(parts_) - 1);
  std::vector<int64_t> turns(parts_.size());
  int64_t sum = 0;
  for (size_t part = 0; part < parts_.size(); ++part) {
    int64_t& count = turns[part];
    count = std::max<int64_t>(0, static_cast<int64_t>(std::floor(early * shares_[part] + 0.5)));
    while (count > 0 && Time(part, count - 1) > early) --count;  // whatever was rounded
    while (Time(part, count) <= early) ++count;
    sum += count;
  }
  for (; sum < place; ++sum) ++turns[NextPart(turns)];
  return turns;
}

int64_t SequenceOrder::At(int64_t place) {
  const std::vector<int64_t> turns = TurnsBefore(place);
  const size_t part = NextPart(turns);
  const int64_t size = parts_[part].size, number = turns[part] / size;
  Epoch& epoch = epochs_[part];
  if (number != epoch.number) epoch = {number, ShuffledOrder(size, seed_ + part * kSeedStep, number)};
  return parts_[part].first + epoch.order[turns[part] % size];
}

std::vector<double> SequenceOrder::Epochs(int64_t place) const {
  const std::vector<int64_t> turns = TurnsBefore(place);
  std::vector<double> epochs;
  for (size_t part = 0; part < parts_.size(); ++part) {
    epochs.push_back(static_cast<double>(turns[part]) / static_cast<double>(parts_[part].size));
  }
  return epochs;
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
