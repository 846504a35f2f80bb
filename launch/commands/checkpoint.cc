// `longspan checkpoint info|verify`.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <numeric>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/reader.h"
#include "launch/commands/command.h"
#include "launch/train/progress.h"
#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

int64_t Elements(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

int PrintInfo(const std::string& path) {
  const CheckpointReader reader(NewestCheckpoint(path));
  const Manifest& m = reader.manifest();
  int64_t parameters = 0;
  for (const auto& [name, entry] : m.tensors) {
    if (name.starts_with("weight.")) parameters += Elements(entry.shape);
  }
  fmt::print("checkpoint   {}\n", reader.path());
  fmt::print("step         {}, {} taken, after {} of training\n", m.state.step, Count(m.state.sequences, "sequence"),
             FormatSeconds(m.state.seconds));
  fmt::print("written      {} by {}, {}\n", m.time, m.program, m.libraries);
  fmt::print("ranks        {} = dp {} x cp {}, {}, {}\n", m.ranks, m.dp, m.cp, m.device, m.dtype);
  for (const DataClaim& claim : m.data) {
    fmt::print("{:<12} {}{}\n", claim.key, claim.value, claim.from.empty() ? "" : fmt::format(" ({})", claim.from));
  }
  for (const auto& [name, values] : m.state.numbers) fmt::print("{:<12} {}\n", name, fmt::join(values, " "));
  fmt::print("parameters   {}\n", parameters);
  fmt::print("files        {}, {}\n", Count(std::ssize(m.files), "file"), FormatBytes(m.bytes()));
  fmt::print("\n{:<56} {:<5} {}\n", "tensor", "type", "shape");
  for (const auto& [name, entry] : m.tensors) {
    fmt::print("{:<56} {:<5} [{}]\n", name, DTypeName(entry.dtype), fmt::join(entry.shape, ","));
  }
  fmt::print("\n{}", m.config);
  return 0;
}

// Looks at all files, so that one run says all that is wrong.
int Verify(const std::string& path) {
  const double begin = WallSeconds();
  const CheckpointReader reader(NewestCheckpoint(path));
  std::vector<std::string> problems;
  for (const auto& [name, file] : reader.manifest().files) {
    try {
      reader.CheckFile(name);
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  }
  if (!problems.empty()) throw Error(ExitCode::kData, fmt::format("{}", fmt::join(problems, "\n")));
  const double seconds = WallSeconds() - begin;
  fmt::print("{}: complete: {}, {} read in {:.2f} s\n", reader.path(),
             Count(std::ssize(reader.manifest().files), "file"), FormatBytes(reader.manifest().bytes()), seconds);
  return 0;
}

std::function<int()> AddCheckpoint(CLI::App& app) {
  const auto path = std::make_shared<std::string>();
  app.require_subcommand(1);
  const auto add = [&](const char* name, const char* summary, const char* footer) {
    CLI::App* const command = app.add_subcommand(name, summary);
    command->add_option("path", *path, "A checkpoint, or a run's folder: its newest")->required()->type_name("PATH");
    command->footer(footer);
    return command;
  };
  CLI::App* const info = add("info", "Print what a checkpoint holds", R"(
Examples:
  longspan checkpoint info runs/quickstart)");
  add("verify", "Read all of a checkpoint and compare sizes and checksums", R"(
Examples:
  longspan checkpoint verify runs/quickstart/checkpoints/step-00000600)");
  return [path, info] { return info->parsed() ? PrintInfo(*path) : Verify(*path); };
}

}  // namespace

extern const Command kCheckpoint = {"checkpoint", "Show or check a saved run", R"(
Examples:
  longspan checkpoint info runs/quickstart
  longspan checkpoint verify runs/quickstart/checkpoints/step-00000600)",
                                    AddCheckpoint};

}  // namespace longspan
