// The retrieval task: does a model find one thing in a long document?
//
// Pairs of a key and a value, each of four tokens, lie in a haystack; at the document's end one of the keys stands
// again, and its value is what comes next. One pair is a needle in a haystack; among several the right one must be told
// from the others.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "launch/data/sequence_source.h"

namespace longspan {

inline constexpr int64_t kKeyTokens = 4, kValueTokens = 4, kPairTokens = kKeyTokens + kValueTokens;

// What documents are made of.
class RetrievalDocuments {
 public:
  // Ids [0,X/2) are the haystack, [X/2,3X/4) keys, the rest values: X = `vocab`, at least 64.
  explicit RetrievalDocuments(int64_t vocab);
  // A haystack of the source's sequences, keys and values of tokens that occur in it. The source outlives this.
  explicit RetrievalDocuments(const SequenceSource& text);

  struct Plan {
    int64_t pairs = 1;    // at least one
    int64_t queries = 1;  // keys that stand at the end, each followed by its value; at most `pairs`
    double depth = -1;    // from 0, the beginning, to 1: where the pair of the last query lies; below 0 anywhere
    bool near = false;    // half of the pairs: at distances from the questions of all magnitudes alike
  };
  // Fills a document of tokens.size() tokens by `seed` alone. Throws Error (usage) when the pairs do not fit.
  void Fill(const Plan& plan, uint64_t seed, std::span<int32_t> tokens) const;

 private:
  const SequenceSource* text_ = nullptr;
  std::vector<int32_t> noise_, keys_, values_;  // ids to draw from
};

// Sequences for training. Each holds documents of one length: every second one of 256 tokens, all of them pairs and
// questions, from which most is learned; between them by turns 256, 512, .. tokens and the whole sequence, so that it
// is done in long ones, too. Of a document all pairs, at least 16, are asked for at the end, in any order; they lie
// anywhere, in documents of 2,048 tokens and more half of them near the questions (Plan::near). Labels are on the
// values alone. Documents start at multiples
// of `alignment`; 0: a sequence is one document. `length` is at least 256.
std::unique_ptr<SequenceSource> MakeRetrievalSource(int64_t vocab, int64_t length, int64_t alignment, bool held_out);

}  // namespace longspan
