#include "launch/commands/tokenizer.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "launch/commands/command.h"
#include "launch/data/read_texts.h"
#include "launch/data/tokenizer.h"
#include "launch/train/progress.h"
#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

void CheckOptions(const TokenizerOptions& options) {
  if (options.output.empty()) Fail(ExitCode::kUsage, "tokenizer train: expected --output PREFIX");
  if (options.training.type != "unigram" && options.training.type != "bpe") {
    Fail(ExitCode::kUsage, "--type: expected unigram or bpe, found \"{}\"", options.training.type);
  }
}

std::function<int()> AddTokenizer(CLI::App& app) {
  const auto options = std::make_shared<TokenizerOptions>();
  app.require_subcommand(1);
  CLI::App* const train = app.add_subcommand("train", "Train a SentencePiece model on texts");
  AddTextOptions(*train, &options->texts);
  train->add_option("--output", options->output, "Writes PREFIX.model")->type_name("PREFIX");
  train
      ->add_option("--vocab", options->training.vocab,
                   "Pieces in all: model.vocab. 256 are single bytes, so that every text comes back as it was")
      ->required()
      ->check(CLI::Range(int64_t{260}, int64_t{1} << 24))
      ->type_name("N");
  train->add_option("--type", options->training.type, "unigram (default) or bpe")->type_name("NAME");
  train
      ->add_option("--character-coverage", options->training.coverage,
                   "Share of the characters that get pieces (0.9995); less where there are many, as in Chinese")
      ->check(CLI::Range(0.5, 1.0))
      ->type_name("SHARE");
  train
      ->add_option("--sample", options->sample_mib,
                   "MiB of text that it is trained on, evenly spread over all of it (32); memory is some 50 times that")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->type_name("MIB");
  train->footer(R"(
Examples:
  longspan tokenizer train --vocab 8192 --output data/code --include '*.h' /usr/include
  longspan data --tokenizer sentencepiece --model data/code.model --output data/headers --include '*.h' /usr/include)");
  return [options] { return RunTokenizerTrain(*options); };
}

}  // namespace

extern const Command kTokenizer = {"tokenizer", "Train a tokenizer on folders of text or code", R"(
Examples:
  longspan tokenizer train --vocab 8192 --output data/code --include '*.h' /usr/include)",
                                   AddTokenizer};

int RunTokenizerTrain(const TokenizerOptions& options) {
  CheckOptions(options);
  const double start = WallSeconds();
  FoundFiles found = FindTexts(options.texts, "tokenizer train");
  int64_t total_bytes = 0;
  for (const FoundFile& file : found.files) total_bytes += file.bytes;
  const std::string path = options.output + ".model";
  if (const auto folder = std::filesystem::path(path).parent_path(); !folder.empty()) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) Fail(ExitCode::kIo, "{}: cannot create the folder: {}", folder.string(), error.message());
  }
  OutputFile output(path);

  TextSample sample(options.sample_mib << 20);
  int64_t read = 0;
  {
    Progress progress("reading", total_bytes);
    read =
        ReadTexts(found, options.texts.jsonl_key,
                  {.file =
                       [&](const MappedFile& file) {
                         const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
                         if (text.find('\0') == std::string_view::npos) sample.Add(text);
                       },
                   .line = [&](const std::string& text, const std::string&) { sample.Add(text); },
                   .progress =
                       [&](int64_t bytes) {
                         progress.Update(bytes, fmt::format("{} of {}", FormatBytes(bytes), FormatBytes(total_bytes)));
                       }});
  }
  if (sample.lines().empty()) Fail(ExitCode::kData, "no text found in {}", Count(std::ssize(found.files), "file"));
  fmt::print("texts        {} of {}, trained on {} of it\n", FormatBytes(sample.seen_bytes()), Count(read, "file"),
             FormatBytes(sample.bytes()));
  if (found.unreadable > 0) {
    fmt::print("unreadable   {}, the first {}\n", found.unreadable, found.first_unreadable);
  }
  std::fflush(stdout);
  const std::string model = TrainTokenizer(options.training, sample);
  output.Write(model.data(), std::ssize(model));
  output.Commit();

  const auto tokenizer = LoadSentencePiece(path);
  int64_t bytes = 0, tokens = 0;
  for (size_t i = 0; i < sample.lines().size() && bytes < int64_t{1} << 20; ++i) {
    bytes += std::ssize(sample.lines()[i]);
    tokens += std::ssize(tokenizer->Encode(sample.lines()[i]));
  }
  fmt::print("tokenizer    {} of {} pieces (model.vocab), {:.2f} bytes a token, {:.1f} s\n", options.training.type,
             tokenizer->vocab(), static_cast<double>(bytes) / static_cast<double>(tokens), WallSeconds() - start);
  fmt::print("written      {}, hash {}\n", path, tokenizer->hash());
  return 0;
}

}  // namespace longspan
