// Runs of the program on a model that trains a step in milliseconds, and what they leave.
#pragma once

#include <csignal>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/program.h"

namespace longspan {

// Bytes of text, one layer.
constexpr const char* kTiny =
    "runtime.device=CPU model.layers=1 model.hidden=16 model.heads=2 model.kv_heads=1 model.key_width=8 "
    "model.value_width=8 model.ffn=24 model.nsa.block=8 model.nsa.stride=4 model.nsa.select_block=8 "
    "model.nsa.select=3 model.nsa.window=8 data.format=NANOGPT data.sequence_length=64 optimizer.warmup_steps=0 "
    "optimizer.schedule=CONSTANT train.steps=3 train.sequences_per_step=2 train.eval_interval=0 ";

class TinyRun : public testing::Test {
 protected:
  TinyRun() { WriteTokens("tokens", 2000, 7); }

  void WriteTokens(const std::string& name, int count, int step) {
    std::string bytes;
    for (int i = 0; i < count; ++i) bytes += Bytes<uint16_t>(i * step % 251);
    WriteFile(folder_ / name, bytes);
  }
  std::string Arguments(const std::string& keys, const std::string& command = "train") {
    return fmt::format("{} {} output='{}' data.train='{}' {}", command, kTiny, folder_ / "runs", folder_ / "tokens",
                       keys);
  }
  // Of which the program says all `parts`.
  void Expect(int code, int ranks, const std::string& arguments, std::initializer_list<std::string> parts) {
    EXPECT_EQ(RunProgram(folder_, ranks, arguments, &said_), code) << arguments << "\n" << said_;
    for (const std::string& part : parts) {
      EXPECT_NE(said_.find(part), std::string::npos) << arguments << "\n" << said_ << "\nlacks: " << part;
    }
  }
  std::vector<nlohmann::json> Metrics(const std::string& name = "run") {
    std::vector<nlohmann::json> lines;
    std::istringstream text(ReadFile(folder_ / ("runs/" + name + "/metrics.jsonl")));
    for (std::string line; std::getline(text, line);) {
      const auto parsed = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (parsed.is_object()) lines.push_back(parsed);  // a killed run may leave half a line
    }
    return lines;
  }
  // That the last run ended with.
  std::string Parameters() {
    const size_t at = said_.find("parameters ", said_.find("done: "));
    return at == std::string::npos ? "none" : said_.substr(at + 11, 16);
  }

  TempFolder folder_;
  std::string said_;
};

}  // namespace longspan
