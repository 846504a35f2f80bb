#include "launch/data/fibonacci.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

namespace longspan {
namespace {

struct Pair {
  int32_t a, b;
  Pair Next() const { return {b, (a + b) % static_cast<int32_t>(kFibonacciSymbols)}; }
  int64_t number() const { return a * kFibonacciSymbols + b; }
};

// The pairs of a split, cycle after cycle.
std::vector<Pair> StartPairs(FibonacciSplit split) {
  constexpr int64_t kEvery = 5;
  std::vector<Pair> pairs;
  std::array<bool, kFibonacciSymbols * kFibonacciSymbols> seen{};
  for (int32_t number = 0; number < static_cast<int32_t>(seen.size()); ++number) {
    constexpr int32_t kSymbols = kFibonacciSymbols;
    Pair pair{number / kSymbols, number % kSymbols};
    for (int64_t step = 1; !seen[pair.number()]; ++step, pair = pair.Next()) {
      seen[pair.number()] = true;
      if ((step % kEvery == 0) == (split == FibonacciSplit::kHeldOut)) pairs.push_back(pair);
    }
  }
  return pairs;
}

class FibonacciSource : public SequenceSource {
 public:
  FibonacciSource(FibonacciSplit split, int64_t length) : split_(split), length_(length), pairs_(StartPairs(split)) {}

  int64_t size() const override { return static_cast<int64_t>(pairs_.size()); }
  int64_t length() const override { return length_; }
  int64_t labels() const override { return size() * std::max<int64_t>(0, length_ - 2); }

  void Fill(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> doc_start) const override {
    Pair pair = pairs_[index];
    for (int32_t& token : tokens) {
      token = pair.a;
      pair = pair.Next();
    }
    std::copy(tokens.begin() + 1, tokens.end(), targets.begin());
    targets.front() = targets.back() = -1;
    std::fill(doc_start.begin(), doc_start.end(), 0);
  }

  std::string Summary() const override {
    return fmt::format("Fibonacci modulo ten, {}: {} sequences of {}, one for each pair of first symbols",
                       split_ == FibonacciSplit::kTrain ? "training" : "held out", size(), length_);
  }

 private:
  const FibonacciSplit split_;
  const int64_t length_;
  const std::vector<Pair> pairs_;
};

}  // namespace

std::unique_ptr<SequenceSource> MakeFibonacciSource(FibonacciSplit split, int64_t length) {
  return std::make_unique<FibonacciSource>(split, length);
}

}  // namespace longspan
