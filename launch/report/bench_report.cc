#include "launch/report/bench_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "runtime/files/output_file.h"

namespace longspan {
namespace {

using Json = nlohmann::ordered_json;

double Mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

struct Rates {
  double tflops, matmul_share, gbps, copy_share;
};

Rates RatesOf(const BenchCase& found, const BenchStage& stage) {
  const double tflops = stage.flops / stage.ms * 1e-9, gbps = stage.bytes / stage.ms * 1e-6;
  return {tflops, tflops / found.matmul_tflops, gbps, gbps / found.copy_gbps};
}

Json StageJson(const BenchCase& found, const BenchStage& stage) {
  Json json = {{"name", stage.name}, {"direction", stage.direction}};
  if (!stage.error.empty()) {
    json["error"] = stage.error;
    return json;
  }
  const auto [tflops, matmul_share, gbps, copy_share] = RatesOf(found, stage);
  json.update({{"ms", stage.ms},
               {"best_ms", stage.best_ms},
               {"flops", stage.flops},
               {"bytes", stage.bytes},
               {"tflops", tflops},
               {"matmul_share", matmul_share},
               {"gbps", gbps},
               {"copy_share", copy_share}});
  return json;
}

Json SizesJson(const std::vector<std::pair<std::string, int64_t>>& sizes) {
  Json json = Json::object();
  for (const auto& [name, size] : sizes) json[name] = size;
  return json;
}

Json CaseJson(const BenchCase& found) {
  Json json = {{"sizes", SizesJson(found.sizes)}, {"phi", found.phi}, {"selection", found.selection}};
  if (!found.error.empty()) {
    json["error"] = found.error;
    return json;
  }
  json.update({{"kernels", found.kernels},
               {"union_of_8", found.union_of_8},
               {"matmul_tflops", found.matmul_tflops},
               {"copy_gbps", found.copy_gbps},
               {"tensor_mib", Mib(found.tensor_bytes)},
               {"scratch_mib",
                {{"forward", Mib(found.forward_scratch_bytes)}, {"backward", Mib(found.backward_scratch_bytes)}}}});
  json["stages"] = Json::array();
  for (const BenchStage& stage : found.stages) json["stages"].push_back(StageJson(found, stage));
  return json;
}

Json PassJson(const LayerPass& pass) {
  return {{"ms", pass.ms}, {"best_ms", pass.best_ms}, {"exposed_ms", pass.exposed_ms}};
}

Json CaseJson(const LayerBenchCase& found) {
  return {{"sizes", SizesJson(found.sizes)},
          {"phi", found.phi},
          {"layout", found.layout},
          {"selected_exchange", found.selected_exchange},
          {"kernels", found.kernels},
          {"forward", PassJson(found.forward)},
          {"backward", PassJson(found.backward)},
          {"coverage", found.coverage},
          {"borrowed_mib", Mib(found.borrowed_bytes)},
          {"memory_mib", Mib(found.memory_bytes)},
          {"selection", fmt::format("{:016x}", found.selection)}};
}

void Write(const std::string& path, const Json& json) {
  const std::string text = json.dump(1) + "\n";
  OutputFile file(path);
  file.Write(text.data(), static_cast<int64_t>(text.size()));
  file.Commit();
}

}  // namespace

std::string LayerBenchHead() {
  return fmt::format("{:>8}{:>14}{:>12}{:>10}{:>10}{:>9}{:>10}{:>9}{:>10}{:>10}{:>9}\n", "tokens", "H,G,K,V", "layout",
                     "exchange", "forward", "exposed", "backward", "exposed", "coverage", "borrowed", "memory");
}

std::string LayerBenchRow(const LayerBenchCase& found) {
  const auto size = [&](size_t i) { return found.sizes[i].second; };
  const std::string shape = fmt::format("{},{},{},{}", size(1), size(2), size(3), size(4));
  return fmt::format("{:>8}{:>14}{:>12}{:>10}{:>10.3f}{:>9.3f}{:>10.3f}{:>9.3f}{:>9.1f}%{:>10.1f}{:>9.0f}\n", size(0),
                     shape, found.layout, found.selected_exchange, found.forward.ms, found.forward.exposed_ms,
                     found.backward.ms, found.backward.exposed_ms, 100 * found.coverage, Mib(found.borrowed_bytes),
                     Mib(found.memory_bytes));
}

std::string BenchTable(const BenchCase& found) {
  std::string text;
  for (const auto& [name, size] : found.sizes) text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, size);
  text += fmt::format("\n  phi        {}\n  selection  {}", found.phi, found.selection);
  if (!found.error.empty()) return fmt::format("{}\n  not measured: {}\n", text, found.error);
  text += fmt::format(
      ", {:.1f} blocks chosen by 8 neighbours\n  kernels    {}\n  rates      matrix products {:.4g} TFLOP/s, copies "
      "{:.4g} GB/s\n  memory     tensors {:.0f} MiB, scratch {:.0f} MiB forward, {:.0f} with backward\n",
      found.union_of_8, found.kernels, found.matmul_tflops, found.copy_gbps, Mib(found.tensor_bytes),
      Mib(found.forward_scratch_bytes), Mib(found.backward_scratch_bytes));
  text += fmt::format("  {:<10}{:<11}{:>10}{:>10}{:>10}{:>8}{:>9}{:>8}\n", "direction", "stage", "median ms", "best ms",
                      "TFLOP/s", "share", "GB/s", "share");
  for (const BenchStage& stage : found.stages) {
    text += fmt::format("  {:<10}{:<11}", stage.direction, stage.name);
    if (!stage.error.empty()) {
      text += fmt::format(" {}\n", stage.error);
      continue;
    }
    const auto [tflops, matmul_share, gbps, copy_share] = RatesOf(found, stage);
    text += fmt::format("{:>10.3f}{:>10.3f}{:>10.4g}{:>7.1f}%{:>9.4g}{:>7.1f}%\n", stage.ms, stage.best_ms, tflops,
                        100 * matmul_share, gbps, 100 * copy_share);
  }
  return text;
}

void WriteBenchReport(const std::string& path, const BenchReport& report) {
  Json json = {{"version", report.version},
               {"device", report.device},
               {"dtype", report.dtype},
               {"runs", report.runs},
               {"cases", Json::array()}};
  for (const BenchCase& found : report.cases) json["cases"].push_back(CaseJson(found));
  Write(path, json);
}

void WriteBenchReport(const std::string& path, const LayerBenchReport& report) {
  Json json = {{"version", report.version}, {"device", report.device}, {"dtype", report.dtype},
               {"runs", report.runs},       {"ranks", report.ranks},   {"recompute", report.recompute},
               {"cases", Json::array()}};
  for (const LayerBenchCase& found : report.cases) json["cases"].push_back(CaseJson(found));
  Write(path, json);
}

}  // namespace longspan
