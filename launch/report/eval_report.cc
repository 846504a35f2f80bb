#include "launch/report/eval_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "runtime/count.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

using Json = nlohmann::ordered_json;

std::string LossText(const EvalReport::Loss& loss) {
  return loss.labels > 0 ? fmt::format("{:.6f}", loss.sum / static_cast<double>(loss.labels)) : "none";
}

Json LossJson(const EvalReport::Loss& loss) {
  return loss.labels > 0 ? Json(loss.sum / static_cast<double>(loss.labels)) : Json(nullptr);
}

// A line a length, a column a depth.
std::string RetrievalTable(const EvalReport& report, int64_t pairs) {
  std::set<double> depths;
  std::set<int64_t> lengths;
  for (const EvalReport::Retrieval& cell : report.retrieval) {
    if (cell.pairs != pairs) continue;
    depths.insert(cell.depth);
    lengths.insert(cell.length);
  }
  std::string text = fmt::format("\nretrieval, {}: found / asked by length and depth\n{:>10}",
                                 pairs == 1 ? "needle in a haystack" : fmt::format("one key of {}", pairs), "tokens");
  for (const double depth : depths) text += fmt::format("{:>12}", fmt::format("{:.0f}%", 100 * depth));
  text += fmt::format("{:>12}\n", "all");
  for (const int64_t length : lengths) {
    text += fmt::format("{:>10}", length);
    int64_t found = 0, asked = 0;
    for (const EvalReport::Retrieval& cell : report.retrieval) {
      if (cell.pairs != pairs || cell.length != length) continue;
      text += fmt::format("{:>12}", fmt::format("{}/{}", cell.found, cell.asked));
      found += cell.found;
      asked += cell.asked;
    }
    text += fmt::format("{:>11.1f}%\n", 100 * static_cast<double>(found) / static_cast<double>(asked));
  }
  return text;
}

}  // namespace

std::string EvalText(const EvalReport& report) {
  std::string text =
      fmt::format("{}, step {}, on {}, {}\nheld-out loss {} over {} of {} of {} tokens\n", report.checkpoint,
                  report.step, report.device, report.dtype, LossText(report.loss), Count(report.loss.labels, "label"),
                  Count(report.sequences, "sequence"), report.sequence_length);
  text += fmt::format("\n{:>20}{:>12}{:>12}\n", "position in document", "loss", "labels");
  for (const EvalReport::Positions& bucket : report.positions) {
    text += fmt::format("{:>20}{:>12}{:>12}\n", fmt::format("{} to {}", bucket.begin, bucket.end - 1),
                        LossText(bucket.loss), bucket.loss.labels);
  }
  if (!report.datasets.empty()) text += fmt::format("\n{:>12}{:>12}  dataset\n", "loss", "labels");
  for (const EvalReport::Dataset& dataset : report.datasets) {
    text += fmt::format("{:>12}{:>12}  {}\n", LossText(dataset.loss), dataset.loss.labels, dataset.name);
  }
  std::set<int64_t> pairs;
  for (const EvalReport::Retrieval& cell : report.retrieval) pairs.insert(cell.pairs);
  for (const int64_t count : pairs) text += RetrievalTable(report, count);
  return text;
}

void WriteEvalJson(const std::string& path, const EvalReport& report) {
  Json positions = Json::array(), datasets = Json::array(), retrieval = Json::array();
  for (const EvalReport::Positions& bucket : report.positions) {
    positions.push_back({{"begin", bucket.begin},
                         {"end", bucket.end},
                         {"loss", LossJson(bucket.loss)},
                         {"labels", bucket.loss.labels}});
  }
  for (const EvalReport::Dataset& dataset : report.datasets) {
    datasets.push_back({{"name", dataset.name}, {"loss", LossJson(dataset.loss)}, {"labels", dataset.loss.labels}});
  }
  for (const EvalReport::Retrieval& cell : report.retrieval) {
    retrieval.push_back({{"length", cell.length},
                         {"pairs", cell.pairs},
                         {"depth", cell.depth},
                         {"found", cell.found},
                         {"asked", cell.asked}});
  }
  const Json whole = {{"checkpoint", report.checkpoint}, {"step", report.step},
                      {"device", report.device},         {"dtype", report.dtype},
                      {"sequences", report.sequences},   {"sequence_length", report.sequence_length},
                      {"loss", LossJson(report.loss)},   {"labels", report.loss.labels},
                      {"positions", positions},          {"datasets", datasets},
                      {"retrieval", retrieval}};
  OutputFile file(path);
  const std::string text = whole.dump(2) + "\n";
  file.Write(text.data(), std::ssize(text));
  file.Commit();
}

}  // namespace longspan
