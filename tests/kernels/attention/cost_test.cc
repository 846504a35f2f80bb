// The counts of pairs against a loop over every query and its keys.
#include "kernels/attention/cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

namespace longspan {
namespace {

// Pairs (t, row) for which sees(t, row), t in the segments and row in [0,rows).
double Loop(const std::vector<Segment>& segments, int64_t rows, const std::function<bool(int64_t, int64_t)>& sees) {
  int64_t pairs = 0;
  for (const Segment& segment : segments) {
    for (int64_t t = segment.begin; t < segment.begin + segment.length; ++t) {
      for (int64_t row = 0; row < rows; ++row) pairs += sees(t, row);
    }
  }
  return static_cast<double>(pairs);
}

TEST(Cost, PairsAreThoseOfTheLoop) {
  std::mt19937_64 random(1);
  const auto draw = [&](int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random);
  };
  for (int i = 0; i < 300; ++i) {
    const int64_t tokens = draw(1, 200), stride = draw(1, 9), block = stride * draw(1, 4);
    const int64_t select_block = draw(1, 20), select = draw(1, 6);
    const int64_t window = i % 10 == 0 ? int64_t{1} << 40 : draw(1, 250);
    std::vector<Segment> segments;
    for (int64_t begin = draw(0, tokens); begin < tokens;) {
      const int64_t length = draw(0, tokens - begin);
      segments.push_back({.begin = begin, .length = length});
      begin += length + draw(1, 20);
    }
    SCOPED_TRACE(i);
    EXPECT_EQ(CompressedPairs(segments, block, stride),
              Loop(segments, tokens, [&](int64_t t, int64_t j) { return j * stride + block - 1 <= t; }));
    EXPECT_EQ(SelectedPairs(segments, select_block, select), Loop(segments, tokens, [&](int64_t t, int64_t u) {
                return u <= t && u / select_block >= t / select_block - (select - 1);
              }));
    EXPECT_EQ(WindowPairs(segments, window),
              Loop(segments, tokens, [&](int64_t t, int64_t u) { return u <= t && u > t - window; }));
  }
}

// Sums of a sequence of 2^24 tokens are whole numbers still.
TEST(Cost, LongSequencesAreExact) {
  const int64_t n = int64_t{1} << 24;
  const std::vector<Segment> half = {{.begin = n / 2, .length = n / 2}};
  EXPECT_EQ(WindowPairs(half, n), static_cast<double>(n / 2 * (n + n / 2 + 1) / 2));
  EXPECT_EQ(WindowPairs(half, 512), static_cast<double>(n / 2 * 512));
  EXPECT_EQ(SelectedPairs(half, 64, 16), static_cast<double>(n / 2 * 15 * 64 + n / 2 / 64 * (64 * 65 / 2)));
  EXPECT_EQ(CompressedPairs({{.begin = 0, .length = 31}}, 32, 16), 0);
}

DecodeSizes Sizes(Phi phi) {
  DecodeSizes sizes = {.dtype = DType::kBf16, .heads = 8, .groups = 2, .key_width = 16, .value_width = 24, .nsa = {}};
  sizes.nsa.phi = phi;
  sizes.nsa.block = 8;
  sizes.nsa.stride = 4;
  sizes.nsa.select_block = 8;
  sizes.nsa.select = 3;
  sizes.nsa.window = 10;
  return sizes;
}

// Tokens decoded one by one or several at once cost together what a sequence does; of lengths that the host does not
// know, nothing is counted.
TEST(Cost, DecodingIsTheSequence) {
  const DecodeSizes sizes = Sizes(Phi::kMlp);
  DecodeSummarizeArgs summarize;
  DecodeAttendArgs attend;
  summarize.sizes = attend.sizes = sizes;
  for (auto [phi, width] : {std::pair(&summarize.phi_k, sizes.key_width), {&summarize.phi_v, sizes.value_width}}) {
    phi->weight1.shape = {sizes.nsa.block * width, 2 * width};
  }
  EXPECT_EQ(DecodeSummarizeCost(summarize).flops, 0);
  EXPECT_EQ(DecodeAttendCost(attend).flops, 0);
  Cost phis, attention;
  for (int64_t length = 0; length < 60;) {
    const int64_t count = 1 + length % 7;
    const std::vector<Segment> added = {{.begin = length, .length = count}};
    summarize.step.segments = attend.step.segments = &added;
    phis.flops += DecodeSummarizeCost(summarize).flops;
    attention.flops += DecodeAttendCost(attend).flops;
    attention.bytes += DecodeAttendCost(attend).bytes;
    length += count;
    const std::vector<Segment> all = {{.begin = 0, .length = length}};
    const double pairs = CompressedPairs(all, 8, 4) + SelectedPairs(all, 8, 3) + WindowPairs(all, 10);
    EXPECT_EQ(attention.flops, 2 * pairs * 8 * (16 + 24));
    EXPECT_EQ(attention.bytes, pairs * 2 * (16 + 24) * 2);
    const double rows = std::max<double>(0, static_cast<double>(length / 4 - 1));
    EXPECT_EQ(phis.flops, 2 * rows * 2 * ((8 * 16 * 32 + 32 * 16) + (8 * 24 * 48 + 48 * 24)));
  }
}

}  // namespace
}  // namespace longspan
