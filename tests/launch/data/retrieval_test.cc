// The documents of the retrieval task.
#include "launch/data/retrieval.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "launch/data/random_source.h"
#include "runtime/error.h"

namespace longspan {
namespace {

// Where `key` stands in the tokens.
std::vector<int64_t> PlacesOf(std::span<const int32_t> tokens, std::span<const int32_t> key) {
  std::vector<int64_t> places;
  auto at = tokens.begin();
  while ((at = std::search(at, tokens.end(), key.begin(), key.end())) != tokens.end()) {
    places.push_back(at++ - tokens.begin());
  }
  return places;
}

void ExpectAnswered(std::span<const int32_t> tokens, double depth) {
  const auto end = std::ssize(tokens), asked = end - kPairTokens;
  const auto places = PlacesOf(tokens, tokens.subspan(asked, kKeyTokens));
  ASSERT_EQ(places.size(), 2) << "the key stands once in the haystack and once at the end";
  EXPECT_NEAR(static_cast<double>(places[0]), depth * static_cast<double>(asked - kPairTokens), kPairTokens);
  EXPECT_TRUE(std::equal(tokens.begin() + places[0], tokens.begin() + places[0] + kPairTokens, tokens.begin() + asked));
}

TEST(Retrieval, TheLastKeyHasItsValueAtItsDepth) {
  const RandomSource text(512, 200, 8, true);
  for (const RetrievalDocuments& documents : {RetrievalDocuments(64), RetrievalDocuments(text)}) {
    for (const int64_t pairs : {1, 8}) {
      for (const double depth : {0.0, 0.5, 1.0}) {
        std::vector<int32_t> tokens(1000), again(1000), others(1000);
        documents.Fill({pairs, 1, depth}, 7, tokens);
        documents.Fill({pairs, 1, depth}, 7, again);
        documents.Fill({pairs, 1, depth}, 8, others);
        EXPECT_EQ(tokens, again);
        EXPECT_NE(tokens, others);
        ExpectAnswered(tokens, depth);
      }
    }
  }
}

TEST(Retrieval, APairTooManyIsRefused) {
  std::vector<int32_t> tokens(32);
  RetrievalDocuments(64).Fill({3, 1, -1}, 1, tokens);
  EXPECT_THROW(RetrievalDocuments(64).Fill({4, 1, -1}, 1, tokens), Error);
}

// Keys that can be drawn must be as many as pairs: to look for one more would not end.
TEST(Retrieval, TooFewKeysAreRefused) {
  const RetrievalDocuments documents(64);  // 16 key tokens: 65,536 keys
  std::vector<int32_t> tokens(1 << 19);
  EXPECT_THROW(documents.Fill({.pairs = 40000, .queries = 1, .depth = 0}, 1, tokens), Error);
  EXPECT_NO_THROW(documents.Fill({.pairs = 32768, .queries = 1, .depth = 0}, 1, tokens));
}

TEST(Retrieval, TrainingHasLabelsOnValuesAlone) {
  const auto source = MakeRetrievalSource(64, 512, /*held_out=*/false);
  const auto held_out = MakeRetrievalSource(64, 512, /*held_out=*/true);
  std::vector<int32_t> tokens(512), targets(512), doc_start(512), other(512);
  source->Fill(3, tokens, targets, doc_start);
  held_out->Fill(3, other, targets, doc_start);
  EXPECT_NE(tokens, other);
  source->Fill(3, tokens, targets, doc_start);
  int64_t labels = 0;
  for (size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] < 0) continue;
    ++labels;
    EXPECT_EQ(targets[t], tokens[t + 1]);
    EXPECT_GE(targets[t], 48) << "a value's id";
  }
  EXPECT_EQ(labels * source->size(), source->labels());
  for (int64_t asked = 512 - 16 * kPairTokens; asked < 512; asked += kPairTokens) {
    const std::span<const int32_t> all(tokens);
    const auto places = PlacesOf(all, all.subspan(asked, kPairTokens));
    EXPECT_EQ(places.size(), 2);
  }
}

}  // namespace
}  // namespace longspan
