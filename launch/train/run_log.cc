#include "launch/train/run_log.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

using nlohmann::json;

// Of this process, its arguments with spaces between.
std::string CommandLine() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  while (text.ends_with('\0')) text.pop_back();
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

// A line of the metrics; null for what is none.
json ParseLine(const std::string& text) {
  json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
  return line.is_object() && line.contains("kind") ? line : json();
}

struct Lost {
  int64_t steps = 0;
  double seconds = 0;
};

// Steps after `after` are taken again: their lines say so. The last line may have been cut when the run was killed.
Lost MarkLost(const std::string& path, int64_t after) {
  Lost lost;
  std::ifstream before(path, std::ios::binary);
  if (!before) return lost;
  OutputFile file(path);
  for (std::string text; std::getline(before, text);) {
    json line = ParseLine(text);
    if (line.is_null()) continue;
    const json kind = line["kind"];
    if ((kind == "step" || kind == "eval") && line.value("step", int64_t{0}) > after) {
      if (kind == "step") {
        ++lost.steps;
        lost.seconds += line.value("ms", 0.0) * 1e-3;
      }
      line["kind"] = "lost";
      line["was"] = kind;
      text = line.dump();
    }
    text += '\n';
    file.Write(text.data(), static_cast<int64_t>(text.size()));
  }
  file.Commit();
  return lost;
}

// Since the file was last written; 0 when it is not there.
double SecondsSince(const std::string& path) {
  std::error_code error;
  const auto written = std::filesystem::last_write_time(path, error);
  if (error) return 0;
  return std::chrono::duration<double>(std::filesystem::file_time_type::clock::now() - written).count();
}

// "epoch 0.25", of several datasets "epochs 0.25 to 1.50".
std::string EpochText(const std::vector<double>& epochs) {
  if (epochs.empty()) return "no epochs";
  const auto [least, most] = std::minmax_element(epochs.begin(), epochs.end());
  return epochs.size() == 1 ? fmt::format("epoch {:.2f}", *least)
                            : fmt::format("epochs {:.2f} to {:.2f}", *least, *most);
}

// JSON has no NaN: what there is none of is null.
json Number(double value, bool known) { return known ? json(value) : json(); }

}  // namespace

RunLog::RunLog(const RunConfig& config, std::string folder, bool writes)
    : config_(config),
      path_(std::move(folder) + "/metrics.jsonl"),
      writes_(writes),
      progress_("training", config.train.steps, stdout, Progress::Plain::kNothing) {}

double RunLog::Elapsed() const { return WallSeconds() - start_; }

void RunLog::Write(const std::string& line) {
  const std::string text = line + "\n";
  // At once: a run that is killed leaves its metrics.
  if (std::fwrite(text.data(), 1, text.size(), metrics_.get()) != text.size() || std::fflush(metrics_.get()) != 0) {
    const int error = errno;
    progress_.Clear();
    Fail(ExitCode::kIo, "{}: cannot be written: {}; what was written before is good", path_, std::strerror(error));
  }
}

void RunLog::Start(const StartMetrics& m) {
  start_ = WallSeconds() - m.seconds;
  if (!writes_) return;
  const double down = SecondsSince(path_);
  const Lost lost = m.resumes ? MarkLost(path_, m.after) : Lost();
  metrics_.reset(std::fopen(path_.c_str(), m.resumes ? "a" : "w"));
  if (!metrics_) Fail(ExitCode::kIo, "{}: cannot be written: {}", path_, std::strerror(errno));
  json line = {{"kind", m.resumes ? "resume" : "start"},
               {"version", m.version},
               {"time", UtcTime()},
               {"command", CommandLine()},
               {"ranks", m.ranks},
               {"dp", config_.parallel.dp},
               {"cp", config_.parallel.cp},
               {"device", m.device},
               {"dtype", m.dtype},
               {"parameters", m.parameters},
               {"step_tflop", m.step_flops * 1e-12},
               {"peak_tflops", m.peak_flops * 1e-12},
               {"environment", m.environment}};
  if (m.resumes) {
    line["after"] = m.after;
    line["lost_steps"] = lost.steps;
    line["lost_seconds"] = lost.seconds;
    line["down_seconds"] = down;
    line["start_seconds"] = m.startup_seconds;
    Line(
        fmt::format("  restart    {} of {:.2f} s done again; {:.1f} s after the last line of the metrics, {:.1f} s of "
                    "them since this program was started",
                    Count(lost.steps, "step"), lost.seconds, down, m.startup_seconds));
  }
  Write(line.dump(-1, ' ', false, json::error_handler_t::replace));  // a path may be no text
}

void RunLog::Line(const std::string& text) {
  if (!writes_) return;
  progress_.Clear();
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

void RunLog::Step(const StepMetrics& m) {
  if (!writes_) return;
  std::vector<std::string> selection;
  for (uint64_t hash : m.selection) selection.push_back(fmt::format("{:016x}", hash));
  const double tokens = static_cast<double>(m.tokens) / m.seconds, labels = static_cast<double>(m.labels) / m.seconds;
  json line = {{"kind", "step"},
               {"step", m.step},
               {"elapsed", Elapsed()},
               {"loss", Number(m.loss, m.labels > 0)},
               {"grad_norm", m.grad_norm},
               {"loss_z", m.loss_z},
               {"norm_z", m.norm_z},
               {"skipped", m.skipped},
               {"learning_rate", m.learning_rate},
               {"ms", m.seconds * 1e3},
               {"tokens", m.tokens},
               {"tokens_per_second", tokens},
               {"labels", m.labels},
               {"labels_per_second", labels},
               {"peak_share", m.peak_share},
               {"memory_mib", m.memory_bytes >> 20},
               {"coverage", m.coverage},
               {"borrowed_mib", m.borrowed_bytes / (1 << 20)},
               {"allocations", m.allocations},
               {"epochs", m.epochs},
               {"selection", selection}};
  if (!m.cause.empty()) line["cause"] = m.cause;
  Write(line.dump());
  const int64_t steps = config_.train.steps;
  const std::string loss = m.labels > 0 ? fmt::format("loss {:.4f}", m.loss) : "no label, no loss";
  if (m.step % config_.train.log_interval == 0 || m.step == 1 || m.step == steps || m.skipped) {
    Line(fmt::format(
        "step {}/{} | {} | gnorm {:.3f}{} | lr {:.2e} | {:.0f} ms | {} tok/s, {} labels/s | {:.0f}% of peak "
        "| mem {} MiB | {}",
        m.step, steps, loss, m.grad_norm, m.skipped ? ", update skipped" : "", m.learning_rate, m.seconds * 1e3,
        FormatCount(tokens), FormatCount(labels), 100 * m.peak_share, m.memory_bytes >> 20, EpochText(m.epochs)));
  }
  if (!m.cause.empty()) Line(fmt::format("warning: step {}: {}", m.step, m.cause));
  progress_.Update(m.step, fmt::format("step {}/{}, {}", m.step, steps, loss));
}

void RunLog::Selection(int64_t step, const RecordedSelections& recorded) {
  if (!writes_) return;
  Line(recorded.line);
  json list = json::array();
  for (const auto& [layer, stats] : recorded.layers) {
    list.push_back({{"layer", layer},
                    {"local", stats.local},
                    {"halo", stats.halo},
                    {"remote", stats.remote},
                    {"distinct_blocks", stats.distinct_blocks},
                    {"distinct_share", stats.distinct_share},
                    {"jaccard", stats.jaccard},
                    {"hottest", stats.hottest},
                    {"union_2", stats.union2},
                    {"union_4", stats.union4},
                    {"union_8", stats.union8}});
  }
  Write(json{{"kind", "selection"}, {"step", step}, {"layers", list}}.dump());
}

void RunLog::Eval(int64_t step, double loss, int64_t tokens) {
  if (!writes_) return;
  Write(json{
      {"kind", "eval"}, {"step", step}, {"elapsed", Elapsed()}, {"loss", Number(loss, tokens > 0)}, {"tokens", tokens}}
            .dump());
  const std::string found = tokens > 0 ? fmt::format("held-out loss {:.4f} over {} tokens", loss, FormatCount(tokens))
                                       : "no label in the held-out sequences, no loss";
  Line(fmt::format("eval {}/{} | {}", step, config_.train.steps, found));
}

void RunLog::Stop(int64_t step, const std::string& reason) {
  if (metrics_) Write(json{{"kind", "stop"}, {"step", step}, {"elapsed", Elapsed()}, {"reason", reason}}.dump());
}

bool RunLog::HoldsEvaluation(int64_t step) const {
  std::ifstream file(path_, std::ios::binary);
  for (std::string text; std::getline(file, text);) {
    const json line = ParseLine(text);
    if (!line.is_null() && line["kind"] == "eval" && line["step"] == step) return true;
  }
  return false;
}

}  // namespace longspan
