// Layout without MPI: every token has one place, and every question about it gets the same answer.
#include "parallel/layout.h"

#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "runtime/error.h"

namespace longspan {
namespace {

constexpr LayoutKind kKinds[] = {LayoutKind::kContiguous, LayoutKind::kHeadTail};

// kind, ranks, unit, units in a chunk
using Case = std::tuple<LayoutKind, int, int64_t, int64_t>;

class LayoutTest : public testing::TestWithParam<Case> {
 protected:
  static Layout Make() {
    const auto& [kind, ranks, unit, units] = GetParam();
    return Layout(kind, unit * units * ranks * (kind == LayoutKind::kHeadTail ? 2 : 1), ranks, unit);
  }
};

TEST_P(LayoutTest, EveryTokenHasOnePlaceAndFindKnowsIt) {
  const Layout layout = Make();
  const auto& [kind, ranks, unit, units] = GetParam();
  EXPECT_EQ(layout.ranks(), ranks);
  EXPECT_EQ(layout.unit(), unit);
  EXPECT_EQ(layout.tokens() * ranks, layout.sequence());
  std::vector<int> seen(layout.sequence(), 0);
  for (int rank = 0; rank < ranks; ++rank) {
    int64_t row = 0;
    int64_t end = -1;
    for (const Segment& segment : layout.segments(rank)) {
      EXPECT_EQ(segment.row, row) << "local rows follow one another";
      EXPECT_GT(segment.begin, end) << "ascending, and adjacent chunks are one segment";
      EXPECT_EQ(segment.begin % unit, 0);
      EXPECT_EQ(segment.length % layout.chunk(), 0);
      for (int64_t i = 0; i < segment.length; ++i) {
        ++seen[segment.begin + i];
        const Layout::Place place = layout.Find(segment.begin + i);
        ASSERT_EQ(place.rank, rank);
        ASSERT_EQ(place.row, segment.row + i);
      }
      row += segment.length;
      end = segment.begin + segment.length;
    }
    EXPECT_EQ(row, layout.tokens());
  }
  for (int count : seen) ASSERT_EQ(count, 1);
}

TEST_P(LayoutTest, GatheredPagesLieWhereAnAllGatherPutsThem) {
  const Layout layout = Make();
  // What a gather of positions gives.
  std::vector<int64_t> gathered;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    for (const Segment& segment : layout.segments(rank)) {
      for (int64_t i = 0; i < segment.length; ++i) gathered.push_back(segment.begin + i);
    }
  }
  for (int64_t page : {int64_t{1}, layout.unit(), layout.chunk()}) {
    const std::vector<int32_t> pages = layout.GatheredPages(page);
    ASSERT_EQ(static_cast<int64_t>(pages.size()), layout.sequence() / page);
    for (int64_t position = 0; position < layout.sequence(); ++position) {
      ASSERT_EQ(gathered[pages[position / page] * page + position % page], position) << "page " << page;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Many, LayoutTest,
                         testing::Combine(testing::ValuesIn(kKinds), testing::Range(1, 10),
                                          testing::Values<int64_t>(1, 4, 64), testing::Values<int64_t>(1, 2, 3)));

TEST(Layout, HeadTailPairsTheFirstChunkWithTheLast) {
  const Layout layout(LayoutKind::kHeadTail, 48, 3, 8);
  EXPECT_EQ(layout.chunk(), 8);
  EXPECT_EQ(layout.segments(0), (std::vector<Segment>{{0, 8, 0}, {40, 8, 8}}));
  EXPECT_EQ(layout.segments(1), (std::vector<Segment>{{8, 8, 0}, {32, 8, 8}}));
  EXPECT_EQ(layout.segments(2), (std::vector<Segment>{{16, 16, 0}}));
}

TEST(Layout, OneRankTakesAnyLength) {
  for (LayoutKind kind : kKinds) {
    const Layout layout(kind, 77, 1, 64);
    EXPECT_EQ(layout.segments(0), (std::vector<Segment>{{0, 77, 0}}));
    EXPECT_EQ(layout.GatheredPages(64), (std::vector<int32_t>{0, 1}));
    EXPECT_EQ(Layout::PaddedLength(kind, 77, 1, 64), 77);
  }
}

std::string MessageOf(LayoutKind kind, int64_t sequence, int ranks, int64_t unit) {
  try {
    Layout(kind, sequence, ranks, unit);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    return error.what();
  }
  return "no error";
}

TEST(Layout, RefusesLengthsThatDoNotCutAndNamesThoseThatDo) {
  EXPECT_NE(MessageOf(LayoutKind::kHeadTail, 1000, 4, 64).find("take 512 or 1024"), std::string::npos);
  EXPECT_NE(MessageOf(LayoutKind::kContiguous, 1000, 4, 64).find("take 768 or 1024"), std::string::npos);
  const std::string message = MessageOf(LayoutKind::kHeadTail, 100, 4, 64);
  EXPECT_NE(message.find("HEAD_TAIL over 4 ranks cuts it in 8 chunks"), std::string::npos) << message;
  EXPECT_NE(message.find("take 512"), std::string::npos) << message;
  EXPECT_NE(MessageOf(LayoutKind::kContiguous, 0, 1, 64).find("must be positive"), std::string::npos);
  EXPECT_EQ(Layout::PaddedLength(LayoutKind::kHeadTail, 1000, 4, 64), 1024);
  EXPECT_EQ(Layout::PaddedLength(LayoutKind::kHeadTail, 1024, 4, 64), 1024);
  EXPECT_EQ(Layout::PaddedLength(LayoutKind::kContiguous, 1, 4, 64), 256);
}

TEST(Layout, RefusesQuestionsOutsideTheSequence) {
  const Layout layout(LayoutKind::kHeadTail, 64, 2, 8);
  EXPECT_THROW(layout.Find(-1), Error);
  EXPECT_THROW(layout.Find(64), Error);
  EXPECT_THROW(layout.GatheredPages(5), Error);
}

}  // namespace
}  // namespace longspan
