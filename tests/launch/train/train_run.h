// A training run of the program on the Fibonacci task, and what it left.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/program.h"

namespace longspan {

struct TrainRun {
  std::vector<double> losses;              // by step
  std::vector<nlohmann::json> selections;  // hashes of the layers' selections, by step
  double held_out = NAN;
  double borrowed_mib = NAN;  // of the last step
  std::string parameters;     // hash of the final ones
  std::string said;           // by the program
  std::string report;         // profile/report.txt
};

// configs/fibonacci.textproto with these keys over it. LONGSPAN_SOURCE is set by CMake.
inline TrainRun TrainFibonacci(const TempFolder& folder, int ranks, const std::string& keys) {
  using nlohmann::json;
  TrainRun run;
  const int code = RunProgram(folder, ranks,
                              fmt::format("train --config '{}/configs/fibonacci.textproto' --overwrite output='{}' {}",
                                          LONGSPAN_SOURCE, folder / "runs", keys),
                              &run.said);
  EXPECT_EQ(code, 0) << run.said;
  run.report = ReadFile(folder / "runs/fibonacci/profile/report.txt");
  EXPECT_NE(run.report.find("exposed communication: "), std::string::npos);
  const size_t at = run.said.find("parameters ", run.said.find("done: "));
  if (at != std::string::npos) run.parameters = run.said.substr(at + 11, 16);
  std::istringstream lines(ReadFile(folder / "runs/fibonacci/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const json entry = json::parse(line);
    if (entry["kind"] == "step") {
      run.losses.push_back(entry["loss"]);
      EXPECT_EQ(entry["allocations"], 0) << "step " << run.losses.size();
      run.selections.push_back(entry["selection"]);
      run.borrowed_mib = entry["borrowed_mib"];
    } else if (entry["kind"] == "eval") {
      run.held_out = entry["loss"];
    }
  }
  return run;
}

}  // namespace longspan
