// A run that was interrupted and resumed is the unbroken run, bit for bit; on other ranks it goes on where it was.
#include <csignal>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/reader.h"
#include "tests/launch/train/interrupted_run.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

class Resume : public InterruptedRun {
 protected:
  std::string Checkpoint(const std::string& name, int step) {
    return folder_ / fmt::format("runs/{}/checkpoints/step-{:08}", name, step);
  }
  // What parallel.selected_exchange = AUTO had chosen.
  std::string Chosen(int step) {
    const CheckpointReader saved(Checkpoint("run", step));
    return saved.manifest().state.numbers.at("fetches").at(0) > 0 ? "FETCH" : "GATHER";
  }
  void Flip(const std::string& path, int64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char byte = static_cast<char>(file.get() ^ 4);
    file.seekp(at);
    file.put(byte);
  }
};

TEST_F(Resume, FortyStepsAreSeventeenAndTwentyThree) {
  const std::string keys =
      "data.validation_fraction=0 train.steps=40 checkpoint.interval=17 optimizer.schedule=COSINE parallel.cp=2 ";
  for (const char* more : {"parallel.selected_exchange=AUTO train.sequences_per_step=4 checkpoint.background=false",
                           "parallel.selected_exchange=FETCH train.recompute=SELECTIVE train.sequences_per_step=64"}) {
    fs::remove_all(folder_ / "runs");
    Expect(0, 4, Arguments(keys + more + " name=whole"), {"saved step 17 ", "saved step 34 ", "saved step 40 "});
    const std::string whole = Parameters();
    Kill(4, Arguments(keys + more), /*all=*/true,
         [&] { return fs::exists(Checkpoint("run", 17)) && LastStep() >= 21; });
    const int64_t last = LastStep();
    ASSERT_LT(last, 34);
    Expect(78, 4, Arguments(keys + more), {"older run", "--resume", "--overwrite"});
    const bool left_open = std::string(more).find("AUTO") != std::string::npos;
    const std::string says = "  exchange   as the checkpoint says: " + (left_open ? Chosen(17) : "");
    Expect(0, 4, Arguments(keys + more + " --resume"), {"step-00000017, after step 17", "done: 23 steps"});
    EXPECT_EQ(said_.find(says) != std::string::npos, left_open) << said_;
    EXPECT_EQ(Parameters(), whole);
    EXPECT_EQ(Steps("run"), Steps("whole"));
    EXPECT_EQ(Steps("run").size(), 40U);
    EXPECT_EQ(Lines("run", "lost"), last - 17);
    EXPECT_EQ(Lines("run", "resume"), 1);
    for (const auto& line : Metrics("run")) {
      if (line["kind"] != "resume") continue;
      EXPECT_EQ(line["lost_steps"], last - 17);
      EXPECT_GT(line["lost_seconds"], 0);
      EXPECT_GT(line["start_seconds"], 0);
      EXPECT_GE(line["down_seconds"], line["start_seconds"]);  // it was started after the other was killed
    }
    EXPECT_NE(said_.find("  restart    "), std::string::npos);
    const CheckpointReader unbroken(Checkpoint("whole", 40)), resumed(Checkpoint("run", 40));
    EXPECT_EQ(unbroken.manifest().files, resumed.manifest().files);
    Expect(0, 4, Arguments(keys + more + " --resume"), {"done already"});
  }
}

TEST_F(Resume, BeforeAnyCheckpointFromTheFirstStep) {
  const std::string keys = "data.validation_fraction=0 train.steps=30 ";
  Expect(0, 1, Arguments(keys + "name=whole"), {"done: 30 steps"});
  const std::string whole = Parameters();
  Kill(1, Arguments(keys + "train.steps=100000 checkpoint.minutes=0"), true, [&] { return LastStep() >= 5; });
  Expect(0, 1, Arguments(keys + "--resume"), {"no checkpoint: from the first step", "done: 30 steps"});
  EXPECT_EQ(Parameters(), whole);
  EXPECT_EQ(Steps("run"), Steps("whole"));
  Expect(0, 1, Arguments(keys + "train.steps=35 --resume"), {"changed    train.steps: 30", "done: 5 steps"});
  Expect(78, 1, Arguments(keys + "train.steps=20 --resume"), {"train.steps = 20", "has done 35"});
  Expect(64, 1, Arguments(keys + "--resume --overwrite"), {"excludes"});
  Expect(0, 1, Arguments(keys + "train.steps=3 --overwrite"), {"done: 3 steps"});
  EXPECT_FALSE(fs::exists(Checkpoint("run", 35)));
}

// Its order is a function of the place: the same after a resume and on other ranks.
TEST_F(Resume, ABlendGoesOnInItsOrder) {
  WriteTokens("few", 400, 3);
  const std::string blend = fmt::format("3 {},1 {}", folder_ / "tokens", folder_ / "few");
  const std::string keys = fmt::format("data.train= 'data.blend={}' data.validation_fraction=0 ", blend);
  Expect(0, 1, Arguments(keys + "train.steps=12 name=whole"),
         {"2 datasets blended", "75.0%", "epochs 0.5", "done: 12"});
  const std::string whole = Parameters();
  Expect(0, 1, Arguments(keys + "train.steps=5"), {"done: 5 steps"});
  Expect(0, 1, Arguments(keys + "train.steps=12 --resume"), {"done: 7 steps"});
  EXPECT_EQ(Parameters(), whole);
  EXPECT_EQ(Steps("run"), Steps("whole"));
  Expect(0, 2, Arguments(keys + "train.steps=12 name=two"), {"done: 12"});
  std::vector<nlohmann::json> one = Metrics("whole"), two = Metrics("two");
  ASSERT_EQ(one.size(), two.size());
  for (size_t i = 0; i < one.size(); ++i) {
    if (one[i]["kind"] != "step") continue;
    EXPECT_EQ(one[i]["epochs"], two[i]["epochs"]);
    EXPECT_EQ(one[i]["labels"], two[i]["labels"]);
    EXPECT_NEAR(one[i]["loss"].get<double>(), two[i]["loss"].get<double>(), 1e-4);
  }
  Expect(78, 1,
         Arguments(fmt::format("data.train= 'data.blend=1 {0},1 {0}' data.validation_fraction=0 --resume",
                               folder_ / "tokens")),
         {"data.blend"});
}

// Short sequences first, then long ones: ended within a stage, between two and resumed, it is the unbroken run.
TEST_F(Resume, StagesOfSequenceLengths) {
  const std::string keys = "data.validation_fraction=0 'data.stages=32 6 4,48 7 2' train.steps=20 ";
  Expect(0, 1, Arguments(keys + "name=whole"),
         {"of 32", "stage 1 of 3: steps 1 to 6", "stage 1 of 3 done after step 6", "of 48",
          "stage 2 of 3 done after step 13", "of 64", "stage 3 of 3: steps 14 to 20", "step 20/20", "saved step 20"});
  const std::string whole = Parameters();
  const auto tokens = [&](const std::string& name) {
    std::vector<int64_t> counts;
    for (const auto& line : Metrics(name)) {
      if (line["kind"] == "step") counts.push_back(line["tokens"]);
    }
    return counts;
  };
  std::vector<int64_t> expected(6, 128);
  expected.resize(13, 96);
  expected.resize(20, 128);
  EXPECT_EQ(tokens("whole"), expected);
  EXPECT_EQ(Steps("whole").size(), 20U);

  // It ends within each of the stages, and goes on.
  for (const int64_t steps : {4, 6, 9, 15, 20}) {
    const std::string more = fmt::format("train.steps={} {}", steps, steps > 4 ? "--resume" : "");
    Expect(0, 1, Arguments(keys + more), {fmt::format("step {0}/{0}", steps)});
    if (steps > 6) {  // the data of the stages before may be gone
      EXPECT_EQ(said_.find("stage 1 of"), std::string::npos) << said_;
    }
  }
  EXPECT_EQ(Parameters(), whole);
  EXPECT_EQ(Steps("run"), Steps("whole"));
  Expect(0, 1, Arguments(keys + "--resume"), {"done already"});
  Expect(0, 2, Arguments(keys + "name=two"), {"step 20/20"});
  EXPECT_EQ(tokens("two"), expected);
  Expect(78, 1, Arguments("data.validation_fraction=0 'data.stages=32 6 4,48 8 2' train.steps=25 --resume"),
         {"data.stages"});
  // The newest saves are of a later stage, and broken.
  Expect(0, 1, Arguments(keys + "name=back checkpoint.interval=4 checkpoint.keep_last=9 train.steps=7"),
         {"saved step 7"});
  for (const int step : {6, 7}) Flip(Checkpoint("back", step) + "/shard-00000.safetensors", 1000);
  Expect(0, 1, Arguments(keys + "name=back --resume"), {"after step 4", "stage 1 of 3", "step 20/20"});
  EXPECT_EQ(Parameters(), whole);
}

// What is in memory alone reaches the disk before the run ends, however it ends.
TEST_F(Resume, FromMemoryToTheDisk) {
  const std::string keys =
      "data.validation_fraction=0 checkpoint.memory_interval=5 checkpoint.minutes=0 parallel.cp=2 ";
  const auto place = [&] {
    const std::string id = ReadFile(folder_ / "runs/run/id");
    return "/dev/shm/longspan-" + id.substr(0, id.find('\n'));
  };
  const auto kept = [&] {
    const auto found = CheckpointFolder(place()).List();
    return found.empty() ? 0 : found[0].step;
  };
  for (const bool stops : {false, true}) {
    fs::remove_all(folder_ / "runs");
    Kill(2, Arguments(keys + "train.steps=100000"), /*all=*/true, [&] { return kept() >= 10; });
    const int64_t step = kept();
    EXPECT_TRUE(CheckpointFolder(folder_ / "runs/run/checkpoints").List().empty());
    const std::string saved = fmt::format("saved step {} ", step);
    if (stops) {
      Expect(75, 2, Arguments(keys + "train.steps=100000 train.max_minutes=1e-9 --resume"),
             {"stopped by train.max_minutes"});
      EXPECT_EQ(kept(), step);  // before it was loaded
      Expect(0, 2, Arguments(keys + fmt::format("train.steps={} --resume", step + 1)), {"(in memory)", "done: 1 step"});
    } else {
      Expect(0, 2, Arguments(keys + fmt::format("train.steps={} --resume", step)),
             {fmt::format("(in memory), after step {}", step), saved, "done: 0 steps"});
      Expect(0, 2, Arguments(keys + fmt::format("train.steps={} --resume", step)), {"done already"});
    }
    EXPECT_FALSE(fs::exists(place()));
  }
}

TEST_F(Resume, FourRanksTwoEightOne) {
  const std::string keys =
      "data.validation_fraction=0 train.sequences_per_step=8 data.sequence_length=128 optimizer.learning_rate=1e-3 ";
  Expect(0, 1, Arguments(keys + "train.steps=20 name=whole"), {"done: 20 steps"});
  Expect(0, 4, Arguments(keys + "train.steps=5 parallel.cp=2"), {"done: 5 steps"});
  Expect(0, 2, Arguments(keys + "train.steps=10 parallel.cp=2 parallel.layout=CONTIGUOUS --resume"),
         {"changed    parallel.dp: 2 in the checkpoint, 1 now", "changed    parallel.layout", "done: 5 steps"});
  Expect(0, 8, Arguments(keys + "train.steps=15 parallel.cp=4 --resume"), {"after step 10", "done: 5 steps"});
  Expect(0, 1, Arguments(keys + "train.steps=20 --resume"), {"after step 15", "done: 5 steps"});
  std::vector<double> losses, whole;
  for (const auto& line : Metrics("run")) {
    if (line["kind"] == "step") losses.push_back(line["loss"]);
  }
  for (const auto& line : Metrics("whole")) {
    if (line["kind"] == "step") whole.push_back(line["loss"]);
  }
  ASSERT_EQ(losses.size(), 20U);
  for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(losses[i], whole[i], 1e-5) << "step " << i + 1;
}

// Other batches go on at the next sequence.
TEST_F(Resume, TheDataGoesOnAtItsPlace) {
  const std::string keys = "data.validation_fraction=0 optimizer.learning_rate=1e-30 ";
  Expect(0, 1, Arguments(keys + "train.steps=7 train.sequences_per_step=4 name=whole"), {});
  Expect(0, 1, Arguments(keys + "train.steps=2 train.sequences_per_step=6"), {});
  Expect(0, 1, Arguments(keys + "train.steps=6 train.sequences_per_step=4 --resume"), {"train.sequences_per_step: 6"});
  const auto a = Metrics("whole"), b = Metrics("run");
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(a[4 + i]["loss"], b[4 + i]["loss"], 1e-12) << i;  // b: start, 2 steps, resume
}

TEST_F(Resume, WhatDoesNotFitIsRefused) {
  const std::string keys = "data.validation_fraction=0 ";
  Expect(0, 1, Arguments(keys), {"done: 3 steps"});
  Expect(0, 1, Arguments(keys + "--resume --dry-run --world 2 parallel.cp=2 train.steps=9"),
         {"step-00000003, after step 3", "changed    parallel.cp: 1 in the checkpoint, 2 now", "changed    train.steps",
          "by 1 rank = dp 1 x cp 1"});
  Expect(78, 1, Arguments(keys + "--resume --dry-run model.layers=2"), {"model.layers: 1 in the checkpoint, 2 now"});
  Expect(78, 1, Arguments(keys + "--resume --dry-run train.steps=2"), {"train.steps = 2", "has done 3"});
  Expect(0, 1, Arguments(keys + "--resume --dry-run name=new"), {"there is no checkpoint"});
  Flip(Checkpoint("run", 3) + "/shard-00000.safetensors", 3000);
  Expect(65, 1, Arguments(keys + "--resume --dry-run"), {"shard-00000.safetensors", "none of the checkpoint"});
  Flip(Checkpoint("run", 3) + "/shard-00000.safetensors", 3000);
  WriteTokens("tokens", 2000, 11);
  Expect(78, 2, Arguments(keys + "parallel.cp=2 --resume model.layers=2 data.seed=3 train.steps=9"),
         {"does not fit", "model.layers: 1 in the checkpoint, 2 now", "data.seed: 1 in the checkpoint, 3 now",
          "data.train: nanoGPT", "tokens) now"});
  EXPECT_EQ(said_.find("train.steps:"), std::string::npos) << said_;
}

TEST_F(Resume, BrokenCheckpointsArePassedOver) {
  const std::string keys =
      "data.validation_fraction=0 train.steps=12 checkpoint.interval=4 checkpoint.background=false parallel.cp=2 ";
  Expect(0, 2, Arguments(keys), {"saved step 12"});
  const std::string whole = Parameters(), newest = Checkpoint("run", 12);
  const std::string shard = newest + "/shard-00001.safetensors", manifest = newest + "/manifest.json";
  struct Damage {
    std::string file;
    std::function<void()> make;
    std::string reason;
  };
  const std::vector<Damage> damages = {
      {shard, [&] { fs::resize_file(shard, fs::file_size(shard) - 1); }, "expected"},
      {shard, [&] { Flip(shard, static_cast<int64_t>(fs::file_size(shard)) - 5); }, "expected the checksum"},
      {shard, [&] { fs::remove(shard); }, "No such file"},
      {manifest, [&] { Flip(manifest, static_cast<int64_t>(fs::file_size(manifest)) / 2); }, ""},
      {manifest, [&] { fs::remove(manifest); }, "No such file"},
      {manifest, [&] { fs::resize_file(manifest, 100); }, "JSON"},
  };
  for (const Damage& damage : damages) {
    damage.make();
    Expect(fs::exists(manifest) ? 65 : 74, 1, fmt::format("checkpoint verify '{}'", newest),
           {damage.file, damage.reason});
    Expect(
        0, 2, Arguments(keys + "--resume"),
        {"warning: checkpoint " + newest + " is passed over: ", damage.file, damage.reason, "after step 8", "done: 4"});
    EXPECT_EQ(Parameters(), whole);
    EXPECT_TRUE(fs::exists(newest + ".broken"));
    Expect(0, 1, fmt::format("checkpoint verify '{}'", folder_ / "runs/run"), {newest, "complete"});
  }
  Expect(0, 1, fmt::format("checkpoint info '{}'", folder_ / "runs/run"),
         {"step         12", "weight.embedding", "layers: 1"});
  for (const int step : {8, 12}) fs::remove(Checkpoint("run", step) + "/manifest.json");
  Expect(65, 2, Arguments(keys + "--resume"), {"step-00000012", "step-00000008", "none of the 2 checkpoints"});
}

TEST_F(Resume, AFailedSaveIsAWarning) {
  const std::string keys = "data.validation_fraction=0 checkpoint.interval=1 checkpoint.background=false ",
                    small = folder_ / "small";
  // A small disk: two checkpoints fit, the third does not.
  fs::create_directory(small);
  if (std::system(fmt::format("mount -t tmpfs -o size=400k tmpfs '{}' 2>/dev/null", small).c_str()) != 0) {
    GTEST_SKIP() << "may not mount a small disk";
  }
  const std::string here = Arguments(keys) + fmt::format(" output='{}'", small);
  Expect(0, 2, here + " parallel.cp=2 train.steps=4 checkpoint.at_end=false",
         {"warning: step 4 is not saved: ", "No space left on device", "done: 4 steps"});
  Expect(74, 2, here + " parallel.cp=2 train.steps=9 --resume", {"3 checkpoints in a row", "No space left"});
  Expect(0, 1, fmt::format("checkpoint verify '{}'", small + "/run"), {"complete"});
  EXPECT_EQ(std::system(fmt::format("umount '{}'", small).c_str()), 0);
}

TEST_F(Resume, AReadOnlyFolderIsAWarning) {
  const std::string checkpoints = folder_ / "runs/run/checkpoints";
  fs::create_directories(checkpoints);
  if (std::system(fmt::format("mount -t tmpfs -o ro tmpfs '{}' 2>/dev/null", checkpoints).c_str()) != 0) {
    GTEST_SKIP() << "may not mount a read-only disk";
  }
  const std::string keys = "data.validation_fraction=0 checkpoint.interval=1 checkpoint.at_end=false ";
  Expect(0, 1, Arguments(keys + "train.steps=2 checkpoint.background=false"),
         {"warning: step 1 is not saved: ", "warning: step 2 is not saved: ", "Read-only", "done: 2 steps"});
  Expect(74, 2, Arguments(keys + "train.steps=2000 parallel.cp=2 --overwrite"),
         {"3 checkpoints in a row", "Read-only"});
  EXPECT_EQ(std::system(fmt::format("umount '{}'", checkpoints).c_str()), 0);
}

// Whoever takes the folder away does not stop the run.
TEST_F(Resume, AFolderThatVanishes) {
  const std::string checkpoints = folder_ / "runs/run/checkpoints";
  std::thread remover([&] {
    Wait([&] { return fs::exists(checkpoints + "/step-00000020"); });
    std::error_code error;
    for (int i = 0; i < 50; ++i) fs::remove_all(checkpoints, error);
  });
  Expect(0, 2,
         Arguments("data.validation_fraction=0 parallel.cp=2 train.steps=300 checkpoint.interval=10 "
                   "checkpoint.background=false"),
         {"done: 300 steps", "saved step 300"});
  remover.join();
  Expect(0, 1, fmt::format("checkpoint verify '{}'", checkpoints), {"step-00000300: complete"});
}

}  // namespace
}  // namespace longspan
