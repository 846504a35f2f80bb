#include "model/decode/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/error.h"

namespace longspan {

Sampler::Sampler(const Sampling& sampling, uint64_t number) : sampling_(sampling) {
  std::seed_seq sequence{static_cast<uint32_t>(sampling.seed), static_cast<uint32_t>(sampling.seed >> 32),
                         static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32)};
  random_.seed(sequence);
}

int32_t Sampler::Next(std::span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) Fail(ExitCode::kNonFinite, "the logit of token {} is {}", i, logits[i]);
  }
  const auto likeliest = std::max_element(logits.begin(), logits.end());
  if (sampling_.temperature == 0) return static_cast<int32_t>(likeliest - logits.begin());

  const auto all = static_cast<int64_t>(logits.size());
  const int64_t most = sampling_.top_k > 0 ? std::min(sampling_.top_k, all) : all;
  order_.resize(all);
  std::iota(order_.begin(), order_.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  if (most < all || sampling_.top_p < 1)
    std::partial_sort(order_.begin(), order_.begin() + most, order_.end(), likelier);
  order_.resize(most);

  probability_.resize(most);
  double sum = 0;
  for (int64_t i = 0; i < most; ++i) {
    const double above = static_cast<double>(logits[order_[i]]) - static_cast<double>(*likeliest);
    sum += probability_[i] = std::exp(above / sampling_.temperature);
  }
  int64_t kept = 0;
  double reached = 0;
  while (kept < most && (kept == 0 || reached < sampling_.top_p * sum)) reached += probability_[kept++];

  double left = static_cast<double>(random_() >> 11) * 0x1p-53 * reached;  // in [0, reached)
  for (int64_t i = 0; i < kept; ++i) {
    if (left < probability_[i]) return order_[i];
    left -= probability_[i];
  }
  return order_[kept - 1];
}

}  // namespace longspan
