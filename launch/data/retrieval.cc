#include "launch/data/retrieval.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "runtime/error.h"

namespace longspan {
namespace {

constexpr int64_t kTrainingPairs = 16;
constexpr int64_t kSequences = int64_t{1} << 20, kHeldOut = 256;

class RetrievalSource : public SequenceSource {
 public:
  RetrievalSource(int64_t vocab, int64_t length, bool held_out)
      : documents_(vocab), length_(length), held_out_(held_out) {
    std::vector<int32_t> tokens(length);
    documents_.Fill(kPlan, 0, tokens);  // whether it fits
  }
  int64_t size() const override { return held_out_ ? kHeldOut : kSequences; }
  int64_t length() const override { return length_; }
  int64_t labels() const override { return size() * kTrainingPairs * kValueTokens; }
  void Fill(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> doc_start) const override {
    documents_.Fill(kPlan, static_cast<uint64_t>(index + (held_out_ ? kSequences : 0)), tokens);
    std::fill(targets.begin(), targets.end(), -1);
    std::fill(doc_start.begin(), doc_start.end(), 0);
    for (int64_t query = length_ - kTrainingPairs * kPairTokens; query < length_; query += kPairTokens) {
      for (int64_t i = kKeyTokens; i < kPairTokens; ++i) targets[query + i - 1] = tokens[query + i];
    }
  }
  std::string Summary() const override {
    return fmt::format("retrieval: {} of {} pairs in {} tokens", kTrainingPairs, kTrainingPairs, length_);
  }

 private:
  static constexpr RetrievalDocuments::Plan kPlan = {.pairs = kTrainingPairs, .queries = kTrainingPairs};
  const RetrievalDocuments documents_;
  const int64_t length_;
  const bool held_out_;
};

std::vector<int32_t> Ids(int64_t first, int64_t last) {
  std::vector<int32_t> ids(last - first);
  std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
  return ids;
}

}  // namespace

RetrievalDocuments::RetrievalDocuments(int64_t vocab)
    : noise_(Ids(0, vocab / 2)), keys_(Ids(vocab / 2, 3 * vocab / 4)), values_(Ids(3 * vocab / 4, vocab)) {
  LS_CHECK(vocab >= 64, "retrieval: expected a vocabulary of 64 or more, found {}", vocab);
}

RetrievalDocuments::RetrievalDocuments(const SequenceSource& text) : text_(&text) {
  std::vector<int32_t> tokens(text.length()), targets(text.length()), doc_start(text.length());
  std::set<int32_t> seen;
  for (int64_t i = 0; i < std::min<int64_t>(text.size(), 8); ++i) {
    text.Fill(i, tokens, targets, doc_start);
    for (size_t t = 0; t < tokens.size(); ++t) {
      if (targets[t] >= 0) seen.insert(tokens[t]);  // padding is none
    }
  }
  keys_.assign(seen.begin(), seen.end());
  values_ = keys_;
}

void RetrievalDocuments::Fill(const Plan& plan, uint64_t seed, std::span<int32_t> tokens) const {
  const auto [pairs, queries, depth] = plan;
  const auto length = static_cast<int64_t>(tokens.size()), asked_at = length - queries * kPairTokens;
  const int64_t slots = asked_at / kPairTokens;  // where pairs may lie
  if (slots < pairs) {
    Fail(ExitCode::kUsage, "retrieval: {} pairs and {} queries need {} tokens, found {}", pairs, queries,
         (pairs + queries) * kPairTokens, length);
  }
  const double keys = std::pow(static_cast<double>(keys_.size()), kKeyTokens);
  if (keys < 2 * static_cast<double>(pairs)) {  // to draw them without repetition takes no time
    Fail(ExitCode::kUsage, "retrieval: {} pairs need twice as many keys, {} tokens make {}", pairs, keys_.size(), keys);
  }
  std::mt19937_64 random(seed * 0x9e3779b97f4a7c15u + 1);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };

  if (text_) {
    std::vector<int32_t> text(text_->length()), targets(text_->length()), doc_start(text_->length());
    for (int64_t done = 0; done < length;) {
      text_->Fill(static_cast<int64_t>(below(text_->size())), text, targets, doc_start);
      const int64_t count = std::min(length - done, text_->length());
      std::copy_n(text.begin(), count, tokens.begin() + done);
      done += count;
    }
  } else {
    for (int32_t& token : tokens) token = noise_[below(noise_.size())];
  }

  // Each key once, and each pair in a slot of its own; the last to be asked for is number queries - 1.
  std::set<std::vector<int32_t>> taken;
  std::set<int64_t> places;
  std::vector<std::vector<int32_t>> drawn;
  for (int64_t i = 0; i < pairs; ++i) {
    std::vector<int32_t> pair(kPairTokens);
    do {
      for (int64_t c = 0; c < kKeyTokens; ++c) pair[c] = keys_[below(keys_.size())];
    } while (!taken.insert({pair.begin(), pair.begin() + kKeyTokens}).second);
    for (int64_t c = kKeyTokens; c < kPairTokens; ++c) pair[c] = values_[below(values_.size())];
    drawn.push_back(pair);
  }
  std::vector<int64_t> place(pairs);
  const auto put = [&](int64_t i, int64_t slot) {
    place[i] = slot;
    places.insert(slot);
  };
  if (depth >= 0) put(queries - 1, std::llround(depth * static_cast<double>(slots - 1)));
  for (int64_t i = 0; i < pairs; ++i) {
    if (depth >= 0 && i == queries - 1) continue;
    int64_t slot = static_cast<int64_t>(below(slots));
    while (places.contains(slot)) slot = (slot + 1) % slots;
    put(i, slot);
  }
  for (int64_t i = 0; i < pairs; ++i) {
    std::copy(drawn[i].begin(), drawn[i].end(), tokens.begin() + place[i] * kPairTokens);
  }
  for (int64_t i = 0; i < queries; ++i) {
    std::copy(drawn[i].begin(), drawn[i].end(), tokens.begin() + asked_at + i * kPairTokens);
  }
}

std::unique_ptr<SequenceSource> MakeRetrievalSource(int64_t vocab, int64_t length, bool held_out) {
  return std::make_unique<RetrievalSource>(vocab, length, held_out);
}

}  // namespace longspan
