#include "launch/plan/rates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/error.h"

namespace longspan {
namespace {

using nlohmann::json;

json ReadJson(const std::string& path) {
  std::ifstream file(path);
  if (!file) Fail(ExitCode::kIo, "{}: cannot open", path);
  try {
    return json::parse(file);
  } catch (const json::exception& error) {
    Fail(ExitCode::kData, "{}: expected what longspan bench nsa --json writes: {}", path, error.what());
  }
}

// How unlike two sizes are: 0 = equal.
double Distance(double a, double b) { return std::abs(std::log2(a / b)); }

}  // namespace

DeviceRates::DeviceRates(const std::string& path, const RunConfig& config) {
  const json found = ReadJson(path);
  try {
    device_ = found.at("device");
    const ModelConfig& model = config.model;
    const auto tokens = static_cast<double>(config.data.sequence_length) / static_cast<double>(config.parallel.cp);
    const json* nearest = nullptr;
    std::pair<double, double> least;
    for (const json& one : found.at("cases")) {
      if (one.contains("error")) continue;
      const auto size = [&](const char* name) { return one.at("sizes").at(name).get<double>(); };
      const std::pair distance = {
          Distance(size("heads") / size("groups"),
                   static_cast<double>(model.heads) / static_cast<double>(model.kv_heads)) +
              Distance(size("key_width"), static_cast<double>(model.key_width)) +
              Distance(size("value_width"), static_cast<double>(model.value_width)),
          Distance(size("tokens"), tokens) + Distance(size("heads"), static_cast<double>(model.heads))};
      if (!nearest || distance < least) {
        nearest = &one;
        least = distance;
      }
    }
    if (!nearest) Fail(ExitCode::kData, "{}: cases: expected one that was measured, found none", path);
    matmul_flops_ = 1e12 * nearest->at("matmul_tflops").get<double>();
    copy_bytes_ = 1e9 * nearest->at("copy_gbps").get<double>();
    for (const auto& [name, value] : nearest->at("sizes").items()) {
      if (name == "tokens" || name == "heads" || name == "groups" || name == "key_width" || name == "value_width") {
        measured_at_ += fmt::format("{}{} {}", measured_at_.empty() ? "" : ", ", name, value.dump());
      }
    }
    const json& stages = nearest->at("stages");
    // Dense layers run as windows of all tokens, and are nearly all of what windows cost.
    const bool dense = std::ranges::count(model.attention, AttentionKind::kFull) > 0 &&
                       std::ranges::any_of(stages, [](const json& stage) { return stage.at("name") == "full"; });
    for (const json& stage : stages) {
      if (stage.contains("error")) continue;
      const double seconds = 1e-3 * stage.at("ms").get<double>();
      std::string name = stage.at("name");
      if (dense && name == "window") continue;
      if (dense && name == "full") name = "window";
      stages_.push_back({"attention." + name + (stage.at("direction") == "backward" ? "_backward" : ""),
                         stage.at("flops").get<double>() / seconds, stage.at("bytes").get<double>() / seconds});
    }
  } catch (const json::exception& error) {
    Fail(ExitCode::kData, "{}: expected what longspan bench nsa --json writes: {}", path, error.what());
  }
}

double DeviceRates::Seconds(const std::string& span, const SpanTotal& work) const {
  const auto stage = std::find_if(stages_.begin(), stages_.end(), [&](const Stage& one) { return one.span == span; });
  if (stage != stages_.end()) {
    return std::max(stage->flops > 0 ? work.flops / stage->flops : 0, work.bytes / stage->bytes);
  }
  const bool products = span == "dense.matmul" || span == "train.loss";
  return std::max(products ? work.flops / matmul_flops_ : 0, work.bytes / copy_bytes_);
}

}  // namespace longspan
