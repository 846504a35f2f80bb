// Checks a free selection against the reference's scores. A near-tie may fall either way: forced blocks are compared
// exactly, the others by their sorted scores, and every score by the reference's for that block.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/attention/nsa_config.h"
#include "tests/support/compare.h"

namespace longspan::test {

class ChoiceCheck {
 public:
  explicit ChoiceCheck(const NsaConfig& nsa) : nsa_(nsa) {}

  // What query t, whose document's first block is `first`, chose, [select] both; `reference` has the scores of its
  // visible blocks, from `first` on. Stop after a fatal failure.
  void Add(int64_t t, int64_t first, const int32_t* chosen, const double* scores, const double* reference) {
    const int64_t own = t / nsa_.select_block, count = std::min(nsa_.select, own - first + 1);
    std::vector<double> candidates, contested;
    const auto forced = [&](int64_t block) { return block < first + nsa_.init || block > own - nsa_.local; };
    for (int64_t block = first; block <= own; ++block) {
      if (!forced(block)) {
        candidates.push_back(reference[block - first]);
      } else {
        ASSERT_TRUE(std::binary_search(chosen, chosen + count, block)) << "query " << t << ", block " << block;
      }
    }
    for (int64_t i = 0; i < nsa_.select; ++i) {
      if (i >= count) {
        ASSERT_EQ(chosen[i], -1) << "query " << t << ", place " << i;
        ASSERT_EQ(scores[i], 0) << "query " << t << ", place " << i;
        continue;
      }
      ASSERT_GE(chosen[i], i == 0 ? first : chosen[i - 1] + 1) << "query " << t << ", place " << i;
      ASSERT_LE(chosen[i], own) << "query " << t << ", place " << i;
      found_.push_back(scores[i]);
      expected_.push_back(reference[chosen[i] - first]);
      if (!forced(chosen[i])) contested.push_back(scores[i]);
    }
    std::sort(candidates.begin(), candidates.end(), std::greater<>());
    std::sort(contested.begin(), contested.end(), std::greater<>());
    ASSERT_LE(contested.size(), candidates.size());
    found_best_.insert(found_best_.end(), contested.begin(), contested.end());
    expected_best_.insert(expected_best_.end(), candidates.begin(), candidates.begin() + std::ssize(contested));
  }

  void ExpectScores() const {
    EXPECT_TRUE(RmsClose("scores", found_, expected_, 1e-5));
    EXPECT_TRUE(RmsClose("best scores", found_best_, expected_best_, 1e-5));
  }

 private:
  NsaConfig nsa_;
  std::vector<double> found_, expected_, found_best_, expected_best_;
};

}  // namespace longspan::test
