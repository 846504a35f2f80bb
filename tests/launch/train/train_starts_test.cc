// How runs of `longspan train` begin, or are refused: ranks that disagree, a name that is taken, data that is not what
// it should be, a disk that is full, a dataset that shrinks.
#include <csignal>
#include <filesystem>

#include "tests/launch/train/tiny_run.h"

namespace longspan {
namespace {

using nlohmann::json;

class TrainStarts : public TinyRun {
 protected:
  // The same on two ranks, but for what the second is given besides.
  void ExpectOfTwo(int code, const std::string& keys, const std::string& second,
                   std::initializer_list<std::string> parts, const std::string& command = "train") {
    const std::string one = fmt::format("-np 1 '{}' {}", LONGSPAN_PROGRAM, Arguments(keys, command));
    const std::string launched =
        fmt::format("'{}' {} : {} {} > '{}' 2>&1", LONGSPAN_MPIEXEC, one, one, second, folder_ / "said");
    const int status = std::system(launched.c_str());
    said_ = ReadFile(folder_ / "said");
    EXPECT_EQ(WEXITSTATUS(status), code) << said_;
    for (const std::string& part : parts)
      EXPECT_NE(said_.find(part), std::string::npos) << said_ << "\nlacks: " << part;
  }
};

TEST_F(TrainStarts, RanksThatDisagreeAreRefused) {
  ExpectOfTwo(78, "", "optimizer.learning_rate=1e-4 train.seed=2",
              {"optimizer.learning_rate: 0.003 on rank 0, 0.0001 on rank 1", "train.seed: 1 on rank 0, 2 on rank 1"});
  ExpectOfTwo(78, "", "train.steps=4", {"train.steps: 3 on rank 0, 4 on rank 1"});
  ExpectOfTwo(78, "parallel.cp=2", "parallel.cp=1", {"parallel.cp: 2 on rank 0, 1 on rank 1"});
  WriteTokens("other", 2000, 11);
  ExpectOfTwo(65, "data.validation_fraction=0", fmt::format("data.train='{}'", folder_ / "other"),
              {"disagree on the data", "data.train: nanoGPT", "other) on rank 1"});
  WriteTokens("copy", 2000, 7);
  ExpectOfTwo(0, "data.validation_fraction=0", fmt::format("data.train='{}'", folder_ / "copy"), {"done: 3 steps"});
}

TEST_F(TrainStarts, RanksWithOtherSelectionsAreRefused) {
  const std::string steps = "data.validation_fraction=0 train.steps=1 model.nsa.select=5 ";
  const auto key = [&](const std::string& key, const std::string& file) {
    return fmt::format("{}='{}' ", key, folder_ / file);
  };
  for (const std::string seed : {"1", "2"}) {
    Expect(0, 1,
           Arguments(steps + "name=of" + seed + " train.seed=" + seed + " " + key("train.record_selection", seed)),
           {"selection  of step 1"});
  }
  const std::string given = steps + key("train.frozen_selection", "1");
  ExpectOfTwo(65, given, key("train.frozen_selection", "2"), {"disagree on the selection", "train.frozen_selection: "});
  WriteTokens("other", 2000, 11);
  ExpectOfTwo(65, given + "parallel.cp=2", key("train.frozen_selection", "2") + key("data.train", "other"),
              {"disagree on the data", "train.frozen_selection: ", "data.train: ", "other) on rank 1"}, "verify");
}

TEST_F(TrainStarts, AnOlderRunIsKept) {
  const std::string keys = Arguments("data.validation_fraction=0 ");
  Expect(0, 4, keys + "parallel.cp=2", {"done: 3 steps"});
  const std::string before = ReadFile(folder_ / "runs/run/metrics.jsonl");
  EXPECT_FALSE(before.empty());
  Expect(78, 1, keys, {"name = \"run\"", "runs/run", "--overwrite"});
  Expect(78, 1, keys + "--dry-run", {"parameters", "name = \"run\""});
  Expect(0, 1, keys + "--dry-run --overwrite", {"parameters"});
  Expect(65, 1, keys + "--overwrite model.vocab=100", {"data.train", "tokens", "model.vocab = 100"});
  EXPECT_EQ(ReadFile(folder_ / "runs/run/metrics.jsonl"), before);
  Expect(0, 1, keys + "--overwrite train.steps=2", {"replaced   the older run", "done: 2 steps"});
  EXPECT_EQ(Metrics().size(), 3U);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "runs/run/profile/rank00000.pb"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs/run/profile/rank00001.pb"));
}

TEST_F(TrainStarts, OneRunOfANameAtATime) {
  const std::string keys = Arguments("data.validation_fraction=0 "), metrics = folder_ / "runs/run/metrics.jsonl";
  // In the background until the second has been refused, or for long enough.
  const std::string first =
      fmt::format("(timeout 60 '{}' {} train.steps=1000000 train.log_interval=1000000 >'{}' 2>&1) &", LONGSPAN_PROGRAM,
                  keys, folder_ / "first");
  ASSERT_EQ(std::system(first.c_str()), 0);
  for (int i = 0; i < 300 && !std::filesystem::exists(metrics); ++i) usleep(100000);
  for (const char* more : {"", "--overwrite"}) {
    Expect(78, 1, keys + more, {"name = \"run\"", "in use by a run that has not ended, pid ", "set name to another"});
  }
  const size_t pid = said_.find("pid ");
  ASSERT_NE(pid, std::string::npos);
  const pid_t running = std::stoi(said_.substr(pid + 4));
  kill(running, SIGTERM);
  for (int i = 0; i < 300 && kill(running, 0) == 0; ++i) usleep(100000);  // it saves before it ends
  EXPECT_GT(Metrics().size(), 0U);
}

TEST_F(TrainStarts, MetricsSayWhatTheRunIs) {
  Expect(0, 2, Arguments("data.validation_fraction=0 data.seed=3 parallel.cp=2"), {"labels/s", "% of peak"});
  const std::vector<json> metrics = Metrics();
  ASSERT_EQ(metrics.size(), 4U);
  const json& start = metrics[0];
  EXPECT_EQ(start["kind"], "start");
  EXPECT_EQ(start["version"].get<std::string>().substr(0, 9), "longspan ");
  EXPECT_NE(start["command"].get<std::string>().find("data.seed=3"), std::string::npos);
  EXPECT_EQ(start["time"].get<std::string>().size(), 20U);
  EXPECT_EQ(start["dp"], 1);
  EXPECT_EQ(start["cp"], 2);
  EXPECT_GT(start["step_tflop"], 0);
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_EQ(metrics[i]["tokens"], 128);
    EXPECT_EQ(metrics[i]["labels"], 126);
    EXPECT_GT(metrics[i]["peak_share"], 0);
    if (i > 1) {
      EXPECT_GT(metrics[i]["elapsed"], metrics[i - 1]["elapsed"]);
    }
  }
  const std::string config = ReadFile(folder_ / "runs/run/config.textproto");
  EXPECT_NE(config.find("dp: 1\n"), std::string::npos);
  EXPECT_NE(config.find("dtype: F32\n"), std::string::npos);
  const json report = json::parse(ReadFile(folder_ / "runs/run/profile/report.json"));
  EXPECT_EQ(report["dp"], 1);
  EXPECT_EQ(report["cp"], 2);
  EXPECT_EQ(report["rank"].size(), 2U);
}

TEST_F(TrainStarts, EvaluationIsSaidAndCanBeOff) {
  const std::string validation = fmt::format("data.validation='{}' ", folder_ / "tokens");
  Expect(0, 1, Arguments(validation), {"done: 3 steps"});
  EXPECT_EQ(said_.find("eval"), std::string::npos) << said_;
  const auto held_out = [&](const std::string& keys) {
    Expect(0, 1, Arguments(validation + "--overwrite train.eval_sequences=4 train.eval_interval=2 " + keys),
           {"evaluating 4 held-out sequences", "eval 2/3 |", "eval 3/3 |"});
    return Metrics().back()["loss"].get<double>();
  };
  // Of the same model: at a rate of almost nothing, training in another order changes nothing.
  const std::string still = "optimizer.learning_rate=1e-30 ";
  EXPECT_EQ(held_out(still + "data.seed=1"), held_out(still + "data.seed=2"));
}

TEST_F(TrainStarts, AFullDiskIsAnError) {
  std::filesystem::create_directories(folder_ / "runs/run");
  std::filesystem::create_symlink("/dev/full", folder_ / "runs/run/metrics.jsonl");
  Expect(74, 2, Arguments("data.validation_fraction=0 parallel.cp=2"),
         {"runs/run/metrics.jsonl", "No space left on device"});
}

TEST_F(TrainStarts, ADatasetThatShrinksEndsTheRunByName) {
  WriteTokens("tokens", 1 << 20, 7);
  const std::string shrink = fmt::format(
      "(for i in $(seq 300); do grep -q '\"step\":3' '{}' && break; sleep 0.1; done; truncate -s 0 '{}') & ",
      folder_ / "runs/run/metrics.jsonl", folder_ / "tokens");
  std::system((shrink + "true").c_str());
  Expect(74, 2, Arguments("data.validation_fraction=0 parallel.cp=2 train.steps=100000 train.log_interval=100000"),
         {"error: [rank ", "tokens: expected the bytes that it had"});
}

TEST_F(TrainStarts, WhatCannotFitIsRefusedAtOnce) {
  Expect(70, 2,
         Arguments("data.validation_fraction=0 parallel.cp=2 model.layers=400 model.hidden=65536 model.ffn=65536"),
         {"out of host memory: the 2 ranks of node", "train.recompute to SELECTIVE or FULL"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs/run/metrics.jsonl"));
}

}  // namespace
}  // namespace longspan
