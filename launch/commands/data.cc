// `longspan data`: folders of text or code -> a tokenised Megatron dataset; `longspan data info`: what a dataset holds.
#include "launch/commands/data.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/option_values.h"
#include "launch/commands/text_options.h"
#include "launch/data/dataset_builder.h"
#include "launch/data/dataset_record.h"
#include "launch/data/read_texts.h"
#include "launch/train/progress.h"
#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

void CheckOptions(const DataOptions& options) {
  if (options.output.empty()) Fail(ExitCode::kUsage, "data: expected --output PREFIX");
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    Fail(ExitCode::kUsage, "--validation-fraction: expected 0 to below 1, found {}", options.validation_fraction);
  }
}

std::function<int()> AddData(CLI::App& app) {
  const auto options = std::make_shared<DataOptions>();
  AddTextOptions(app, &options->texts);
  app.add_option("--output", options->output, "Writes PREFIX.bin, PREFIX.idx and PREFIX.json")->type_name("PREFIX");
  app.add_option("--tokenizer", options->tokenizer, "byte (default) or sentencepiece")->type_name("NAME");
  app.add_option("--model", options->model, "SentencePiece model")->type_name("FILE");
  app.add_option("--validation-fraction", options->validation_fraction,
                 "Above 0: writes PREFIX_train and PREFIX_validation, split by documents")
      ->check(Fraction())
      ->type_name("FRACTION");

  const auto shown = std::make_shared<DataInfoOptions>();
  CLI::App* const info = app.add_subcommand("info", "Print what a dataset holds");
  info->add_option("path", shown->path, "A Megatron PREFIX, an llm.c or a nanoGPT file, or a pattern of several")
      ->required()
      ->type_name("PATH");
  info->add_option("--sequence-length", shown->sequence_lengths,
                   "For which the share of padding is printed (2048, 16384, 65536); may be repeated")
      ->allow_extra_args(false)
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31))
      ->type_name("TOKENS");
  info->add_option("--select-block", shown->select_block, "model.nsa.select_block, where documents begin (64)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31))
      ->type_name("TOKENS");
  info->footer(R"(
Examples:
  longspan data info data/headers
  longspan data info --sequence-length 32768 'fineweb_train_*.bin')");
  return [options, shown, info] { return info->parsed() ? RunDataInfo(*shown) : RunData(*options); };
}

}  // namespace

extern const Command kData = {"data", "Turn folders of text or code into a tokenised dataset", R"(
Every file becomes one document, or with --jsonl every line; train on the result with data.train=PREFIX.

Examples:
  longspan data --output data/headers --include '*.h' --include '*.hpp' /usr/include
  longspan data --output data/web --jsonl text --include '*.jsonl.zst' downloads
  longspan data info data/headers)",
                              AddData};

int RunData(const DataOptions& options) {
  CheckOptions(options);
  const double start = WallSeconds();
  const auto tokenizer = MakeTokenizer(options.tokenizer, options.model);
  const std::vector<std::string> lost = WhatIsLost(*tokenizer);
  if (!lost.empty()) {
    fmt::print(stderr,
               "warning: {}: the tokenizer loses {}{}; for source code train it with --byte_fallback=true "
               "--normalization_rule_name=identity --remove_extra_whitespaces=false\n",
               options.model, fmt::join(lost, ", "),
               lost[0] == "line ends" ? ": every text becomes a single line" : "");
  }
  TextOptions texts = options.texts;
  for (const char* part : {"", "_train", "_validation"}) {
    for (const char* ending : {".bin", ".idx", ".json", kTokenizerEnding}) {
      for (const char* state : {"", ".partial"}) texts.files.skip.push_back(options.output + part + ending + state);
    }
  }
  FoundFiles found = FindTexts(texts, "data");
  int64_t total_bytes = 0;
  for (const FoundFile& file : found.files) total_bytes += file.bytes;

  DatasetBuilder builder(options.output, options.validation_fraction, *tokenizer);
  int64_t read = 0;
  {
    Progress progress("tokenising", total_bytes);
    read =
        ReadTexts(found, options.texts.jsonl_key,
                  {.file = [&](MappedFile file) { builder.Add(std::move(file)); },
                   .line = [&](std::string text, const std::string& name) { builder.Add(std::move(text), name); },
                   .progress =
                       [&](int64_t bytes) {
                         progress.Update(bytes, fmt::format("{} of {}", FormatBytes(bytes), FormatBytes(total_bytes)));
                       }});
    builder.Finish();
  }

  if (options.texts.jsonl_key.empty()) {
    fmt::print("files        {} read, {} empty and {} binary skipped\n", builder.documents(), builder.empty(),
               builder.binary());
  } else {
    fmt::print("files        {}: {}, {} empty ones skipped\n", read, Count(builder.documents(), "document"),
               builder.empty());
  }
  if (found.unreadable > 0) {
    fmt::print("unreadable   {}, the first {}\n", found.unreadable, found.first_unreadable);
  }
  fmt::print("tokens       {} from {} of text ({:.2f} bytes a token), {:.1f} s\n", builder.tokens(),
             FormatBytes(builder.text_bytes()),
             static_cast<double>(builder.text_bytes()) / static_cast<double>(std::max<int64_t>(builder.tokens(), 1)),
             WallSeconds() - start);
  fmt::print("longest      {}: {}\n", Count(builder.longest(), "token"), builder.longest_name());
  fmt::print("vocabulary   {} (model.vocab), tokenizer {}\n", tokenizer->vocab(), options.tokenizer);
  for (const DatasetBuilder::Part& part : builder.parts()) {
    fmt::print("written      {}.bin, .idx, .json{}: {}, {}\n", part.prefix,
               part.model ? fmt::format(", {}", kTokenizerEnding) : "", Count(part.tokens.documents(), "document"),
               Count(part.tokens.tokens(), "token"));
  }
  return 0;
}

}  // namespace longspan
