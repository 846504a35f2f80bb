// The rules between the values of a configuration: each broken alone, and what it is told.
#include "launch/config/rules.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "launch/config/blend.h"
#include "launch/config/stages.h"
#include "model/training/schedule.h"

namespace longspan {
namespace {

struct Case {
  std::function<void(RunConfig&)> change;
  std::vector<std::string> told;  // parts of the one problem
  int64_t world = 0;
};

RunConfig Good() {
  RunConfig config;
  config.data.train = "data/train";
  return config;
}

void Expect(const std::vector<Case>& cases) {
  for (size_t i = 0; i < cases.size(); ++i) {
    RunConfig config = Good();
    cases[i].change(config);
    const std::vector<std::string> problems = Problems(config, cases[i].world);
    std::string all;
    for (const std::string& problem : problems) all += problem + "\n";
    EXPECT_EQ(problems.size(), 1u) << "case " << i << ":\n" << all;
    for (const std::string& part : cases[i].told) {
      EXPECT_NE(all.find(part), std::string::npos) << "case " << i << ": " << part << "\nis not in\n" << all;
    }
  }
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(ConfigRules, DefaultsAreGoodOnceThereIsData) {
  EXPECT_TRUE(Problems(Good(), 0).empty());
  EXPECT_TRUE(Problems(Good(), 1).empty());
  EXPECT_TRUE(Problems(Good(), 2).empty());
}

TEST(ConfigRules, EntriesOfABlend) {
  const auto read = [](const std::string& entry) {
    BlendPart part;
    EXPECT_EQ(ReadBlendEntry(entry, &part), "") << entry;
    return part;
  };
  EXPECT_EQ(read("0.25 data/my code").weight, 0.25);
  EXPECT_EQ(read("  3  data/my code ").train, "data/my code");
  EXPECT_EQ(read("1 a b validation=c d").train, "a b");
  EXPECT_EQ(read("1 a b validation=c d").validation, "c d");
  EXPECT_EQ(read("1e3 a validation_fraction=0.5").validation_fraction, 0.5);
  for (const auto& [entry, told] :
       std::initializer_list<std::array<const char*, 2>>{{"", "WEIGHT PATH"},
                                                         {"0.5", "WEIGHT PATH"},
                                                         {"data/code", "WEIGHT PATH"},
                                                         {"x data/code", "weight above 0, found x"},
                                                         {"0 a", "weight above 0, found 0"},
                                                         {"-1 a", "found -1"},
                                                         {"nan a", "found nan"},
                                                         {"inf a", "found inf"},
                                                         {"1 a validation=", "no path after validation="},
                                                         {"1 a validation_fraction=1", "0 to below 1, found 1"},
                                                         {"1 a validation_fraction=x", "found x"},
                                                         {"1 a validation b", "WEIGHT PATH"},
                                                         {"1 a validation=b validation_fraction=0.1", "found both"},
                                                         {"1 a validation_fraction=0.1 validation=b", "found both"},
                                                         {"1 validation=b", "WEIGHT PATH"}}) {
    RunConfig config;
    config.data.blend = {"1 good", entry};
    const std::vector<std::string> problems = Problems(config, 0);
    ASSERT_EQ(problems.size(), 1U) << entry;
    EXPECT_NE(problems[0].find(told), std::string::npos) << problems[0];
    EXPECT_NE(problems[0].find(std::string("data.blend = \"") + entry), std::string::npos) << problems[0];
  }
}

TEST(ConfigRules, Stages) {
  RunConfig config = Good();
  config.data.sequence_length = 2048;
  config.data.stages = {"256 10 8", " 1024  20 4"};
  EXPECT_TRUE(Problems(config, 2).empty());
  const std::vector<Stage> stages = StagesOf(config);
  ASSERT_EQ(stages.size(), 3U);
  EXPECT_EQ(stages[1].first_step, 11);
  EXPECT_EQ(stages[1].last_step, 30);
  EXPECT_EQ(stages[1].sequences_before, 80);
  EXPECT_EQ(stages[2].sequences_before, 160);
  EXPECT_EQ(stages[2].last_step, 200);
  EXPECT_EQ(AtStage(config, stages[1]).data.sequence_length, 1024);
  EXPECT_EQ(AtStage(config, stages[1]).train.sequences_per_step, 4);
  for (const auto& [step, stage] : {std::pair{1, 0}, {10, 0}, {11, 1}, {30, 1}, {31, 2}, {200, 2}, {201, 2}}) {
    EXPECT_EQ(StageOfStep(stages, step), static_cast<size_t>(stage)) << step;
  }
  config.train.steps = 30;
  EXPECT_EQ(StagesOf(config).size(), 2U);
  config.train.steps = 4;
  ASSERT_EQ(StagesOf(config).size(), 1U);
  EXPECT_EQ(StagesOf(config)[0].last_step, 4);
  const auto with = [](const char* stage) { return [stage](RunConfig& c) { c.data.stages = {stage}; }; };
  Expect({{with("256 10"), {"data.stages = \"256 10\": expected", "three whole numbers"}},
          {with(""), {"three whole numbers"}},
          {with("256 10 8 2"), {"three whole numbers"}},
          {with("256 10 x"), {"three whole numbers"}},
          {with("256 -1 2"), {"three whole numbers"}},
          {with("256 10 99999999999999"), {"three whole numbers"}},
          {with("2048 10 2"), {"data.stages and data.sequence_length = 2048 disagree"}},
          {with("250 10 2"), {"data.stages = \"250 10 2\": data.sequence_length = 250 and model.nsa.stride"}},
          {with("256 10 3"), {"data.stages = \"256 10 3\": train.sequences_per_step = 3"}, 2},
          {[](auto& c) {
             c.data.stages = {"512 10 2", "256 10 2"};
           },
           {"\"256 10 2\": must be longer than the stage before"}},
          {[](auto& c) {
             c.data.stages = {"256 10 2"};
             c.train.record_selection = "x";
           },
           {"data.stages and train.record_selection = \"x\" disagree"}},
          {[](auto& c) {
             c.data.format = DataFormat::kRetrieval;
             c.data.stages = {"128 10 2"};
           },
           {"data.stages = \"128 10 2\": data.sequence_length = 128 and data.format = RETRIEVAL disagree"}}});
}

TEST(ConfigRules, Runtime) {
  Expect({{[](auto& c) {
             c.runtime.device = RuntimeDevice::kCpu;
             c.runtime.dtype = RuntimeType::kBf16;
           },
           {"runtime.device = CPU and runtime.dtype = BF16 disagree"}},
          {[](auto& c) {
             c.runtime.graphs = Graphs::kOn;
             c.parallel.transport = Transport::kStaged;
           },
           {"runtime.graphs = ON and parallel.transport = STAGED disagree", "to AUTO"}},
          {[](auto& c) {
             c.runtime.graphs = Graphs::kOn;
             c.parallel.selected_exchange = SelectedExchange::kFetch;
             c.parallel.cp = 2;
           },
           {"runtime.graphs = ON and parallel.selected_exchange = FETCH disagree", "to AUTO", "to GATHER"},
           2}});
  RunConfig gathers = Good();
  gathers.runtime.graphs = Graphs::kOn;
  gathers.parallel.selected_exchange = SelectedExchange::kAuto;  // then it is GATHER
  gathers.parallel.cp = 2;
  EXPECT_TRUE(Problems(gathers, 2).empty());
}

TEST(ConfigRules, Selections) {
  Expect({{[](auto& c) {
             c.train.record_selection = "file";
             c.model.attention = {AttentionKind::kFull};
           },
           {"train.record_selection = \"file\" and model.attention disagree", "no layer selects"}},
          {[](auto& c) {
             c.train.frozen_selection = "file";
             c.model.attention = {AttentionKind::kWindow};
           },
           {"train.frozen_selection = \"file\" and model.attention disagree", "no layer selects"}},
          {[](auto& c) { c.train.record_selection = c.train.frozen_selection = "file"; }, {"leave one empty"}},
          {[](auto& c) { c.train.record_step = 3; }, {"train.record_step = 3", "nothing is recorded"}},
          {[](auto& c) {
             c.train.record_selection = "file";
             c.train.record_step = 201;
           },
           {"train.record_step = 201 and train.steps = 200 disagree", "200 or less"}},
          {[](auto& c) {
             c.train.record_selection = "file";
             c.train.record_step = -1;
           },
           {"train.record_step = -1"}}});
}

TEST(ConfigRules, Nsa) {
  Expect({
      {[](auto& c) { c.model.nsa.block = 24; },
       {"model.nsa.stride = 16 and model.nsa.block = 24 disagree", "set model.nsa.block to 16 or 32"}},
      {[](auto& c) { c.model.nsa.select_block = 72; },
       {"model.nsa.stride = 16 and model.nsa.select_block = 72 disagree", "to 64 or 80"}},
      {[](auto& c) { c.model.nsa.select_block = 16; },
       {"model.nsa.block = 32 and model.nsa.select_block = 16 disagree", "to 16 or less"}},
      {[](auto& c) { c.model.nsa.init = 15; },
       {"model.nsa.select = 16 and model.nsa.init + model.nsa.local = 17 disagree", "to 17 or more"}},
      {[](auto& c) { c.model.nsa.block = 0; }, {"model.nsa.block = 0: must be 1 to"}},
      {[](auto& c) { c.model.nsa.stride = -16; }, {"model.nsa.stride = -16"}},
      {[](auto& c) { c.model.nsa.select = 0; }, {"model.nsa.select = 0"}},
      {[](auto& c) { c.model.nsa.init = -1; }, {"model.nsa.init = -1: must be 0 to"}},
      {[](auto& c) { c.model.nsa.window = 0; }, {"model.nsa.window = 0"}},
      {[](auto& c) { c.model.nsa.select = int64_t{1} << 40; }, {"model.nsa.select = 1099511627776", "2147483647"}},
      {[](auto& c) { c.model.nsa.phi_hidden = -1; }, {"model.nsa.phi_hidden = -1"}},
  });
  NsaConfig nsa;
  nsa.init = nsa.local = 0;
  nsa.select = nsa.window = 1;
  nsa.block = nsa.stride = nsa.select_block = 1;
  EXPECT_TRUE(Problems(nsa, "").empty());
  nsa.window = 0;
  EXPECT_EQ(Problems(nsa, "").at(0).substr(0, 10), "window = 0");
}

TEST(ConfigRules, Model) {
  Expect({
      {[](auto& c) { c.model.layers = 0; }, {"model.layers = 0"}},
      {[](auto& c) { c.model.heads = 7; }, {"model.heads = 7 and model.kv_heads = 2 disagree", "to 6 or 8"}},
      {[](auto& c) { c.model.kv_heads = 0; }, {"model.kv_heads = 0"}},
      {[](auto& c) { c.model.key_width = 15; }, {"model.key_width = 15: must be even", "set it to 16"}},
      {[](auto& c) { c.model.value_width = 0; }, {"model.value_width = 0"}},
      {[](auto& c) { c.model.vocab = 0; }, {"model.vocab = 0"}},
      {[](auto& c) { c.model.ffn = int64_t{1} << 28; }, {"model.ffn = 268435456: must be 1 to 134217728"}},
      {[](auto& c) {
         c.model.heads = int64_t{1} << 25;
         c.model.key_width = 4;
       },
       {"model.heads = 33554432 and model.value_width = 16 disagree", "must be at most 134217728"}},
      {[](auto& c) { c.model.value_width = int64_t{1} << 23; },
       {"model.nsa.block = 32 and model.value_width = 8388608 disagree"}},
      {[](auto& c) { c.model.norm_eps = 0; }, {"model.norm_eps = 0"}},
      {[](auto& c) { c.model.attention.clear(); }, {"model.attention = []"}},
      {[](auto& c) { c.model.attention.resize(5); }, {"model.attention = 5 kinds and model.layers = 4 disagree"}},
      {[](auto& c) { c.model.rope.theta = 1; }, {"model.rope.theta = 1"}},
      {[](auto& c) { c.model.rope.factor = 2; }, {"model.rope.factor = 2 and model.rope.scaling = NONE disagree"}},
      {[](auto& c) { c.model.rope.factor = 0.5; }, {"model.rope.factor = 0.5"}},
      {[](auto& c) { c.model.rope.beta_slow = 32; }, {"beta_fast = 32 and model.rope.beta_slow = 32 disagree"}},
      {[](auto& c) { c.model.rope.attention_factor = -1; }, {"model.rope.attention_factor = -1"}},
  });
}

TEST(ConfigRules, Ranks) {
  Expect({
      {[](auto& c) { c.parallel.cp = 0; }, {"parallel.cp = 0"}},
      {[](auto& c) { c.parallel.dp = -1; }, {"parallel.dp = -1"}},
      {[](auto& c) { c.parallel.transfer_processors = -1; }, {"parallel.transfer_processors = -1"}},
      {[](auto& c) {
         c.parallel.transfer_processors = 4;
         c.runtime.device = RuntimeDevice::kCpu;
       },
       {"parallel.transfer_processors = 4 and runtime.device = CPU disagree", "to 0"}},
      {[](auto& c) { c.parallel.dp = 2; },
       {"parallel.dp = 2 and parallel.cp = 1 disagree with a world of size 4", "start 2 ranks or set parallel.dp to 4"},
       4},
      {[](auto& c) { c.parallel.cp = 4; },
       {"parallel.cp = 4: must divide the number of ranks, 6", "start 4 or 8 ranks"},
       6},
      {[](auto& c) { c.parallel.cp = 4; }, {"parallel.cp = 4: must divide the number of ranks, 1", "start 4 ranks"}, 1},
      {[](auto& c) { c.parallel.dp = 3; },
       {"train.sequences_per_step = 2 and parallel.dp = 3 disagree", "set train.sequences_per_step to 3"}},
      {[](auto&) {}, {"train.sequences_per_step = 2 and parallel.dp = 4 disagree"}, 4},
  });
}

TEST(ConfigRules, Transport) {
  Expect({
      {[](auto& c) {
         c.runtime.device = RuntimeDevice::kCpu;
         c.parallel.transport = Transport::kStaged;
       },
       {"parallel.transport = STAGED and runtime.device = CPU disagree", "to AUTO"}},
      {[](auto& c) {
         c.runtime.device = RuntimeDevice::kCpu;
         c.parallel.transport = Transport::kPeer;
       },
       {"parallel.transport = PEER and runtime.device = CPU disagree", "to AUTO"}},
  });
}

TEST(ConfigRules, Sequence) {
  const auto cp = [](int64_t ranks, LayoutKind layout, int64_t length) {
    return [=](RunConfig& c) {
      c.parallel.cp = ranks;
      c.parallel.layout = layout;
      c.data.sequence_length = length;
    };
  };
  Expect({
      {cp(3, LayoutKind::kHeadTail, 2048),
       {"parallel.cp = 3 and data.sequence_length = 2048 disagree", "HEAD_TAIL", "6 chunks", "multiple of 384",
        "to 1920 or 2304"}},
      {cp(3, LayoutKind::kContiguous, 2048), {"CONTIGUOUS", "3 chunks", "multiple of 192", "to 1920 or 2112"}},
      {cp(2, LayoutKind::kHeadTail, 64), {"set data.sequence_length to 256"}},
      {cp(int64_t{1} << 30, LayoutKind::kHeadTail, 64), {"no sequence is that long"}},
      {cp(1, LayoutKind::kHeadTail, 31),
       {"data.sequence_length = 31 and model.nsa.block = 32 disagree", "to 32 or more"}},
      {cp(1, LayoutKind::kHeadTail, 65),
       {"data.sequence_length = 65 and model.nsa.stride = 16 disagree", "to 64 or 80"}},
      {cp(1, LayoutKind::kHeadTail, 0), {"data.sequence_length = 0"}},
  });
  RunConfig config = Good();
  cp(1, LayoutKind::kHeadTail, 31)(config);
  config.model.attention = {AttentionKind::kFull, AttentionKind::kWindow};
  EXPECT_TRUE(Problems(config, 0).empty());  // nothing to summarise
  cp(1, LayoutKind::kHeadTail, 2047)(config);
  EXPECT_TRUE(Problems(config, 0).empty());  // one rank takes any length
  cp(3, LayoutKind::kHeadTail, 2304)(config);
  EXPECT_TRUE(Problems(config, 3).empty());
}

TEST(ConfigRules, DataAndNames) {
  Expect({
      {[](auto& c) { c.name = ""; }, {"name = \"\""}},
      {[](auto& c) { c.name = "a/b"; }, {"name = \"a/b\""}},
      {[](auto& c) { c.output = ""; }, {"output = \"\""}},
      {[](auto& c) { c.data.train = ""; }, {"data.train = \"\": names no dataset", "longspan data"}},
      {[](auto& c) { c.data.blend = {"1 a"}; }, {"data.blend and data.train = \"data/train\" disagree"}},
      {[](auto& c) {
         c.data.train = "";
         c.data.blend = {"1 a validation_fraction=0", "2 b validation_fraction=0"};
       },
       {"data.blend and train.eval_sequences = 8 disagree"}},
      {[](auto& c) {
         c.data.format = DataFormat::kFibonacci;
         c.data.blend = {"1 a"};
       },
       {"data.blend and data.format = FIBONACCI disagree"}},
      {[](auto& c) { c.data.validation_fraction = 1; }, {"data.validation_fraction = 1: must be 0 to below 1"}},
      {[](auto& c) { c.data.validation_fraction = 0; },
       {"data.validation_fraction = 0 and train.eval_sequences = 8 disagree"}},
      {[](auto& c) {
         c.data.format = DataFormat::kFibonacci;
         c.model.vocab = 9;
       },
       {"model.vocab = 9 and data.format = FIBONACCI disagree", "set model.vocab to 10"}},
  });
}

TEST(ConfigRules, WithoutEvaluationNothingNeedsToBeHeldOut) {
  RunConfig config = Good();
  config.data.validation_fraction = 0;
  config.train.eval_interval = 0;
  EXPECT_TRUE(Problems(config, 0).empty());
}

TEST(ConfigRules, AProgramThatReadsNoDataNeedsNoneNamed) {
  RunConfig config = Good();
  config.data.train = "";
  EXPECT_EQ(Problems(config, 0).size(), 1U);
  EXPECT_TRUE(Problems(config, 0, /*reads_data=*/false).empty());
  config.train.steps = 0;
  EXPECT_EQ(Problems(config, 0, /*reads_data=*/false).size(), 1U);
}

// What model/training/schedule.h says of each step, for every length that is accepted.
TEST(ConfigRules, AcceptedSchedulesKeepTheirRule) {
  RunConfig config = Good();
  OptimizerConfig& optimizer = config.optimizer;
  optimizer.learning_rate = 1;
  optimizer.final_fraction = 0.25;
  int accepted = 0;
  const auto check = [&] {
    if (!Problems(config, 0).empty()) return;
    ++accepted;
    const int64_t steps = config.train.steps, warmup = optimizer.warmup_steps;
    const auto rate = [&](int64_t step) { return LearningRate(optimizer, step, steps); };
    for (int64_t step = 0; step < warmup; ++step) {
      EXPECT_DOUBLE_EQ(rate(step), static_cast<double>(step + 1) / static_cast<double>(warmup + 1));
    }
    if (warmup == steps) return;
    EXPECT_EQ(rate(warmup), 1);
    const bool constant = optimizer.schedule == ScheduleKind::kConstant;
    EXPECT_DOUBLE_EQ(rate(steps - 1), constant ? 1 : 0.25);
    if (optimizer.schedule == ScheduleKind::kWarmupStableDecay) {
      const int64_t decay = optimizer.decay_steps > 0 ? optimizer.decay_steps : std::max<int64_t>(1, steps / 5);
      EXPECT_EQ(rate(steps - 1 - decay), 1);
      EXPECT_LT(rate(steps - decay), 1);
    }
    for (int64_t step = warmup + 1; step < steps; ++step) EXPECT_LE(rate(step), rate(step - 1));
  };
  for (config.train.steps = 1; config.train.steps <= 12; ++config.train.steps) {
    for (optimizer.warmup_steps = 0; optimizer.warmup_steps <= config.train.steps; ++optimizer.warmup_steps) {
      for (const auto kind : {ScheduleKind::kConstant, ScheduleKind::kLinear, ScheduleKind::kCosine}) {
        optimizer.schedule = kind;
        optimizer.decay_steps = 0;
        check();
      }
      optimizer.schedule = ScheduleKind::kWarmupStableDecay;
      for (optimizer.decay_steps = 0; optimizer.decay_steps <= config.train.steps; ++optimizer.decay_steps) check();
    }
  }
  EXPECT_GT(accepted, 400);
}

TEST(ConfigRules, OptimizerAndTrain) {
  Expect({
      {[](auto& c) { c.optimizer.learning_rate = 0; }, {"optimizer.learning_rate = 0"}},
      {[](auto& c) { c.optimizer.learning_rate = kInfinity; }, {"optimizer.learning_rate = inf"}},
      {[](auto& c) { c.optimizer.beta1 = 1; }, {"optimizer.beta1 = 1"}},
      {[](auto& c) { c.optimizer.beta2 = kNan; }, {"optimizer.beta2 = nan"}},
      {[](auto& c) { c.optimizer.eps = 0; }, {"optimizer.eps = 0"}},
      {[](auto& c) { c.optimizer.final_fraction = 1.5; }, {"optimizer.final_fraction = 1.5: must be 0 to 1"}},
      {[](auto& c) { c.optimizer.weight_decay = -1; }, {"optimizer.weight_decay = -1"}},
      {[](auto& c) { c.optimizer.clip_norm = kNan; }, {"optimizer.clip_norm = nan"}},
      {[](auto& c) { c.optimizer.warmup_steps = 201; },
       {"optimizer.warmup_steps = 201 and train.steps = 200 disagree", "to 200 or less"}},
      {[](auto& c) { c.optimizer.decay_steps = 10; },
       {"optimizer.decay_steps = 10 and optimizer.schedule = COSINE disagree"}},
      {[](auto& c) {
         c.optimizer.schedule = ScheduleKind::kWarmupStableDecay;
         c.optimizer.decay_steps = 180;
       },
       {"optimizer.decay_steps = 180 and train.steps = 200 disagree", "at most 179"}},
      {[](auto& c) { c.optimizer.warmup_steps = 199; },
       {"optimizer.warmup_steps = 199 and train.steps = 200 disagree", "COSINE takes 2 steps", "to 198 or less"}},
      {[](auto& c) {
         c.train.steps = 1;
         c.optimizer.warmup_steps = 0;
       },
       {"optimizer.warmup_steps = 0 and train.steps = 1 disagree", "train.steps to 2", "CONSTANT"}},
      {[](auto& c) {
         c.optimizer.schedule = ScheduleKind::kWarmupStableDecay;
         c.optimizer.warmup_steps = 160;
       },
       {"optimizer.warmup_steps = 160 and train.steps = 200 disagree", "takes 41 steps", "to 159 or less"}},
      {[](auto& c) { c.train.steps = 0; }, {"train.steps = 0"}},
      {[](auto& c) { c.train.sequences_per_step = 0; }, {"train.sequences_per_step = 0"}},
      {[](auto& c) { c.train.eval_interval = -1; }, {"train.eval_interval = -1"}},
      {[](auto& c) { c.train.eval_sequences = -1; }, {"train.eval_sequences = -1"}},
      {[](auto& c) { c.train.log_interval = 0; }, {"train.log_interval = 0"}},
      {[](auto& c) { c.checkpoint.interval = -1; }, {"checkpoint.interval = -1"}},
      {[](auto& c) { c.checkpoint.minutes = -1; }, {"checkpoint.minutes = -1"}},
      {[](auto& c) { c.checkpoint.keep_last = 0; }, {"checkpoint.keep_last = 0"}},
      {[](auto& c) { c.profile.first_step = 0; }, {"profile.first_step = 0"}},
      {[](auto& c) { c.profile.steps = -1; }, {"profile.steps = -1"}},
      {[](auto& c) { c.comm.timeout = -1; }, {"comm.timeout = -1"}},
      {[](auto& c) { c.comm.load_timeout = kNan; }, {"comm.load_timeout = nan"}},
      {[](auto& c) { c.comm.evaluation_timeout = -1; }, {"comm.evaluation_timeout = -1"}},
      {[](auto& c) { c.comm.save_timeout = -1; }, {"comm.save_timeout = -1"}},
      {[](auto& c) { c.checkpoint.keep_every = 5; },
       {"checkpoint.interval = 0 disagree", "set checkpoint.interval to 5"}},
      {[](auto& c) { c.checkpoint = {.interval = 4, .keep_every = 10}; },
       {"checkpoint.keep_every = 10 and checkpoint.interval = 4 disagree", "8 or 12"}},
      {[](auto& c) { c.train.keep.offload = true; }, {"train.offload = true and train.recompute = NONE disagree"}},
  });
}

}  // namespace
}  // namespace longspan
