#include "launch/train/run_log.h"

#include <fmt/ranges.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/error.h"

namespace longspan {

RunLog::RunLog(const RunConfig& config, const std::string& config_text, bool writes)
    : folder_(config.output + "/" + config.name),
      steps_(config.train.steps),
      log_interval_(config.train.log_interval),
      writes_(writes),
      progress_("training", config.train.steps, stdout, Progress::Plain::kNothing) {
  if (!writes_) return;
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) Fail(ExitCode::kIo, "{}: the run's folder cannot be made: {}", folder_, error.message());
  std::ofstream config_file(folder_ + "/config.textproto");
  config_file << config_text;
  if (!config_file.flush()) Fail(ExitCode::kIo, "{}/config.textproto: cannot be written", folder_);
  metrics_.open(folder_ + "/metrics.jsonl", std::ios::trunc);
  if (!metrics_) Fail(ExitCode::kIo, "{}/metrics.jsonl: cannot be written", folder_);
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
  const double rate = static_cast<double>(m.tokens) / m.seconds;
  metrics_ << nlohmann::json{{"kind", "step"},
                             {"step", m.step},
                             {"loss", m.loss},
                             {"grad_norm", m.grad_norm},
                             {"learning_rate", m.learning_rate},
                             {"ms", m.seconds * 1e3},
                             {"tokens_per_second", rate},
                             {"tokens", m.tokens},
                             {"memory_mib", m.memory_bytes >> 20},
                             {"coverage", m.coverage},
                             {"borrowed_mib", m.borrowed_bytes / (1 << 20)},
                             {"allocations", m.allocations},
                             {"selection", selection}}
                  .dump()
           << std::endl;  // at once: a run that is killed leaves its metrics
  if (m.step % log_interval_ == 0 || m.step == 1 || m.step == steps_) {
    Line(fmt::format("step {}/{} | loss {:.4f} | gnorm {:.3f} | lr {:.2e} | {:.0f} ms | {} tok/s | mem {} MiB", m.step,
                     steps_, m.loss, m.grad_norm, m.learning_rate, m.seconds * 1e3, FormatCount(rate),
                     m.memory_bytes >> 20));
  }
  progress_.Update(m.step, fmt::format("step {}/{}, loss {:.4f}", m.step, steps_, m.loss));
}

void RunLog::Eval(int64_t step, double loss, int64_t tokens) {
  if (!writes_) return;
  metrics_ << nlohmann::json{{"kind", "eval"}, {"step", step}, {"loss", loss}, {"tokens", tokens}}.dump() << std::endl;
  Line(fmt::format("eval {}/{} | held-out loss {:.4f} over {} tokens", step, steps_, loss, FormatCount(tokens)));
}

void RunLog::Finish() {
  if (!writes_) return;
  progress_.Clear();
  metrics_.flush();
  if (!metrics_) Fail(ExitCode::kIo, "{}/metrics.jsonl: writing failed (disk full?)", folder_);
}

std::string FormatCount(double value) {
  for (const auto& [unit, name] : {std::pair{1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (value >= unit) return fmt::format("{:.2f} {}", value / unit, name);
  }
  return fmt::format("{:.0f}", value);
}

}  // namespace longspan
