// What a checkpoint holds does not depend on how many ranks wrote it, and every number of ranks reads it back. A save
// that fails leaves the one before.
#include "launch/checkpoint/checkpoint.h"

#include <sstream>

#include "launch/checkpoint/reader.h"
#include "launch/config/config.h"
#include "parallel/comm/texts.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

// A float of the place: exact, and another everywhere.
float Pattern(int tensor, int64_t param, int64_t i) { return static_cast<float>(tensor * 4096 + param * 512 + i); }

class CheckpointsTest : public testing::Test {
 protected:
  CheckpointsTest() {
    params_.Add("a", {7, 5}, {0, 1}, true);
    params_.Add("b", {3}, {1, 0}, false);
    params_.Add("c", {40, 3}, {0, 0.5}, true);
    params_.Add("d", {11}, {0, 0}, false);
    optimizer_.emplace(Optimizer::Args{*device_, ops_, *compute_, *comm_, *world_, params_, {}});
    params_.Reserve(arena_, DType::kF32, DType::kF32);
    optimizer_->Reserve(arena_, DType::kF32, DType::kF32);
    arena_.Commit(*device_);
    params_.Bind();
    params_.Initialise(*device_, ops_, *compute_, 3);
    optimizer_->Start(3);
    run_ = GatherTexts(*world_, folder_ / "run")[0];  // rank 0's
    if (world_->rank() == 0) fs::create_directory(run_);
    world_->Barrier();
    config_.checkpoint.keep_last = 2;
  }
  ~CheckpointsTest() override { world_->Barrier(); }

  // Ranks 0 and 1 are on node 0, and so on.
  Checkpoints Make() { return Make(world_->rank() / 2); }
  Checkpoints Make(int node) {
    Manifest about;
    about.config = ConfigText(config_);
    return Checkpoints({.world = *world_,
                        .device = *device_,
                        .compute = *compute_,
                        .optimizer = *optimizer_,
                        .config = config_,
                        .run = run_,
                        .memory = MemoryOf(node),
                        .node = fmt::format("node{}", node),
                        .about = about,
                        .say = [this](const std::string& line) { said_ += line + "\n"; }});
  }
  std::string MemoryOf(int node) const { return fmt::format("{}/memory{}", run_, node); }
  int nodes() const { return (world_->size() + 1) / 2; }
  void RemoveOnce(const std::string& path) {
    world_->Barrier();
    if (world_->rank() == 0) fs::remove_all(path);
    world_->Barrier();
  }
  // Calls visit(tensor, param, i, value) for all that this rank owns.
  template <typename Visit>
  void Each(const Visit& visit) {
    compute_->Synchronize();
    for (const Optimizer::State& state : optimizer_->OwnState()) {
      const auto& all = params_.params();
      const int64_t param =
          std::find_if(all.begin(), all.end(), [&](auto& p) { return p->name == state.name; }) - all.begin();
      int tensor = 0;
      for (const Tensor& x : {state.weight, state.m, state.v}) {
        for (int64_t i = 0; i < x.size(); ++i) visit(tensor, param, i, x.As<float>()[i]);
        ++tensor;
      }
    }
  }
  void Fill(float add = 0) {
    Each([&](int tensor, int64_t param, int64_t i, float& value) { value = Pattern(tensor, param, i) + add; });
  }

  std::unique_ptr<Device> device_ = MakeCpuDevice();
  Ops ops_ = MakeCpuOps();
  std::unique_ptr<Stream> compute_ = device_->MakeStream("compute"), comm_ = device_->MakeStream("comm");
  std::unique_ptr<Communicator> world_ = MakeMpiWorld();
  ParamTable params_;
  Arena arena_;
  std::optional<Optimizer> optimizer_;
  TempFolder folder_;
  RunConfig config_;
  std::string run_, said_;
};

TEST_F(CheckpointsTest, WhateverTheRanks) {
  const RunState state{.step = 3, .sequences = 12, .seconds = 1.5, .graphs = true, .numbers = {{"x", {0.1, 2}}}};
  Fill();
  EXPECT_FALSE(Make().Find());
  EXPECT_TRUE(Make().Save(state));
  CheckpointReader reader(run_ + "/checkpoints/step-00000003");
  for (int64_t p = 0; p < std::ssize(params_.params()); ++p) {
    const Param& param = *params_.params()[p];
    int tensor = 0;
    for (const char* kind : {"weight.", "adamw.m.", "adamw.v."}) {
      std::vector<float> values(param.size()), tail(1);
      reader.Read(kind + param.name, 0, HostView(values.data(), {param.size()}));
      reader.Read(kind + param.name, param.size() - 1, HostView(tail.data(), {1}));
      for (int64_t i = 0; i < param.size(); ++i) ASSERT_EQ(values[i], Pattern(tensor, p, i)) << kind << param.name;
      EXPECT_EQ(tail[0], values.back());
      const Manifest::Entry& entry = reader.manifest().tensors.at(kind + param.name);
      EXPECT_EQ(Shape(entry.shape), param.shape);
      ++tensor;
    }
  }
  world_->Barrier();

  Fill(/*add=*/0.5);
  Checkpoints checkpoints = Make();
  EXPECT_EQ(checkpoints.Find(), state) << said_;
  checkpoints.Load();
  Each([&](int tensor, int64_t param, int64_t i, float value) { ASSERT_EQ(value, Pattern(tensor, param, i)); });
  for (int64_t p = 0; p < std::ssize(params_.params()); ++p) {
    const Tensor& weight = params_.params()[p]->weight;
    for (int64_t i = 0; i < weight.size(); ++i) ASSERT_EQ(weight.As<float>()[i], Pattern(0, p, i));
  }
  EXPECT_TRUE(checkpoints.Save(state));  // is there
  EXPECT_EQ(said_.find("saved"), said_.rfind("saved")) << said_;
}

TEST_F(CheckpointsTest, TheNewestThatIsComplete) {
  for (int64_t step = 1; step <= 3; ++step) {
    Fill(static_cast<float>(step) / 4);
    Make().Save({.step = step});
  }
  if (world_->rank() == 0) {
    EXPECT_FALSE(fs::exists(run_ + "/checkpoints/step-00000001"));
    const auto shard = *fs::directory_iterator(run_ + "/checkpoints/step-00000003");
    fs::remove(shard.path());
  }
  world_->Barrier();
  Checkpoints checkpoints = Make();
  const auto found = checkpoints.Find();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, 2);
  EXPECT_NE(said_.find("warning: checkpoint " + run_ + "/checkpoints/step-00000003 is passed over"), std::string::npos);
  checkpoints.Load();
  Each([&](int tensor, int64_t param, int64_t i, float value) { ASSERT_EQ(value, Pattern(tensor, param, i) + 0.5F); });
  world_->Barrier();
  EXPECT_TRUE(fs::exists(run_ + "/checkpoints/step-00000003.broken"));
  world_->Barrier();
  if (world_->rank() == 0) fs::remove(run_ + "/checkpoints/step-00000002/manifest.json");
  world_->Barrier();
  ExpectError(ExitCode::kData, {"none", "--overwrite"}, [&] { Make().Find(); });
}

TEST_F(CheckpointsTest, AnotherModelIsRefused) {
  Make().Save({.step = 1});
  config_.train.steps = 7;
  EXPECT_TRUE(Make().Find());
  EXPECT_NE(said_.find("changed    train.steps: 200 in the checkpoint, 7 now"), std::string::npos) << said_;
  config_.model.layers = 9;
  ExpectError(ExitCode::kConfig, {"step-00000001", "model.layers: 4 in the checkpoint, 9 now"}, [&] { Make().Find(); });
}

TEST_F(CheckpointsTest, AFailedSaveIsAWarningThreeInARowAnError) {
  Checkpoints checkpoints = Make();
  EXPECT_TRUE(checkpoints.Save({.step = 1}));
  const std::string folder = run_ + "/checkpoints", aside = run_ + "/aside";
  const auto block = [&] {
    if (world_->rank() == 0) {
      fs::rename(folder, aside);
      WriteFile(folder, "a file");
    }
    world_->Barrier();
  };
  const auto unblock = [&] {
    world_->Barrier();
    if (world_->rank() == 0) {
      fs::remove(folder);
      fs::rename(aside, folder);
    }
    world_->Barrier();
  };
  block();
  EXPECT_FALSE(checkpoints.Save({.step = 2}));
  EXPECT_NE(said_.find("warning: step 2 is not saved: "), std::string::npos) << said_;
  EXPECT_FALSE(checkpoints.Save({.step = 3}));
  unblock();
  EXPECT_TRUE(checkpoints.Save({.step = 4}));
  block();
  EXPECT_FALSE(checkpoints.Save({.step = 5}));
  EXPECT_FALSE(checkpoints.Save({.step = 6}));
  ExpectError(ExitCode::kIo, {folder, "3 checkpoints in a row"}, [&] { checkpoints.Save({.step = 7}); });
  unblock();
  EXPECT_EQ(Make().Find()->step, 4);
}

TEST_F(CheckpointsTest, TheRulesOfWhen) {
  config_.train.steps = 10;
  config_.checkpoint = {.interval = 4, .minutes = 0, .at_end = true, .keep_last = 10};
  const auto saved = [&](int64_t steps) {
    said_.clear();
    Checkpoints checkpoints = Make();
    for (int64_t step = 1; step <= steps; ++step) checkpoints.AfterStep({.step = step});
    checkpoints.Finish();
    std::string found;
    for (int64_t step = 1; step <= steps; ++step) {
      if (said_.find(fmt::format("saved step {} ", step)) != std::string::npos) found += fmt::format("{} ", step);
    }
    return found;
  };
  EXPECT_EQ(saved(7), "4 ");
  config_.checkpoint.interval = 0;
  EXPECT_EQ(saved(10), "10 ");
  config_.checkpoint = {.interval = 0, .minutes = 1e-9, .at_end = false};
  EXPECT_EQ(saved(1), "1 ");
  config_.checkpoint.minutes = 1000;
  EXPECT_EQ(saved(10), "");
}

class MemoryTierTest : public CheckpointsTest {
 protected:
  MemoryTierTest() { config_.checkpoint = {.minutes = 0, .at_end = false, .memory_interval = 1}; }
  // Steps [1,last], that of each in the state.
  void Keep(int64_t last) {
    Checkpoints checkpoints = Make();
    checkpoints.Reserve();
    for (int64_t step = 1; step <= last; ++step) {
      Fill(static_cast<float>(step) / 8);
      checkpoints.AfterStep({.step = step});
      checkpoints.Finish();
    }
  }
  void ExpectFound(Checkpoints& checkpoints, int64_t step, bool on_disk) {
    const auto found = checkpoints.Find();
    ASSERT_TRUE(found) << said_;
    EXPECT_EQ(found->step, step) << said_;
    EXPECT_EQ(checkpoints.found_on_disk(), on_disk);
    EXPECT_EQ(said_.find("(in memory)") == std::string::npos, on_disk) << said_;
    Fill(-1);
    checkpoints.Load();
    const float add = static_cast<float>(step) / 8;
    Each([&](int tensor, int64_t param, int64_t i, float value) { ASSERT_EQ(value, Pattern(tensor, param, i) + add); });
    world_->Barrier();
  }
};

TEST_F(MemoryTierTest, TheLastStepOutlivesANode) {
  for (int lost = -1; lost < nodes(); ++lost) {
    said_.clear();
    Keep(3);
    EXPECT_EQ(CheckpointFolder(MemoryOf(world_->rank() / 2)).List().size(), 1U);
    if (lost >= 0) RemoveOnce(MemoryOf(lost));
    Checkpoints checkpoints = Make();
    if (lost >= 0 && nodes() == 1) {
      EXPECT_FALSE(checkpoints.Find());
    } else {
      ExpectFound(checkpoints, 3, /*on_disk=*/false);
    }
    // It goes on, and again no node is needed.
    Fill(0.5);
    checkpoints.Reserve();
    checkpoints.AfterStep({.step = 4});
    checkpoints.Finish();
    if (nodes() > 1) RemoveOnce(MemoryOf((lost + 1) % nodes()));
    said_.clear();
    Checkpoints again = Make();
    ExpectFound(again, 4, /*on_disk=*/false);
    again.Forget();
    world_->Barrier();
    for (int node = 0; node < nodes(); ++node) EXPECT_FALSE(fs::exists(MemoryOf(node)));
    world_->Barrier();
  }
}

// Ranks come to other nodes than before.
TEST_F(MemoryTierTest, FilesAreBroughtToWhoNeedsThem) {
  Keep(2);
  Checkpoints checkpoints = Make((world_->size() - 1 - world_->rank()) / 2);
  ExpectFound(checkpoints, 2, /*on_disk=*/false);
}

// Two nodes that follow each other hold all that there is of the first one's part.
TEST_F(MemoryTierTest, WhatIsNotCompleteIsPassedOver) {
  config_.checkpoint.interval = 2;
  Keep(3);
  RemoveOnce(MemoryOf(0));
  if (nodes() > 1) RemoveOnce(MemoryOf(1));
  if (nodes() > 2) {
    Checkpoints checkpoints = Make();
    ExpectFound(checkpoints, 2, /*on_disk=*/true);
    EXPECT_NE(said_.find("step-00000003 is passed over: "), std::string::npos) << said_;
    EXPECT_NE(said_.find("shard-0000"), std::string::npos) << said_;
    EXPECT_TRUE(fs::exists(run_ + "/checkpoints/step-00000002"));
    EXPECT_TRUE(CheckpointFolder(MemoryOf(world_->rank() / 2)).List().empty());
  }
}

TEST_F(MemoryTierTest, BytesThatWereChangedAreNotTaken) {
  config_.checkpoint.interval = 2;
  Keep(3);
  if (world_->rank() == 0) {
    for (const auto& entry : fs::recursive_directory_iterator(run_)) {
      const std::string path = entry.path();
      if (path.find("/memory") == std::string::npos || entry.path().filename() != "shard-00000.safetensors") continue;
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(-3, std::ios::end);
      file.put('\x55');
    }
  }
  world_->Barrier();
  Checkpoints checkpoints = Make();
  ExpectFound(checkpoints, 2, /*on_disk=*/true);
  EXPECT_NE(said_.find("shard-00000.safetensors: expected the checksum"), std::string::npos) << said_;
}

TEST_F(MemoryTierTest, ItsFilesAreCounted) {
  const int64_t own = optimizer_->own_state_bytes();
  EXPECT_GE(Make().MemoryBytes(), 2 * own);
  if (nodes() == 1) {
    EXPECT_EQ(Make().MemoryBytes(), 2 * own);
  }
  Keep(2);
  int64_t bytes = 0;  // of this node, without headers and manifests
  for (const auto& entry : fs::recursive_directory_iterator(MemoryOf(world_->rank() / 2))) {
    if (entry.path().extension() == ".safetensors") bytes += static_cast<int64_t>(entry.file_size());
  }
  int64_t planned = 0;
  const std::string text = fmt::format("{} {}", world_->rank() / 2, Make().MemoryBytes() / 2);
  for (const std::string& each : GatherTexts(*world_, text)) {
    std::istringstream said(each);
    int64_t node = 0, one = 0;
    said >> node >> one;
    if (node == world_->rank() / 2) planned += one;
  }
  EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(planned), 8192);
  config_.checkpoint.memory_interval = 0;
  EXPECT_EQ(Make().MemoryBytes(), 0);
}

// No step counts before its line of the metrics is on the disk.
TEST_F(CheckpointsTest, TheMetricsComeFirst) {
  const std::string metrics = run_ + "/metrics.jsonl";
  if (world_->rank() == 0) fs::create_symlink("metrics.jsonl", metrics);  // which cannot be opened
  world_->Barrier();
  EXPECT_FALSE(Make().Save({.step = 1}));
  EXPECT_NE(said_.find("warning: step 1 is not saved: "), std::string::npos) << said_;
  EXPECT_NE(said_.find(metrics), std::string::npos) << said_;
  EXPECT_TRUE(CheckpointFolder(run_ + "/checkpoints").List().empty());
}

// What is saved is the state of its step, whatever comes after, also with streams that run as late as they may; of
// saves that come too fast one waits, others are skipped.
TEST_F(CheckpointsTest, TrainingGoesOnBehindASave) {
  SetCpuStreamMode(CpuStreamMode::kReorder, 5);
  compute_ = device_->MakeStream("compute");
  optimizer_.emplace(Optimizer::Args{*device_, ops_, *compute_, *comm_, *world_, params_, {}});
  Arena arena;
  optimizer_->Reserve(arena, DType::kF32, DType::kF32);
  arena.Commit(*device_);
  {
    config_.checkpoint = {.interval = 1, .minutes = 0, .at_end = false, .keep_last = 100};
    Checkpoints checkpoints = Make();
    checkpoints.Reserve();
    const auto states = optimizer_->OwnState();
    const auto update = [&](float value) {
      checkpoints.BeforeUpdate();
      compute_->Enqueue([&states, value] {
        for (const Optimizer::State& state : states) std::fill_n(state.v.As<float>(), state.v.size(), value);
      });
    };
    for (int64_t step = 1; step <= 40; ++step) {
      update(static_cast<float>(step));
      checkpoints.AfterStep({.step = step});
    }
    update(-1);
    checkpoints.Finish();
    compute_->Synchronize();
  }
  SetCpuStreamMode(CpuStreamMode::kImmediate);
  EXPECT_NE(said_.find("is still being written, and step"), std::string::npos) << said_;
  const auto list = CheckpointFolder(run_ + "/checkpoints").List();
  EXPECT_GE(list.size(), 2U);
  for (const auto& found : list) {
    CheckpointReader reader(found.path);
    std::vector<float> values(120);
    reader.Read("adamw.v.c", 0, HostView(values.data(), {120}));
    ASSERT_EQ(values, std::vector<float>(120, static_cast<float>(found.step)));
  }
}

}  // namespace
}  // namespace longspan
