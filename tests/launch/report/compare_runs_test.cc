// Runs beside each other: what differs most, and how throughput grows with ranks.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/report/compare.h"
#include "launch/report/scaling.h"

namespace longspan {
namespace {

using nlohmann::json;

ReportedRun Made(const std::string& name, int ranks, double tokens, double window, double waiting) {
  ReportedRun run;
  Summary& summary = run.summary;
  summary.folder = name;
  summary.expected = ranks;
  summary.header.set_dp_size(1);
  summary.header.set_cp_size(static_cast<uint32_t>(ranks));
  summary.steps = 2;
  summary.mean.work = window + 0.01;
  summary.mean.waiting = waiting;
  summary.mean.moving = 0.002;
  summary.step = summary.step_median = window + 0.01 + waiting + 0.002;
  for (const auto& [stage, seconds] : {std::pair("window", window), std::pair("selected", 0.01)}) {
    StageRow row;
    row.stage = stage;
    row.pass = proto::FORWARD;
    row.seconds.mean = seconds;
    summary.stages.push_back(row);
  }
  for (int64_t step = 1; step <= 2; ++step) {
    run.metrics.steps.push_back({.step = step,
                                 .loss = 3.0 / static_cast<double>(step),
                                 .tokens = tokens,
                                 .tokens_per_second = tokens / summary.step});
  }
  return run;
}

TEST(Compare, WhatDiffersMostComesFirstAndChangesAddUp) {
  const ReportedRun a = Made("a", 2, 1000, 0.020, 0.001), b = Made("b", 2, 1000, 0.050, 0.003);
  const json found = json::parse(ComparisonJson(a, b, {{"model.nsa.window", "512", "1024"}}));
  ASSERT_GE(found["differences"].size(), 4U);
  EXPECT_EQ(found["differences"][0]["what"], "window forward");
  EXPECT_EQ(found["differences"][1]["what"], "waiting for other ranks");
  double sum = 0;
  for (const json& difference : found["differences"]) sum += difference["change"].get<double>();
  EXPECT_NEAR(sum, b.summary.step - a.summary.step, 1e-12);
  const std::string text = ComparisonText(a, b, {{"model.nsa.window", "512", "1024"}});
  EXPECT_NE(text.find("window forward                    20.00      50.00     +30.00"), std::string::npos) << text;
  EXPECT_NE(text.find("model.nsa.window"), std::string::npos) << text;
  EXPECT_NE(text.find("loss of step 2"), std::string::npos) << text;
}

TEST(Scaling, StrongAndWeakTablesOfTheSameTokens) {
  // The step of 1 rank takes 40 ms: half of it on 2 ranks would be ideal.
  const std::vector<ReportedRun> runs = {Made("two", 2, 1000, 0.013, 0), Made("one", 1, 1000, 0.028, 0),
                                         Made("wide", 2, 2000, 0.028, 0), Made("other", 4, 77, 0.028, 0)};
  const json found = json::parse(ScalingJson(runs));
  ASSERT_EQ(found["tables"].size(), 2U) << found;
  for (const json& table : found["tables"]) {
    ASSERT_EQ(table["rows"].size(), 2U);
    EXPECT_EQ(found["runs"][table["rows"][0]["run"].get<size_t>()]["run"], "one");
    const bool weak = table["kind"] == "weak";
    EXPECT_EQ(table["tokens"], 1000);
    EXPECT_NEAR(table["rows"][1]["efficiency"].get<double>(), weak ? 1 : 0.040 / 0.025 / 2, 1e-9);
    EXPECT_NEAR(table["rows"][1]["speedup"].get<double>(), weak ? 2 : 0.040 / 0.025, 1e-9);
  }
  const std::string text = ScalingText(runs);
  EXPECT_NE(text.find("strong scaling, 1000 tokens a step\n"), std::string::npos) << text;
  EXPECT_NE(text.find("weak scaling, 1000 tokens a step and rank\n"), std::string::npos) << text;
  EXPECT_NE(ScalingText({runs[0]}).find("nothing to compare"), std::string::npos);
}

}  // namespace
}  // namespace longspan
