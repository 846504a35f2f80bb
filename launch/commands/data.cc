// `longspan data`: folders of text or code -> a tokenised Megatron dataset; `longspan data info`: what a dataset holds.
#include "launch/commands/data.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/option_values.h"
#include "launch/data/dataset_builder.h"
#include "launch/data/read_texts.h"
#include "launch/train/progress.h"
#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

void CheckOptions(const DataOptions& options) {
  if (options.files.inputs.empty()) Fail(ExitCode::kUsage, "data: expected at least one folder or file");
  if (options.output.empty()) Fail(ExitCode::kUsage, "data: expected --output PREFIX");
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    Fail(ExitCode::kUsage, "--validation-fraction: expected 0 to below 1, found {}", options.validation_fraction);
  }
}

[[noreturn]] void RefuseNothing(const FileSelection& files, const FoundFiles& found) {
  std::string why = "holds no file";
  if (!files.include.empty() || !files.exclude.empty()) {
    why = "no file in it matches";
    for (const std::string& pattern : files.include) why += fmt::format(" --include '{}'", pattern);
    for (const std::string& pattern : files.exclude) why += fmt::format(" --exclude '{}'", pattern);
  }
  if (found.unreadable > 0)
    why += fmt::format("; unreadable: {}, the first {}", found.unreadable, found.first_unreadable);
  Fail(ExitCode::kData, "{}: {}", fmt::join(files.inputs, ", "), why);
}

std::function<int()> AddData(CLI::App& app) {
  const auto options = std::make_shared<DataOptions>();
  app.add_option("inputs", options->files.inputs, "Folders (searched to the bottom) and files")->type_name("PATH");
  app.add_option("--output", options->output, "Writes PREFIX.bin, PREFIX.idx and PREFIX.json")->type_name("PREFIX");
  app.add_option("--include", options->files.include, "Take only files that match (* ? [a-z]); may be repeated")
      ->allow_extra_args(false)
      ->type_name("PATTERN");
  app.add_option("--exclude", options->files.exclude, "Leave out files and folders that match; may be repeated")
      ->allow_extra_args(false)
      ->type_name("PATTERN");
  app.add_option("--jsonl", options->jsonl_key,
                 "The files are JSON lines (plain, gzip or zstd), each a document whose text is under KEY")
      ->type_name("KEY");
  app.add_option("--tokenizer", options->tokenizer, "byte (default) or sentencepiece")->type_name("NAME");
  app.add_option("--model", options->model, "SentencePiece model")->type_name("FILE");
  app.add_option("--validation-fraction", options->validation_fraction,
                 "Above 0: writes PREFIX_train and PREFIX_validation, split by documents")
      ->check(Fraction())
      ->type_name("FRACTION");

  const auto path = std::make_shared<std::string>();
  CLI::App* const info = app.add_subcommand("info", "Print what a dataset holds");
  info->add_option("path", *path, "A Megatron PREFIX, an llm.c or a nanoGPT file")->required()->type_name("PATH");
  info->footer(R"(
Examples:
  longspan data info data/headers
  longspan data info fineweb_train_000001.bin)");
  return [options, path, info] { return info->parsed() ? RunDataInfo(*path) : RunData(*options); };
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
  FileSelection selection = options.files;
  for (const char* part : {"", "_train", "_validation"}) {
    for (const char* ending : {".bin", ".idx", ".json"}) {
      for (const char* state : {"", ".partial"}) selection.skip.push_back(options.output + part + ending + state);
    }
  }
  FoundFiles found = FindFiles(selection);
  if (found.files.empty()) RefuseNothing(options.files, found);
  int64_t total_bytes = 0;
  for (const FoundFile& file : found.files) total_bytes += file.bytes;

  DatasetBuilder builder(options.output, options.validation_fraction, *tokenizer);
  {
    Progress progress("tokenising", total_bytes);
    ReadTexts(found, options.jsonl_key,
              {.file = [&](MappedFile file) { builder.Add(std::move(file)); },
               .line = [&](std::string text, const std::string& name) { builder.Add(std::move(text), name); },
               .progress =
                   [&](int64_t bytes) {
                     progress.Update(bytes, fmt::format("{} of {}", FormatBytes(bytes), FormatBytes(total_bytes)));
                   }});
    builder.Finish();
  }

  if (options.jsonl_key.empty()) {
    fmt::print("files        {} read, {} empty and {} binary skipped\n", builder.documents(), builder.empty(),
               builder.binary());
  } else {
    fmt::print("files        {}: {}, {} empty ones skipped\n", std::ssize(found.files) - found.unreadable,
               Count(builder.documents(), "document"), builder.empty());
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
    fmt::print("written      {}.bin, .idx, .json: {}, {}\n", part.prefix, Count(part.tokens.documents(), "document"),
               Count(part.tokens.tokens(), "token"));
  }
  return 0;
}

}  // namespace longspan
