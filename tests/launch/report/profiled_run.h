// Runs of four ranks whose report names what was planted in one of them.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/launch/train/background_run.h"
#include "tests/support/program.h"

namespace longspan {

// dp 2 x cp 2; the ranks compute more than they transfer.
constexpr const char* kProfiled =
    "runtime.device=CPU data.format=FIBONACCI model.vocab=16 model.layers=1 model.hidden=64 model.heads=4 "
    "model.kv_heads=2 model.ffn=128 model.nsa.window=64 model.nsa.select=6 data.sequence_length=2048 "
    "optimizer.schedule=CONSTANT optimizer.warmup_steps=0 train.eval_interval=0 checkpoint.minutes=0 "
    "checkpoint.at_end=false train.log_interval=1000 parallel.cp=2 name=run ";

class ProfiledRun : public testing::Test {
 protected:
  std::string Arguments(const std::string& keys) {
    return fmt::format("train {} output='{}' {}", kProfiled, folder_ / "runs", keys);
  }
  // The report of the run so far.
  nlohmann::json Report() {
    std::string said;
    EXPECT_EQ(RunProgram(folder_, 1, fmt::format("report '{}' --json", folder_ / "runs/run"), &said), 0) << said;
    return nlohmann::json::parse(said, nullptr, /*allow_exceptions=*/false);
  }

  TempFolder folder_;
  std::string said_;
};

}  // namespace longspan
