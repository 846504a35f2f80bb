// Random sequences with documents of random length: what `verify` and the model tests run on.
#pragma once

#include <algorithm>
#include <random>
#include <string>

#include "launch/data/sequence_source.h"

namespace longspan {

class RandomSource : public SequenceSource {
 public:
  // documents: whether sequences are cut in documents of uneven lengths, starting at multiples of `block`.
  RandomSource(int64_t length, int64_t vocab, int64_t block, bool documents)
      : length_(length), vocab_(vocab), block_(block), documents_(documents) {}

  int64_t size() const override { return 1000; }
  int64_t length() const override { return length_; }
  int64_t labels() const override { return size() * (length_ - 1); }  // at most
  void Fill(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> doc_start) const override {
    std::mt19937_64 random(static_cast<uint64_t>(index) * 77 + 5);
    for (auto& token : tokens) token = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_));
    int64_t begin = 0;
    while (begin < length_) {
      int64_t end = length_;
      if (documents_) end = std::min(length_, begin + block_ * static_cast<int64_t>(1 + random() % 5));
      // The tail of a document is padding now and then.
      const int64_t used = documents_ ? end - static_cast<int64_t>(random() % static_cast<uint64_t>(block_)) : end;
      for (int64_t t = begin; t < end; ++t) {
        doc_start[t] = static_cast<int32_t>(begin);
        targets[t] = t + 1 < used ? tokens[t + 1] : -1;
      }
      begin = end;
    }
  }
  std::string Summary() const override { return "random tokens"; }

 private:
  int64_t length_, vocab_, block_;
  bool documents_;
};

}  // namespace longspan
