#include "launch/report/metrics.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

namespace longspan {
namespace {

using nlohmann::json;

// NaN where there is none.
double NumberOf(const json& line, const char* key) {
  if (!line.is_object()) return NAN;
  const auto found = line.find(key);
  return found != line.end() && found->is_number() ? found->get<double>() : NAN;
}

std::vector<SelectionMetric> SelectionOf(const json& layers) {
  std::vector<SelectionMetric> selection;
  for (const json& layer : layers) {
    if (!layer.is_object() || !(NumberOf(layer, "layer") >= 0)) continue;
    selection.push_back({.layer = static_cast<int64_t>(NumberOf(layer, "layer")),
                         .local = NumberOf(layer, "local"),
                         .halo = NumberOf(layer, "halo"),
                         .remote = NumberOf(layer, "remote"),
                         .distinct_blocks = NumberOf(layer, "distinct_blocks"),
                         .distinct_share = NumberOf(layer, "distinct_share"),
                         .jaccard = NumberOf(layer, "jaccard"),
                         .hottest = NumberOf(layer, "hottest"),
                         .union2 = NumberOf(layer, "union_2"),
                         .union4 = NumberOf(layer, "union_4"),
                         .union8 = NumberOf(layer, "union_8")});
  }
  return selection;
}

}  // namespace

RunMetrics ReadMetrics(const std::string& run_folder) {
  RunMetrics metrics;
  std::ifstream file(run_folder + "/metrics.jsonl", std::ios::binary);
  for (std::string text; std::getline(file, text);) {
    const json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object() || !line.contains("kind")) continue;
    const double step = NumberOf(line, "step");
    if (!(step >= 1 && step < 1e15)) continue;
    if (line["kind"] == "step") {
      metrics.steps.push_back({.step = static_cast<int64_t>(step),
                               .loss = NumberOf(line, "loss"),
                               .tokens = NumberOf(line, "tokens"),
                               .tokens_per_second = NumberOf(line, "tokens_per_second"),
                               .memory = NumberOf(line, "memory_mib") * (1 << 20),
                               .coverage = NumberOf(line, "coverage"),
                               .borrowed = NumberOf(line, "borrowed_mib") * (1 << 20)});
    } else if (line["kind"] == "selection") {
      metrics.selection_step = static_cast<int64_t>(step);
      metrics.selection = SelectionOf(line.value("layers", json::array()));
    } else if (line["kind"] == "eval") {
      metrics.evaluations.push_back({static_cast<int64_t>(step), NumberOf(line, "loss")});
    }
  }
  std::ifstream evaluated(run_folder + "/eval.json", std::ios::binary);
  const json eval = json::parse(evaluated, nullptr, /*allow_exceptions=*/false);
  if (!eval.is_object() || !eval.contains("positions") || !eval["positions"].is_array()) return metrics;
  for (const json& bucket : eval["positions"]) {
    const double begin = NumberOf(bucket, "begin"), end = NumberOf(bucket, "end"), loss = NumberOf(bucket, "loss");
    if (!(begin >= 0 && end > begin && end < 1e15 && std::isfinite(loss))) continue;
    metrics.positions.push_back({static_cast<int64_t>(begin), static_cast<int64_t>(end), loss});
  }
  return metrics;
}

}  // namespace longspan
