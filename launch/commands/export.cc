// `longspan export`.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/hugging_face_export.h"
#include "launch/commands/command.h"
#include "launch/commands/option_values.h"
#include "launch/commands/saved.h"
#include "launch/config/config.h"
#include "launch/train/progress.h"
#include "runtime/count.h"

namespace longspan {
namespace {

struct GivenExport {
  std::string checkpoint, folder, tokenizer;
  bool dense = false;
  DType dtype = DType::kF32;
  uint64_t shard_bytes = 5'000'000'000;
};

int Export(const GivenExport& given) {
  CheckpointReader checkpoint(NewestCheckpoint(given.checkpoint));
  const RunConfig config = ParseConfig(checkpoint.manifest().config, checkpoint.path() + ": config", {}, 0).config;
  const std::string trained = TrainedTokenizer(checkpoint);
  std::unique_ptr<Tokenizer> tokenizer;
  if (!given.tokenizer.empty() || trained.starts_with("byte") || checkpoint.manifest().files.contains(kTokenizerName)) {
    tokenizer = TokenizerOf(checkpoint, given.tokenizer);  // refuses another
  }
  const std::string name = tokenizer ? tokenizer->kind() + " " + tokenizer->hash() : trained;
  const std::string type = given.dense ? DenseType(config.model) : "longspan";
  ExportHuggingFace(checkpoint, {type, config.model, config.data.sequence_length, name}, given.folder,
                    {.dtype = given.dtype,
                     .shard_bytes = static_cast<int64_t>(given.shard_bytes),
                     .tokenizer = tokenizer.get(),
                     .progress = [shown = std::make_shared<std::unique_ptr<Progress>>()](int64_t done, int64_t total) {
                       if (!*shown) *shown = std::make_unique<Progress>("export", total);
                       (*shown)->Update(done, fmt::format("{} of {}", FormatBytes(done), FormatBytes(total)));
                     }});
  fmt::print("written {}: {} of step {}, {}{}\n", given.folder, checkpoint.path(), checkpoint.manifest().state.step,
             DTypeName(given.dtype), trained.empty() || tokenizer ? "" : "; without its tokenizer: give --tokenizer");
  return 0;
}

std::function<int()> AddExport(CLI::App& app) {
  const auto given = std::make_shared<GivenExport>();
  app.add_option("checkpoint", given->checkpoint, "A checkpoint, or a run's folder: its newest")
      ->required()
      ->type_name("RUN_OR_CHECKPOINT");
  app.add_option("folder", given->folder, "Where to: a new or empty folder")->required()->type_name("FOLDER");
  app.add_option("--dtype", given->dtype, "F32 (default) or BF16: of the tensors")
      ->transform(OneOf<DType>({{"F32", DType::kF32}, {"BF16", DType::kBf16}}))
      ->type_name("TYPE");
  app.add_flag("--dense", given->dense,
               "A model of FULL attention as Llama's or, with qk_norm, Qwen 3's: without code of ours");
  app.add_option("--tokenizer", given->tokenizer, "Of a checkpoint without one: the run's SentencePiece model, or byte")
      ->type_name("TOKENIZER");
  app.add_option("--shard-size", given->shard_bytes, "Of a file, such as 5GB (default)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true).description(""))
      ->type_name("SIZE");
  return [given] { return Export(*given); };
}

}  // namespace

extern const Command kExport = {"export", "Write a saved model in the layout of Hugging Face", R"(
FOLDER gets config.json, model.safetensors (in shards with an index where it is large), the tokenizer and
modeling_longspan.py, with which transformers loads it:
  AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)
With --dense there is no such code, and all that reads Llama's or Qwen 3's models reads it.
What the tensors are called: model/interchange/hugging_face.h. `longspan import` reads it back, with the same bits.

Examples:
  longspan export runs/quickstart exported
  longspan export runs/code exported --dtype BF16 --tokenizer code.model)",
                                AddExport};

}  // namespace longspan
