// How a sequence is cut over the ranks, and what is told to a wrong doc_start.
#include "model/inputs.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/files.h"

namespace longspan {
namespace {

using Ids = std::vector<int32_t>;

TEST(CutSequence, RanksHoldTheirSegments) {
  Sequence whole(64);
  for (int32_t t = 0; t < 64; ++t) {
    whole.tokens[t] = t + 100;
    whole.doc_start[t] = t < 24 ? 0 : t < 40 ? 24 : 40;
    whole.targets[t] = t % 5 == 0 ? -1 : t + 101;
  }
  const NsaConfig nsa{.block = 8, .stride = 4, .select_block = 8};
  for (const LayoutKind kind : {LayoutKind::kContiguous, LayoutKind::kHeadTail}) {
    for (const int ranks : {1, 2, 4}) {
      const Layout layout(kind, 64, ranks, 8);
      Batch batch;
      for (int rank = 0; rank < ranks; ++rank) {
        CutSequence(whole, layout, rank, nsa, &batch);
        EXPECT_EQ(batch.doc_start, whole.doc_start);
        EXPECT_EQ(batch.labels, 64 - std::count(whole.targets.begin(), whole.targets.end(), -1));
        ASSERT_EQ(batch.tokens.size(), static_cast<size_t>(64 / ranks));
        ASSERT_EQ(batch.summary_positions.size(), static_cast<size_t>(64 / ranks / 4));
        for (int64_t t = 0; t < 64; ++t) {
          const Layout::Place place = layout.Find(t);
          if (place.rank != rank) continue;
          EXPECT_EQ(batch.tokens[place.row], whole.tokens[t]);
          EXPECT_EQ(batch.targets[place.row], whole.targets[t]);
          EXPECT_EQ(batch.positions[place.row], t - whole.doc_start[t]);
          if (t % 4 != 0) continue;
          // Row t/d holds compressed token t/d - 1, which begins at t - d.
          const int32_t expected = t == 0 ? 0 : static_cast<int32_t>(t) - 4 - whole.doc_start[t - 4];
          EXPECT_EQ(batch.summary_positions[place.row / 4], expected) << t;
        }
      }
    }
  }
}

TEST(DocStart, RulesAreNamed) {
  ValidateDocStart(Ids{0, 0, 2, 2, 2, 2}, 2, "case.safetensors");
  const auto bad = [](const Ids& doc_start, std::initializer_list<std::string> parts) {
    ExpectError(ExitCode::kData, parts, [&] { ValidateDocStart(doc_start, 2, "case.safetensors"); });
  };
  bad({0, -1}, {"case.safetensors", "doc_start[1] = -1"});
  bad({1, 1}, {"doc_start[0] = 1"});
  bad({0, 1}, {"doc_start[1] = 1", "multiples of 2"});
  bad({0, 0, 2, 0}, {"doc_start[3] = 0", "2 comes before"});
  bad({0, 0, 0, 2}, {"doc_start[3] = 2", "belongs to 0"});
}

}  // namespace
}  // namespace longspan
