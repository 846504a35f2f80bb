// Selections that `longspan train` records and takes back, and that `verify` takes, on one and on several ranks.
#include <algorithm>

#include "launch/train/selection_file.h"
#include "tests/launch/train/train_run.h"

namespace longspan {
namespace {

constexpr int64_t kBlock = 8;
// A step of all 82 training sequences, of which the preset's steps of 16 then take some.
constexpr const char* kAll =
    "train.steps=1 optimizer.warmup_steps=0 optimizer.schedule=CONSTANT train.eval_sequences=0 "
    "train.sequences_per_step=82 ";

class FrozenSelectionTest : public testing::Test {
 protected:
  TrainRun Train(int ranks, const std::string& keys) {
    return TrainFibonacci(folder_, ranks, "runtime.device=CPU " + keys);
  }
  std::string Refused(int ranks, const std::string& keys, ExitCode code) {
    std::string said;
    EXPECT_EQ(
        RunProgram(
            folder_, ranks,
            fmt::format("train --overwrite --config '{}/configs/fibonacci.textproto' runtime.device=CPU output='{}' {}",
                        LONGSPAN_SOURCE, folder_ / "runs", keys),
            &said),
        static_cast<int>(code))
        << said;
    return said;
  }
  std::string Key(const std::string& key, const std::string& file) const {
    return fmt::format("train.{}='{}' ", key, folder_ / file);
  }
  // The recorded file, but every query takes the first block and its own alone.
  void Change(const std::string& from, const std::string& to) const {
    const SelectionFile file(folder_ / from, kBlock);
    SelectionWriter writer(kBlock);
    for (const int64_t sequence : file.sequences()) {
      for (const int64_t layer : file.layers(sequence)) {
        const std::string name = SelectionName(sequence, layer);
        const Shape shape = file.shape(name);
        std::vector<int32_t> selected(shape.count(), -1);
        for (int64_t row = 0; row < shape[0] * shape[1]; ++row) {
          const auto own = static_cast<int32_t>(row / shape[1] / kBlock);
          selected[row * shape[2]] = 0;
          if (own > 0) selected[row * shape[2] + 1] = own;
        }
        writer.Add(name, selected, shape);
      }
    }
    writer.Write(folder_ / to);
  }
  TempFolder folder_;
};

// Of the step's sequences, whoever records them and whatever is recomputed; the run goes on as if nothing had been
// recorded.
TEST_F(FrozenSelectionTest, TheFileIsTheSameOnAnyRanks) {
  const std::string steps = "train.steps=3 optimizer.warmup_steps=0 ";
  const TrainRun plain = Train(1, steps);
  const TrainRun one = Train(1, steps + "train.record_step=1 " + Key("record_selection", "one"));
  EXPECT_EQ(one.losses, plain.losses);
  EXPECT_EQ(one.parameters, plain.parameters);
  EXPECT_NE(one.said.find("selection  of step 1, sequences "), std::string::npos) << one.said;
  const std::string bytes = ReadFile(folder_ / "one");
  const SelectionFile file(folder_ / "one", kBlock);
  ASSERT_EQ(file.sequences().size(), 16U);
  EXPECT_EQ(file.layers(file.sequences()[5]), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(file.shape(SelectionName(file.sequences()[5], 1)), (Shape{128, 1, 4}));
  for (const char* const keys :
       {"parallel.cp=4", "parallel.cp=2 parallel.selected_exchange=FETCH train.recompute=FULL",
        "parallel.cp=2 parallel.dp=2 parallel.layout=CONTIGUOUS train.recompute=SELECTIVE train.offload=true"}) {
    Train(4, steps + "train.record_step=1 " + Key("record_selection", "four") + keys);
    EXPECT_EQ(ReadFile(folder_ / "four"), bytes) << keys;
  }
  // The last step is what is recorded if none is named.
  Train(1, steps + Key("record_selection", "last"));
  EXPECT_NE(ReadFile(folder_ / "last"), bytes);
}

TEST_F(FrozenSelectionTest, TakenBackGivesTheSameBits) {
  Train(1, kAll + Key("record_selection", "all"));
  Change("all", "changed");
  const std::string steps = "train.steps=1 optimizer.warmup_steps=0 optimizer.schedule=CONSTANT ";
  std::vector<double> losses;
  for (const auto& [ranks, keys] :
       {std::pair(1, ""), std::pair(2, "parallel.cp=2 train.recompute=FULL"),
        std::pair(4, "parallel.cp=4 parallel.selected_exchange=FETCH"), std::pair(4, "parallel.cp=2 parallel.dp=2")}) {
    const TrainRun own = Train(ranks, steps + keys);
    const TrainRun given = Train(ranks, steps + Key("frozen_selection", "all") + keys);
    EXPECT_EQ(given.losses, own.losses) << keys;
    EXPECT_EQ(given.selections, own.selections) << keys;
    EXPECT_EQ(given.parameters, own.parameters) << keys;
    EXPECT_EQ(given.held_out, own.held_out) << keys << ": held-out sequences choose for themselves";
    // Other lists are another loss: they are what was taken, also in later steps and the same on all ranks.
    const TrainRun changed = Train(ranks, "train.steps=4 optimizer.warmup_steps=0 train.eval_sequences=0 " +
                                              Key("frozen_selection", "changed") + keys);
    EXPECT_NE(changed.losses[0], own.losses[0]) << keys;
    if (losses.empty()) losses = changed.losses;
    ASSERT_EQ(changed.losses.size(), losses.size());
    for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(changed.losses[i], losses[i], 1e-5) << keys << " step " << i;
  }
}

TEST_F(FrozenSelectionTest, VerifyTakesIt) {
  Train(1, kAll + Key("record_selection", "all"));
  Change("all", "changed");
  std::string said;
  const int code = RunProgram(folder_, 2,
                              fmt::format("verify --config '{}/configs/fibonacci.textproto' runtime.device=CPU "
                                          "parallel.cp=2 train.recompute=FULL {}",
                                          LONGSPAN_SOURCE, Key("frozen_selection", "changed")),
                              &said);
  EXPECT_EQ(code, 0) << said;
  EXPECT_NE(said.find("verify: good"), std::string::npos) << said;
}

// Its first sequence may be none of the data's: the file is of other data.
TEST_F(FrozenSelectionTest, VerifyRefusesASequenceThatIsNotThere) {
  const Shape shape = {128, 1, 4};
  for (const int64_t sequence : {int64_t{-1}, int64_t{1} << 40}) {
    SelectionWriter writer(kBlock);
    writer.Add(SelectionName(sequence, 0), std::vector<int32_t>(shape.count(), -1), shape);
    writer.Add(SelectionName(sequence, 1), std::vector<int32_t>(shape.count(), -1), shape);
    writer.Write(folder_ / "other");
    std::string said;
    EXPECT_EQ(RunProgram(folder_, 2,
                         fmt::format("verify --config '{}/configs/fibonacci.textproto' runtime.device=CPU "
                                     "parallel.cp=2 {}",
                                     LONGSPAN_SOURCE, Key("frozen_selection", "other")),
                         &said),
              static_cast<int>(ExitCode::kData))
        << said;
    EXPECT_NE(said.find(fmt::format("other: sequence {}: the training data has sequences 0 to ", sequence)),
              std::string::npos)
        << said;
  }
}

TEST_F(FrozenSelectionTest, RefusesWhatDoesNotFit) {
  Train(1, kAll + Key("record_selection", "all"));
  Train(1,
        "train.steps=1 optimizer.warmup_steps=0 optimizer.schedule=CONSTANT train.eval_sequences=0 "
        "train.sequences_per_step=2 " +
            Key("record_selection", "two"));
  const auto expect = [&](const std::string& keys, const std::string& file, std::initializer_list<const char*> parts) {
    for (const int ranks : {1, 2}) {
      const std::string said =
          Refused(ranks, keys + Key("frozen_selection", file) + fmt::format("parallel.cp={}", ranks), ExitCode::kData);
      for (const char* const part : parts) EXPECT_NE(said.find(part), std::string::npos) << said << "\nlacks " << part;
    }
  };
  const std::string metrics = ReadFile(folder_ / "runs/fibonacci/metrics.jsonl");
  expect("model.layers=3 ", "all", {"all: sequence ", "expected the layers 0, 1, 2", "found 0, 1"});
  expect("model.attention=NSA,FULL ", "all", {"expected the layers 0, whose attention is NSA; found 0, 1"});
  expect("model.nsa.select=5 ", "all", {"layers.0.selected: expected [S,G,N] = [128,1,5], found [128,1,4]"});
  expect("model.kv_heads=2 ", "all", {"expected [S,G,N] = [128,2,4], found [128,1,4]"});
  expect("data.sequence_length=256 ", "all", {"expected [S,G,N] = [256,1,4], found [128,1,4]"});
  expect("model.nsa.select_block=16 ", "all", {"select_block: expected blocks of 16 tokens, found 8"});
  expect("train.steps=2 optimizer.warmup_steps=0 ", "two", {"expected the selections of sequence ", "found those of "});
  // A folder that is not there is told before the first step.
  const std::string said = Refused(1, Key("record_selection", "no/such/folder/file"), ExitCode::kIo);
  EXPECT_EQ(said.find("step 1/"), std::string::npos) << said;
  EXPECT_EQ(ReadFile(folder_ / "runs/fibonacci/metrics.jsonl"), metrics) << "the run before is as it was";
}

}  // namespace
}  // namespace longspan
