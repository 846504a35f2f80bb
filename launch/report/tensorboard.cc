#include "launch/report/tensorboard.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "launch/report/event.pb.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

class EventFile {
 public:
  explicit EventFile(const std::string& path) : file_(path) {}
  void Add(const proto::TensorBoardEvent& event) {
    const std::string bytes = event.SerializeAsString();
    const uint64_t length = bytes.size();
    file_.Write(length);
    file_.Write(Masked({reinterpret_cast<const char*>(&length), sizeof(length)}));
    file_.Write(bytes.data(), std::ssize(bytes));
    file_.Write(Masked(bytes));
  }
  void Commit() { file_.Commit(); }

 private:
  // So that a checksum of bytes that hold checksums is none of them.
  static uint32_t Masked(std::string_view bytes) {
    const uint32_t crc = Crc32c(bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8U;
  }

  OutputFile file_;
};

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  uint32_t crc = ~0U;
  for (const char byte : bytes) {
    crc ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82F63B78U : 0);
  }
  return ~crc;
}

std::string WriteTensorBoard(const ReportedRun& run, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) Fail(ExitCode::kIo, "{}: cannot be made: {}", folder, error.message());
  const double start = run.summary.header.unix_seconds();
  const std::string name = std::filesystem::weakly_canonical(run.data.folder).filename().string();
  const std::string path = fmt::format("{}/events.out.tfevents.{:.0f}.{}", folder, std::floor(start), name);
  EventFile file(path);
  proto::TensorBoardEvent version;
  version.set_wall_time(start);
  version.set_file_version("brain.Event:2");
  file.Add(version);

  double elapsed = 0;
  for (const StepMetric& step : run.metrics.steps) {
    if (step.tokens_per_second > 0) elapsed += step.tokens / step.tokens_per_second;
    proto::TensorBoardEvent event;
    event.set_wall_time(start + elapsed);
    event.set_step(step.step);
    const auto add = [&](const char* tag, double value) {
      if (!std::isfinite(value)) return;
      proto::TensorBoardSummary::Value& scalar = *event.mutable_summary()->add_value();
      scalar.set_tag(tag);
      scalar.set_simple_value(static_cast<float>(value));
    };
    add("loss/training", step.loss);
    add("speed/tokens_per_second", step.tokens_per_second);
    add("memory/mib", step.memory / (1 << 20));
    add("selection/coverage", step.coverage);
    add("selection/borrowed_mib", step.borrowed / (1 << 20));
    for (const RunMetrics::Evaluation& evaluation : run.metrics.evaluations) {
      if (evaluation.step == step.step) add("loss/held_out", evaluation.loss);
    }
    file.Add(event);
  }
  file.Commit();
  return path;
}

}  // namespace longspan
