// `longspan bench` on a CPU: what its JSON holds, and the selections that it draws.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "launch/commands/bench_lists.h"
#include "launch/train/selection_file.h"
#include "tests/support/program.h"

namespace longspan {
namespace {

using nlohmann::json;

constexpr const char* kSmall =
    "--device cpu --runs 2 --block 8 --stride 4 --select-block 8 --select 4 --window 24 --shape 4,2,16,8 ";

class BenchTest : public testing::Test {
 protected:
  int Run(const std::string& arguments) { return RunProgram(folder_, 1, "bench nsa " + arguments, &said_); }
  json Found(const std::string& arguments) {
    EXPECT_EQ(Run(fmt::format("{} {} --json '{}'", kSmall, arguments, folder_ / "json")), 0) << said_;
    return json::parse(ReadFile(folder_ / "json"));
  }
  static std::vector<std::string> Stages(const json& found) {
    std::vector<std::string> names;
    for (const json& stage : found["stages"]) {
      names.push_back(fmt::format("{} {}", stage["direction"].get<std::string>(), stage["name"].get<std::string>()));
    }
    return names;
  }
  TempFolder folder_;
  std::string said_;
};

const std::vector<std::string> kForward = {"forward compress", "forward compressed", "forward select",
                                           "forward selected", "forward window",     "forward combine",
                                           "forward whole"};
const std::vector<std::string> kBackward = {"backward combine",  "backward zero",       "backward window",
                                            "backward selected", "backward compressed", "backward compress",
                                            "backward whole"};

TEST_F(BenchTest, TimesEveryStageOfEveryCase) {
  const json found = Found("--tokens 64,128 --shape 2,1,8,8 --full");
  EXPECT_EQ(found["dtype"], "F32");
  EXPECT_EQ(found["runs"], 2);
  ASSERT_EQ(found["cases"].size(), 4U);
  std::vector<std::string> all = kForward;
  all.insert(all.end(), kBackward.begin(), kBackward.end());
  all.insert(all.end(), {"forward full", "backward full"});
  for (const json& one : found["cases"]) {
    EXPECT_GT(one["matmul_tflops"], 0);
    EXPECT_GT(one["copy_gbps"], 0);
    EXPECT_GT(one["tensor_mib"], 0);
    EXPECT_EQ(Stages(one), all);
    double flops = 0;
    for (const json& stage : one["stages"]) {
      ASSERT_FALSE(stage.contains("error")) << stage;
      EXPECT_GT(stage["ms"], 0) << stage;
      EXPECT_LE(stage["best_ms"], stage["ms"]) << stage;
      EXPECT_GT(stage["bytes"], 0) << stage;
      const double ms = stage["ms"], tflops = stage["tflops"], rate = one["matmul_tflops"];
      EXPECT_NEAR(tflops, stage["flops"].get<double>() / ms * 1e-9, 1e-9) << stage;
      EXPECT_NEAR(stage["matmul_share"], tflops / rate, 1e-6) << stage;
      if (stage["name"] == "full") continue;
      if (stage["name"] == "whole") {
        EXPECT_NEAR(stage["flops"].get<double>() / flops, 1, 1e-9) << "the stages are the whole";
        flops = 0;
      } else {
        flops += stage["flops"].get<double>();
      }
    }
  }
  const json& last = found["cases"][3];
  EXPECT_EQ(last["sizes"]["tokens"], 128);
  EXPECT_EQ(last["sizes"]["heads"], 2);
  EXPECT_EQ(last["sizes"]["init"], 1);
  EXPECT_EQ(last["sizes"]["local"], 2);
  EXPECT_EQ(last["phi"], "MLP");
  EXPECT_EQ(last["selection"], "as the operator chooses on random values");
  EXPECT_NE(said_.find("tokens=128 heads=2 groups=1 key_width=8"), std::string::npos) << said_;
  // One head, all pairs of a window of 24 over 128 tokens, two products of width 8.
  const double pairs = 24 * 25 / 2 + (128 - 24) * 24;
  EXPECT_EQ(last["stages"][4]["flops"], 2.0 * 2 * pairs * (8 + 8));
}

TEST_F(BenchTest, TakesDrawnAndRecordedSelections) {
  const json drawn = Found("--tokens 512 --keep 1 --forward");
  EXPECT_EQ(Stages(drawn["cases"][0]), kForward);
  const json random = Found("--tokens 512 --keep 0 --forward");
  EXPECT_GT(random["cases"][0]["union_of_8"].get<double>(), 1.5 * drawn["cases"][0]["union_of_8"].get<double>());

  // Every query its own block alone.
  std::vector<int32_t> own(96 * 2 * 4, -1);
  for (int32_t row = 0; row < 96 * 2; ++row) own[row * 4] = row / 2 / 8;
  SelectionWriter writer(8);
  writer.Add(kSelected, own, {96, 2, 4});
  writer.Write(folder_ / "own");
  constexpr const char* kSizes = "--runs 1 --block 8 --stride 4 --select-block 8 --shape 4,2,16,8 ";
  const std::string file = fmt::format("--device cpu --selected '{}' ", folder_ / "own");
  EXPECT_EQ(Run(kSizes + file + fmt::format("--json '{}'", folder_ / "json")), 0) << said_;
  const json recorded = json::parse(ReadFile(folder_ / "json"));
  EXPECT_EQ(recorded["cases"][0]["sizes"]["tokens"], 96);
  EXPECT_EQ(recorded["cases"][0]["sizes"]["select"], 4);
  EXPECT_EQ(recorded["cases"][0]["union_of_8"], 1);

  EXPECT_EQ(Run("--select-block 8 --block 8 --stride 4 " + file), static_cast<int>(ExitCode::kData));
  EXPECT_NE(said_.find("own: selected: expected [S,G,N] = [96,4,4] for --shape 64,4,128,128, found [96,2,4]"),
            std::string::npos)
      << said_;
  EXPECT_EQ(Run("--select-block 16 --block 8 --stride 4 " + file), static_cast<int>(ExitCode::kData)) << said_;
}

TEST_F(BenchTest, RefusesWhatItCannotTime) {
  const auto refuse = [&](const std::string& arguments, const std::string& part, ExitCode code = ExitCode::kUsage) {
    EXPECT_EQ(Run("--device cpu " + arguments), static_cast<int>(code)) << said_;
    EXPECT_NE(said_.find(part), std::string::npos) << said_;
  };
  refuse("--shape 3,2,16,16", "expected H,G,K,V");
  refuse("--shape 4,2,16", "expected H,G,K,V");
  refuse("--shape 4,2,16,16,16", "expected H,G,K,V");
  refuse("--tokens 100", "--tokens 100: expected --block = 32 or more, and a multiple of --stride = 16");
  refuse("--block 96 --stride 48 --select-block 96", "--tokens 4096: expected --block = 96 or more, and a multiple of");
  refuse("--block 24", "--block = 24");
  refuse("--keep 2", "--keep");
  refuse("--keep 0.5 --selected x", "--keep");
  refuse("--type bf16", "--type bf16: needs a GPU", ExitCode::kConfig);
  refuse("--json no/such/folder/file --tokens 64", "no/such/folder/file", ExitCode::kIo);
}

// The attention of a layer over ranks chooses the same blocks, whatever the ranks, layout and exchange.
TEST_F(BenchTest, TimesALayerOverRanks) {
  std::string selection;
  for (const int ranks : {1, 2, 4}) {
    const std::string arguments = fmt::format(
        "bench layer {} --tokens 256 --layout HEAD_TAIL,CONTIGUOUS --selected-exchange GATHER,FETCH {} "
        "--json '{}'",
        kSmall, ranks == 2 ? "--phi MEAN --recompute" : "", folder_ / "json");
    ASSERT_EQ(RunProgram(folder_, ranks, arguments, &said_), 0) << said_;
    const json found = json::parse(ReadFile(folder_ / "json"));
    EXPECT_EQ(found["ranks"], ranks);
    EXPECT_EQ(found["recompute"], ranks == 2);
    ASSERT_EQ(found["cases"].size(), 4U);
    for (const json& one : found["cases"]) {
      EXPECT_EQ(one["sizes"]["tokens"], 256);
      for (const char* pass : {"forward", "backward"}) {
        EXPECT_GT(one[pass]["best_ms"], 0);
        EXPECT_GE(one[pass]["ms"], one[pass]["best_ms"]);
        EXPECT_GE(one[pass]["exposed_ms"], 0);
      }
      EXPECT_GT(one["memory_mib"], 0);
      EXPECT_EQ(one["borrowed_mib"].get<double>() > 0, ranks > 1) << one;
      if (one["selected_exchange"] == "GATHER") {
        EXPECT_EQ(one["coverage"], 1) << one;
      } else {
        EXPECT_LE(one["coverage"], 1) << one;
      }
      if (ranks == 2) continue;  // other compressed keys
      if (selection.empty()) selection = one["selection"];
      EXPECT_EQ(one["selection"], selection) << one;
    }
  }
  const auto refuse = [&](const std::string& arguments, const std::string& part, ExitCode code) {
    EXPECT_EQ(RunProgram(folder_, 2, "bench layer --device cpu " + arguments, &said_), static_cast<int>(code)) << said_;
    EXPECT_NE(said_.find(part), std::string::npos) << said_;
  };
  refuse("--tokens 100", "--tokens 100: expected --block = 32 or more", ExitCode::kUsage);
  refuse("--tokens 320", "cuts it in 4 chunks, each a multiple of 64 tokens; take 256 or 512", ExitCode::kConfig);
  refuse("--layout BOTH", "--layout: expected HEAD_TAIL or CONTIGUOUS, found BOTH", ExitCode::kUsage);
}

TEST(BenchLists, AreWhatQueriesCanChoose) {
  const NsaConfig nsa = {.block = 8, .stride = 4, .select_block = 8, .select = 7, .init = 2, .local = 2};
  const Shape shape = {600, 3, 7};
  double union_before = 1e9;
  for (const double keep : {0.0, 0.5, 0.9, 1.0}) {
    const std::vector<int32_t> selected = DrawSelection(shape, nsa, keep);
    EXPECT_NO_THROW(CheckSelection("drawn", selected, shape, {}, 8));
    int64_t kept = 0, all = 0;
    for (int64_t row = 0; row < 600 * 3; ++row) {
      const auto begin = selected.begin() + row * 7;
      const int64_t t = row / 3, visible = t / 8 + 1;
      ASSERT_EQ(std::count(begin, begin + 7, -1), 7 - std::min<int64_t>(7, visible)) << "query " << t;
      for (const int64_t block : {int64_t{0}, std::min<int64_t>(1, visible - 1), visible - 1}) {
        ASSERT_NE(std::find(begin, begin + 7, block), begin + 7) << "query " << t << " lacks block " << block;
      }
      if (t < 400) continue;
      for (auto block = begin; block < begin + 7; ++block) {
        if (*block < 2 || *block >= visible - 3) continue;
        const auto before = selected.begin() + (row - 3) * 7;
        kept += std::count(before, before + 7, *block);
        ++all;
      }
    }
    EXPECT_NEAR(static_cast<double>(kept) / static_cast<double>(all), keep, 0.07);
    const double found = UnionOfEight(selected, shape);
    EXPECT_LT(found, union_before) << keep;
    union_before = found;
  }
  EXPECT_EQ(UnionOfEight(std::vector<int32_t>(16, 5), {8, 1, 2}), 1);
}

}  // namespace
}  // namespace longspan
