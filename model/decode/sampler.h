// Sampler: the next token of one sequence, drawn from its logits.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace longspan {

struct Sampling {
  double temperature = 1;  // of the softmax; 0: the likeliest token, of several the lowest
  int64_t top_k = 0;       // draw from so many of the likeliest; 0: from all
  double top_p = 1;        // and of those from the likeliest whose probabilities first reach this sum
  uint64_t seed = 1;
};

class Sampler {
 public:
  // Of sequence `number`: what it draws depends on nothing but the seed, this and its logits.
  Sampler(const Sampling& sampling, uint64_t number);
  // logits [X]. Throws Error (non-finite) where one is not finite.
  int32_t Next(std::span<const float> logits);

 private:
  const Sampling sampling_;
  std::mt19937_64 random_;
  std::vector<int32_t> order_;       // candidates, likeliest first where it matters
  std::vector<double> probability_;  // theirs, not normalised
};

}  // namespace longspan
