#include "launch/data/retrieval.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "runtime/error.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

constexpr int64_t kSequences = int64_t{1} << 20, kHeldOut = 256;
constexpr int64_t kShortest = 256;  // tokens of a document

// Of a training document.
RetrievalDocuments::Plan PlanOf(int64_t length) {
  const int64_t pairs = std::max<int64_t>(16, length / 512);
  return {.pairs = pairs, .queries = pairs, .near = length > 4 * kShortest};
}

class RetrievalSource : public SequenceSource {
 public:
  RetrievalSource(int64_t vocab, int64_t length, int64_t alignment, bool held_out)
      : documents_(vocab), length_(length), held_out_(held_out) {
    for (int64_t next = RoundUp(kShortest, std::max<int64_t>(alignment, 1)); alignment > 0 && next < length; next *= 2)
      lengths_.push_back(next);
    lengths_.push_back(length);
  }
  int64_t size() const override { return held_out_ ? kHeldOut : kSequences; }
  int64_t length() const override { return length_; }
  int64_t labels() const override {
    int64_t labels = 0;
    const int64_t turn = 2 * std::ssize(lengths_);
    for (int64_t first = 0; first < turn; ++first) {
      int64_t one = 0;
      for (const auto& [begin, end] : PiecesOf(first)) one += PlanOf(end - begin).queries * kValueTokens;
      labels += one * CeilDiv(size() - first, turn);
    }
    return labels;
  }
  void Fill(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> doc_start) const override {
    std::fill(targets.begin(), targets.end(), -1);
    const auto first = static_cast<uint64_t>((index + (held_out_ ? kSequences : 0)) * length_);
    for (const auto& [begin, end] : PiecesOf(index)) {
      const RetrievalDocuments::Plan plan = PlanOf(end - begin);
      documents_.Fill(plan, first + static_cast<uint64_t>(begin), tokens.subspan(begin, end - begin));
      std::fill(doc_start.begin() + begin, doc_start.begin() + end, static_cast<int32_t>(begin));
      for (int64_t query = end - plan.queries * kPairTokens; query < end; query += kPairTokens) {
        for (int64_t i = kKeyTokens; i < kPairTokens; ++i) targets[query + i - 1] = tokens[query + i];
      }
    }
  }
  std::string Summary() const override {
    return fmt::format("retrieval: documents of {} to {} tokens in sequences of {}", lengths_.front(), length_,
                       length_);
  }

 private:
  // [begin,end) of the documents of a sequence: all of one length, but for the last, which takes what is left.
  std::vector<std::pair<int64_t, int64_t>> PiecesOf(int64_t index) const {
    const int64_t length = lengths_[index % 2 == 0 ? 0 : index / 2 % std::ssize(lengths_)], count = length_ / length;
    std::vector<std::pair<int64_t, int64_t>> pieces;
    for (int64_t i = 0; i < count; ++i) pieces.emplace_back(i * length, i + 1 == count ? length_ : (i + 1) * length);
    return pieces;
  }

  const RetrievalDocuments documents_;
  const int64_t length_;
  const bool held_out_;
  std::vector<int64_t> lengths_;  // of documents
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
  const auto [pairs, queries, depth, near] = plan;
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
    const bool close = near && below(2) == 0;
    const size_t reach = close ? size_t{1} << below(std::bit_width(static_cast<uint64_t>(slots))) : slots;
    int64_t slot = slots - 1 - static_cast<int64_t>(below(reach));
    while (places.contains(slot)) slot = (slot + slots - 1) % slots;
    put(i, slot);
  }
  for (int64_t i = 0; i < pairs; ++i) {
    std::copy(drawn[i].begin(), drawn[i].end(), tokens.begin() + place[i] * kPairTokens);
  }
  for (int64_t i = 0; i < queries; ++i) {
    std::copy(drawn[i].begin(), drawn[i].end(), tokens.begin() + asked_at + i * kPairTokens);
  }
}

std::unique_ptr<SequenceSource> MakeRetrievalSource(int64_t vocab, int64_t length, int64_t alignment, bool held_out) {
  return std::make_unique<RetrievalSource>(vocab, length, alignment, held_out);
}

}  // namespace longspan
