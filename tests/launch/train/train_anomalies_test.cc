// Runs of `longspan train` that meet what is not to be learned from: numbers that are not finite, and a sequence like
// none before.
#include <algorithm>
#include <cstdint>

#include "tests/launch/train/tiny_run.h"

namespace longspan {
namespace {

class TrainAnomalies : public TinyRun {
 protected:
  // 128 sequences, one of which is not like the others.
  void WriteOddTokens() {
    std::string bytes;
    uint32_t random = 1;
    for (int i = 0; i < 128 * 64 + 1; ++i) {
      random = random * 1664525 + 1013904223;
      const bool odd = i / 64 == 77;
      bytes += Bytes<uint16_t>(odd ? 10 + (random >> 16) % 240 : 5);
    }
    WriteFile(folder_ / "tokens", bytes);
  }
  std::vector<nlohmann::json> Steps() {
    std::vector<nlohmann::json> steps;
    for (const nlohmann::json& line : Metrics()) {
      if (line["kind"] == "step") steps.push_back(line);
    }
    return steps;
  }
};

TEST_F(TrainAnomalies, NonFiniteStepsAreSkippedAndThenEndTheRun) {
  for (const int ranks : {1, 2, 4}) {
    const std::string keys =
        Arguments(fmt::format("--overwrite data.validation_fraction=0 train.steps=40 optimizer.learning_rate=1e30 "
                              "train.max_bad_steps=5 parallel.cp={}",
                              ranks > 1 ? 2 : 1));
    Expect(79, ranks, keys, {"update skipped", "5 steps in a row were skipped (train.max_bad_steps)", "step 1;"});
    const std::vector<nlohmann::json> steps = Steps();
    ASSERT_EQ(steps.size(), 6U);
    EXPECT_FALSE(steps[0]["skipped"]);  // it made the weights what they are
    for (size_t i = 1; i < steps.size(); ++i) {
      EXPECT_TRUE(steps[i]["skipped"]) << i;
      EXPECT_TRUE(steps[i]["grad_norm"].is_null()) << i;
    }
    // Once, with its origin.
    EXPECT_NE(said_.find("warning: step 2: not finite: the loss of "), std::string::npos) << said_;
    EXPECT_EQ(said_.find("not finite: "), said_.rfind("not finite: ")) << said_;
    EXPECT_TRUE(steps[1].contains("cause") && !steps[0].contains("cause") && !steps[2].contains("cause"));
    // Saved as it was before them.
    EXPECT_NE(said_.find("saved step 6 "), std::string::npos) << said_;
    const std::string again = keys.substr(0, keys.find("--overwrite")) + keys.substr(keys.find("--overwrite") + 11);
    Expect(79, ranks, again + " --resume", {"5 steps in a row were skipped (train.max_bad_steps)", "step 6;"});
  }
}

TEST_F(TrainAnomalies, OutliersAreScoredAndLeftOutOnRequest) {
  WriteOddTokens();
  for (const int ranks : {1, 4}) {
    const std::string keys = Arguments(
        fmt::format("--overwrite data.validation_fraction=0 train.steps=256 train.log_interval=1000 parallel.cp={} "
                    "train.compare_interval=1 ",
                    ranks > 1 ? 2 : 1));
    Expect(0, ranks, keys, {"done: 256 steps"});
    double largest = 0;
    int skipped = 0;
    for (const nlohmann::json& step : Steps()) {
      EXPECT_EQ(step["loss_z"].is_null(), step["step"] <= 32);
      if (!step["loss_z"].is_null()) largest = std::max(largest, step["loss_z"].get<double>());
      EXPECT_FALSE(step["skipped"]);
    }
    EXPECT_GT(largest, 5);

    Expect(0, ranks, keys + "train.max_z_score=5", {"done: 256 steps", "update skipped"});
    for (const nlohmann::json& step : Steps()) {
      const auto above = [&](const char* key) { return !step[key].is_null() && step[key] > 5; };
      EXPECT_EQ(step["skipped"], above("loss_z") || above("norm_z")) << step;
      skipped += step["skipped"] ? 1 : 0;
    }
    EXPECT_GE(skipped, 1);
    EXPECT_LE(skipped, 8);
  }
}

}  // namespace
}  // namespace longspan
