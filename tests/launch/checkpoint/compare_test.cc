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

// Datasets may move; in other shares their order means something else.
TEST_F(Compared, Blends) {
  config_.data.train = "";
  config_.data.blend = {"1 a", "2 b validation=c"};
  saved_.config = ConfigText(config_);
  saved_.data =
      data_ = {{"data.blend[0]", "A", "a"}, {"data.blend[1]", "B", "b"}, {"data.blend[1].validation", "C", "c"}};
  config_.data.blend = {"1 moved/a", "2 moved/b validation=moved/c"};
  data_[2].value = "D";
  EXPECT_EQ(Compare().refused, Lines{});
  EXPECT_EQ(Compare().changed.size(), 2U);
  data_[1].value = "E";
  EXPECT_EQ(Compare().refused, Lines{"data.blend[1]: B (b) in the checkpoint, E (b) now"});
  data_[1].value = "B";
  config_.data.blend = {"1 a", "3 b validation=c"};
  EXPECT_EQ(Compare().refused.size(), 2U);  // and held-out data comes in other shares
  config_.data.blend = {"1 a validation_fraction=0.1", "2 b validation=c"};
  EXPECT_EQ(Compare().refused.front().substr(0, 11), "data.blend:");
  config_.data.blend = {"1 a", "2 b validation=c", "1 d"};
  EXPECT_EQ(Compare().refused.front().substr(0, 11), "data.blend:");
}

}  // namespace
}  // namespace longspan
