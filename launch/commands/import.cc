// `longspan import`.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "launch/checkpoint/checkpoint.h"
#include "launch/checkpoint/hugging_face_import.h"
#include "launch/commands/command.h"
#include "launch/commands/option_values.h"
#include "launch/commands/saved.h"
#include "launch/config/config.h"
#include "launch/train/progress.h"
#include "launch/version.h"
#include "model/decode/decoder.h"
#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

struct GivenImport {
  std::string from, to;
  std::vector<std::string> overrides;
  std::optional<AttentionKind> attention;
};

// The configuration of a run that goes on with the model.
RunConfig ConfigOf(const HuggingFaceModel& from, const GivenImport& given) {
  const bool dense = from.type != "longspan";
  if (!dense && given.attention) {
    Fail(ExitCode::kUsage, "--attention: {} is of Longspan's own form and keeps its attention", given.from);
  }
  const fs::path to = fs::path(given.to).lexically_normal();
  RunConfig config;
  config.name = (to.has_filename() ? to : to.parent_path()).filename().string() + "-trained";
  config.output = fs::absolute(to.has_filename() ? to : to.parent_path()).parent_path().string();
  config.model = from.model;
  if (dense && given.attention.value_or(AttentionKind::kNsa) == AttentionKind::kNsa)
    config.model.attention = {AttentionKind::kNsa};
  const int64_t unit = config.model.nsa.select_block;
  config.data.sequence_length = std::max(unit, std::min<int64_t>(from.positions, 131072) / unit * unit);
  config.train.initial_weights = fs::absolute(to).lexically_normal().string();
  const LoadedConfig loaded = ParseConfig(ConfigText(config), given.from, given.overrides, 0, /*reads_data=*/false);
  RefuseProblems(loaded.problems);
  ModelConfig same = from.model;  // but for what a dense model has not
  if (dense) {
    same.attention = loaded.config.model.attention;
    same.nsa = loaded.config.model.nsa;
  }
  if (!(loaded.config.model == same)) {
    Fail(ExitCode::kConfig, "{}: only {} may be other than the model's", given.from,
         dense ? "model.attention and model.nsa" : "what is not model.");
  }
  return loaded.config;
}

int Import(const GivenImport& given) {
  const HuggingFaceModel from = ReadHuggingFaceConfig(given.from);
  const HuggingFaceTensors tensors(given.from);
  tensors.RequireSizes(from.model);
  const RunConfig config = ConfigOf(from, given);
  std::error_code error;
  if (fs::exists(given.to, error) && !(fs::is_directory(given.to, error) && fs::is_empty(given.to, error))) {
    Fail(ExitCode::kUsage, "{}: expected a new or empty folder", given.to);
  }
  Manifest about;
  about.program = Version();
  about.time = UtcTime();
  about.device = "cpu";
  about.dtype = "F32";
  about.config = ConfigText(config);
  if (!from.tokenizer.empty()) about.data.push_back({"tokenizer of data.train", from.tokenizer, given.from});
  const auto host = MakeCpuDevice();
  const Decoder network(*host, {.model = config.model, .dtype = DType::kF32, .sequences = 1, .length = 1});
  const ParamTable& params = network.params();
  {
    Progress progress("import", params.parameters());
    ImportHuggingFace(tensors, from, config.model, params, given.to, about, [&](int64_t done, int64_t) {
      progress.Update(done, fmt::format("{} parameters", FormatCount(static_cast<double>(done))));
    });
  }
  OutputFile text(given.to + "/config.textproto");
  text.Write(about.config.data(), std::ssize(about.config));
  text.Commit();
  fmt::print(
      "written {}: {}, {} parameters\nto train on:\n  longspan train --config {}/config.textproto data.train=..\n",
      CheckpointFolder(DiskFolder(given.to)).PathOf(0), from.type,
      FormatCount(static_cast<double>(params.parameters())), given.to);
  return 0;
}

std::function<int()> AddImport(CLI::App& app) {
  const auto given = std::make_shared<GivenImport>();
  app.add_option("from", given->from, "A folder in Hugging Face's layout")->required()->type_name("FOLDER");
  app.add_option("to", given->to, "Where the checkpoint goes: a new or empty folder")->required()->type_name("RUN");
  app.add_option("--attention", given->attention, "NSA (default), or FULL: as it is; of a dense model")
      ->transform(OneOf<AttentionKind>({{"NSA", AttentionKind::kNsa}, {"FULL", AttentionKind::kFull}}))
      ->type_name("KIND");
  app.add_option("overrides", given->overrides, "Keys of the run that goes on with it, such as model.nsa.window=1024")
      ->type_name("KEY=VALUE");
  return [given] { return Import(*given); };
}

}  // namespace

extern const Command kImport = {"import", "Make a checkpoint of a model in the layout of Hugging Face", R"(
Reads what `longspan export` writes, and dense models of Llama's, Mistral's and Qwen 3's form: RMS norms, SwiGLU,
RoPE (default or YaRN), grouped keys and values, norms of queries and keys (Qwen 3). Biases, other scalings of RoPE and
tensors of other layers are refused by name; a Mistral model that slides becomes WINDOW attention, or NSA.

A dense model becomes one of NSA: each branch gets its keys and values, the gate of the selected branch is open and the
others nearly shut, compression begins as the mean. Up to model.nsa.select blocks of model.nsa.select_block tokens its logits
are nearly the dense model's; longer sequences, and the other branches, are to be trained. --attention FULL keeps it as it
is.

RUN gets a checkpoint, which eval, generate and export take, and config.textproto, to train on.

Examples:
  longspan import Llama-2-7b-hf runs/llama
  longspan import exported runs/again
  longspan import Qwen3-0.6B runs/qwen --attention FULL)",
                                AddImport};

}  // namespace longspan
