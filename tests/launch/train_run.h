// A training run of the program on the Fibonacci task, and what it left.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/launch/program.h"

namespace longspan {

struct TrainRun {
  std::vector<double> losses;              // by step
  std::vector<nlohmann::json> selections;  // hashes of the layers' selections, by step
  double held_out = NAN;
  std::string parameters;  // hash of the final ones
};

// configs/fibonacci.textproto with these keys over it. LONGSPAN_SOURCE is set by CMake.
inline TrainRun TrainFibonacci(const TempFolder& folder, int ranks, const std::string& keys) {
  using nlohmann::json;
  std::string said;
  const int code = RunProgram(folder, ranks,
                              fmt::format("train --config '{}/configs/fibonacci.textproto' output='{}' {}",
                                          LONGSPAN_SOURCE, folder / "runs", keys),
                              &said);
  EXPECT_EQ(code, 0) << said;
  EXPECT_NE(ReadFile(folder / "runs/fibonacci/profile/report.txt").find("exposed communication: "), std::string::npos);
  TrainRun run;
  const size_t at = said.find("parameters ", said.find("done: "));
  if (at != std::string::npos) run.parameters = said.substr(at + 11, 16);
  std::istringstream lines(ReadFile(folder / "runs/fibonacci/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const json entry = json::parse(line);
    if (entry["kind"] == "step") {
      run.losses.push_back(entry["loss"]);
      EXPECT_EQ(entry["allocations"], 0) << "step " << run.losses.size();
      run.selections.push_back(entry["selection"]);
    } else {
      run.held_out = entry["loss"];
    }
  }
  return run;
}

}  // namespace longspan
