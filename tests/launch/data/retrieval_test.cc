// The documents of the retrieval task.
#include "launch/data/retrieval.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

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

// Anywhere, 1 of 100 pairs would lie there.
TEST(Retrieval, HalfOfThePairsOfTrainingLieNearTheQuestions) {
  constexpr int64_t kLength = 16384, kPairs = 32, kSeeds = 20, kNear = 160;
  int64_t close = 0, far = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<int32_t> tokens(kLength);
    RetrievalDocuments(64).Fill({.pairs = kPairs, .queries = kPairs, .near = true}, seed, tokens);
    const int64_t asked = kLength - kPairs * kPairTokens;
    for (int64_t at = asked; at < kLength; at += kPairTokens) {
      const auto places = PlacesOf(tokens, std::span(tokens).subspan(at, kKeyTokens));
      close += places[0] >= asked - kNear ? 1 : 0;
      far += places[0] < kNear ? 1 : 0;
    }
  }
  EXPECT_GT(close, kSeeds * kPairs / 8);
  EXPECT_LT(close, kSeeds * kPairs / 2);
  EXPECT_LT(far, kSeeds * kPairs / 50);
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

// Documents of 256 tokens and of the whole sequence by turns, each with all of its pairs at the end.
TEST(Retrieval, TrainingHasLabelsOnValuesAlone) {
  constexpr int64_t kLength = 640, kBlock = 64;
  const auto source = MakeRetrievalSource(64, kLength, kBlock, /*held_out=*/false);
  const auto held_out = MakeRetrievalSource(64, kLength, kBlock, /*held_out=*/true);
  std::vector<int32_t> tokens(kLength), targets(kLength), doc_start(kLength), other(kLength);
  std::set<std::vector<int64_t>> cuts;
  for (int64_t index = 0; index < 6; ++index) {
    held_out->Fill(index, other, targets, doc_start);
    source->Fill(index, tokens, targets, doc_start);
    EXPECT_NE(tokens, other);
    for (size_t t = 0; t < targets.size(); ++t) {
      if (targets[t] < 0) continue;
      EXPECT_EQ(targets[t], tokens[t + 1]);
      EXPECT_EQ(doc_start[t], doc_start[t + 1]);
      EXPECT_GE(targets[t], 48) << "a value's id";
    }
    std::vector<int64_t> starts(doc_start.begin(), doc_start.end());
    starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
    cuts.insert(starts);
    starts.push_back(kLength);
    for (size_t i = 0; i + 1 < starts.size(); ++i) {
      EXPECT_EQ(starts[i] % kBlock, 0);
      const auto document = std::span<const int32_t>(tokens).subspan(starts[i], starts[i + 1] - starts[i]);
      for (int64_t asked = std::ssize(document) - 16 * kPairTokens; asked < std::ssize(document);
           asked += kPairTokens) {
        EXPECT_EQ(PlacesOf(document, document.subspan(asked, kPairTokens)).size(), 2);
      }
    }
  }
  EXPECT_EQ(cuts, (std::set<std::vector<int64_t>>{{0}, {0, 256}}));
}

TEST(Retrieval, AsManyLabelsAsItSays) {
  for (const int64_t block : {0, 64, 96}) {
    const auto source = MakeRetrievalSource(64, 4800, block, /*held_out=*/true);
    std::vector<int32_t> tokens(4800), targets(4800), doc_start(4800);
    int64_t labels = 0;
    for (int64_t index = 0; index < source->size(); ++index) {
      source->Fill(index, tokens, targets, doc_start);
      labels += std::count_if(targets.begin(), targets.end(), [](int32_t target) { return target >= 0; });
      EXPECT_EQ(block == 0 ? doc_start.back() : doc_start.back() % block, 0);
    }
    EXPECT_EQ(labels, source->labels());
  }
}

}  // namespace
}  // namespace longspan
