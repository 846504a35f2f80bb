// What stops a run from going on, and what is only said.
#include "launch/checkpoint/compare.h"

#include <gtest/gtest.h>

#include "launch/config/config.h"

namespace longspan {
namespace {

using Lines = std::vector<std::string>;

class Compared : public testing::Test {
 protected:
  Compared() {
    config_.data.train = "tokens";
    saved_.config = ConfigText(config_);
    saved_.data = data_;
  }
  Differences Compare() { return longspan::Compare(saved_, config_, data_); }

  RunConfig config_;
  std::vector<DataClaim> data_ = {{"data.train", "A", "tokens"}, {"tokenizer of data.train", "byte", ""}};
  Manifest saved_;
};

TEST_F(Compared, TheSameRun) {
  EXPECT_EQ(Compare().refused, Lines{});
  EXPECT_EQ(Compare().changed, Lines{});
}

TEST_F(Compared, ModelAndDataBind) {
  config_.model.layers = 5;
  config_.model.nsa.window = 100;
  config_.data.sequence_length = 4096;
  data_[0] = {"data.train", "B", "other"};
  data_[1].value = "sentencepiece 12";
  EXPECT_EQ(Compare().refused,
            (Lines{"model.layers: 4 in the checkpoint, 5 now", "model.nsa.window: 512 in the checkpoint, 100 now",
                   "data.sequence_length: 2048 in the checkpoint, 4096 now",
                   "data.train: A (tokens) in the checkpoint, B (other) now",
                   "tokenizer of data.train: byte in the checkpoint, sentencepiece 12 now"}));
}

TEST_F(Compared, TheRestMayChange) {
  config_.train.steps = 1000;
  config_.parallel.cp = 2;
  config_.optimizer.schedule = ScheduleKind::kConstant;
  config_.data.train = "moved";
  data_ = {{"data.train", "A", "moved"}};  // its record was lost on the way
  EXPECT_EQ(Compare().refused, Lines{});
  EXPECT_EQ(Compare().changed,
            (Lines{"parallel.cp: 1 in the checkpoint, 2 now", "data.train: \"tokens\" in the checkpoint, \"moved\" now",
                   "optimizer.schedule: COSINE in the checkpoint, CONSTANT now",
                   "train.steps: 200 in the checkpoint, 1000 now"}));
}

// The held-out part of the training data is not trained on; other held-out files are.
TEST_F(Compared, HeldOutData) {
  config_.data.validation_fraction = 0.1;
  EXPECT_EQ(Compare().refused, Lines{"data.validation_fraction: 0.05 in the checkpoint, 0.1 now"});
  config_.data.validation = "held_out";
  EXPECT_EQ(Compare().refused.size(), 2U);
  saved_.config = ConfigText(config_);
  config_.data.validation = "other";
  saved_.data.push_back({"data.validation", "C", ""});
  data_.push_back({"data.validation", "D", ""});
  EXPECT_EQ(Compare().refused, Lines{});
  EXPECT_EQ(Compare().changed.size(), 2U);
}

}  // namespace
}  // namespace longspan
