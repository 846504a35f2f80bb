// `longspan generate`.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/weights.h"
#include "launch/commands/command.h"
#include "launch/commands/configured.h"
#include "launch/commands/option_values.h"
#include "launch/commands/saved.h"
#include "launch/data/text_stream.h"
#include "launch/job/machine.h"
#include "launch/job/world.h"
#include "launch/train/progress.h"
#include "model/decode/decoder.h"
#include "model/decode/sampler.h"
#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/files/safetensors.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

struct GenerateOptions {
  std::vector<std::string> prompts, files;
  std::string tokenizer, logits;
  bool ids = false;
  int64_t tokens = 256;
  Sampling sampling;
};

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) Fail(ExitCode::kIo, "--file {}: expected a file with text", path);
  return text.str();
}

std::vector<int32_t> ParseIds(const std::string& text) {
  std::vector<int32_t> ids;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size()) {
      Fail(ExitCode::kUsage, "--ids: expected token ids with spaces between, found \"{}\"", word);
    }
    ids.push_back(id);
  }
  return ids;
}

// The tokens of each prompt.
std::vector<std::vector<int32_t>> Encode(const GenerateOptions& options, const Tokenizer* tokenizer, int64_t vocab) {
  std::vector<std::string> texts = options.prompts;
  for (const std::string& path : options.files) texts.push_back(ReadText(path));
  if (texts.empty()) Fail(ExitCode::kUsage, "expected a prompt: --prompt TEXT or --file FILE");
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& text : texts) {
    const std::vector<int32_t>& prompt = prompts.emplace_back(tokenizer ? tokenizer->Encode(text) : ParseIds(text));
    if (prompt.empty()) Fail(ExitCode::kUsage, "prompt {}: expected one token or more", prompts.size());
    for (const int32_t id : prompt) {
      if (id < 0 || id >= vocab) {
        Fail(ExitCode::kUsage, "prompt {}: expected ids in [0,{}), of the model's vocabulary, found {}", prompts.size(),
             vocab, id);
      }
    }
  }
  return prompts;
}

std::string IdsText(std::span<const int32_t> ids) { return fmt::format("{}", fmt::join(ids, " ")); }

class Generator {
 public:
  Generator(const RunConfig& config, CheckpointReader& checkpoint, const GenerateOptions& options)
      : options_(options),
        tokenizer_(options.ids ? nullptr : TokenizerOf(checkpoint, options.tokenizer)),
        prompts_(Encode(options, tokenizer_.get(), config.model.vocab)) {
    const Machine machine = ChooseMachine(config.runtime);
    device_ = machine.device == DeviceKind::kGpu ? MakeGpuDevice(0) : MakeCpuDevice();
    size_t longest = 0;
    for (const auto& prompt : prompts_) longest = std::max(longest, prompt.size());
    decoder_ =
        std::make_unique<Decoder>(*device_, Decoder::Args{.model = config.model,
                                                          .dtype = machine.dtype,
                                                          .sequences = std::ssize(prompts_),
                                                          .length = static_cast<int64_t>(longest) + options.tokens});
    const int64_t available = device_->AvailableBytes();
    if (available >= 0 && decoder_->bytes() > available) {
      Fail(ExitCode::kRankFailed,
           "out of memory: the model and its caches take {}, {} has {} available; give fewer or shorter prompts, or "
           "less --tokens",
           FormatBytes(decoder_->bytes()), device_->name(), FormatBytes(available));
    }
    decoder_->Start();
    LoadWeights(checkpoint, *device_, decoder_->stream(), decoder_->params());
  }

  void Run() {
    std::vector<Sampler> samplers;
    std::vector<Decoder::Entry> entries;
    texts_ = prompts_;
    for (int64_t i = 0; i < std::ssize(prompts_); ++i) {
      samplers.emplace_back(options_.sampling, i);
      entries.push_back({i, prompts_[i]});
    }
    const bool streams = prompts_.size() == 1;
    std::optional<Progress> progress;
    if (!streams) progress.emplace("generate", options_.tokens);
    if (streams) Begin();
    const double begin = WallSeconds();
    if (!options_.logits.empty()) ReadAllButLast(entries[0]);
    for (int64_t step = 0; step < options_.tokens; ++step) {
      const auto logits = decoder_->Append(entries);
      Keep(logits[0]);
      for (size_t i = 0; i < texts_.size(); ++i) {
        const std::span<const float> all = logits[i];  // the model may have more than the tokenizer knows
        const size_t known = tokenizer_ ? std::min<size_t>(all.size(), tokenizer_->vocab()) : all.size();
        texts_[i].push_back(samplers[i].Next(all.first(known)));
        entries[i].tokens = std::span(texts_[i]).last(1);
      }
      if (streams) Say();
      if (progress) progress->Update(step + 1, fmt::format("{}/{} tokens", step + 1, options_.tokens));
    }
    progress.reset();
    if (streams) {
      End();
    } else {
      SayAll();
    }
    if (!options_.logits.empty()) WriteLogits();
    const double seconds = WallSeconds() - begin;
    const auto tokens = static_cast<double>(options_.tokens * std::ssize(texts_));
    fmt::print(stderr, "{} in {:.2f} s, {:.0f} tokens/s on {}\n", Count(static_cast<int64_t>(tokens), "token"), seconds,
               tokens / seconds, device_->name());
  }

 private:
  // Token by token, for the logits after each.
  void ReadAllButLast(Decoder::Entry& entry) {
    for (; entry.tokens.size() > 1; entry.tokens = entry.tokens.subspan(1)) {
      const Decoder::Entry next{entry.sequence, entry.tokens.first(1)};
      Keep(decoder_->Append({&next, 1})[0]);
    }
  }
  void Keep(const std::vector<float>& logits) {
    if (!options_.logits.empty()) logits_.insert(logits_.end(), logits.begin(), logits.end());
  }
  void WriteLogits() {
    const auto rows = std::ssize(texts_[0]) - 1;
    WriteSafetensors(options_.logits, {{"tokens", HostView(texts_[0].data(), {rows})},
                                       {"logits", HostView(logits_.data(), {rows, std::ssize(logits_) / rows})}});
  }

  // One text appears as it comes.
  void Begin() {
    if (tokenizer_) {
      stream_.emplace(*tokenizer_);
      Print(stream_->Add(texts_[0]));
    } else {
      Print(IdsText(texts_[0]));
    }
  }
  void Say() { Print(stream_ ? stream_->Add({&texts_[0].back(), 1}) : fmt::format(" {}", texts_[0].back())); }
  void End() { Print((stream_ ? stream_->Rest() : "") + "\n"); }
  static void Print(const std::string& text) {
    if (text.empty()) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  void SayAll() {
    for (size_t i = 0; i < texts_.size(); ++i) {
      Print(fmt::format("== prompt {}\n{}\n", i + 1,
                        tokenizer_ ? Printable(tokenizer_->Decode(texts_[i])) : IdsText(texts_[i])));
    }
  }

  const GenerateOptions& options_;
  const std::unique_ptr<Tokenizer> tokenizer_;  // null: ids
  const std::vector<std::vector<int32_t>> prompts_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<std::vector<int32_t>> texts_;
  std::optional<TextStream> stream_;
  std::vector<float> logits_;  // after each token of the only text, where they are wanted
};

int Generate(const GivenCheckpoint& given, const GenerateOptions& options) {
  if (!options.logits.empty() && options.prompts.size() + options.files.size() != 1) {
    Fail(ExitCode::kUsage, "--logits: expected one prompt, found {}", options.prompts.size() + options.files.size());
  }
  if (AskLauncher().ranks > 1) {
    Fail(ExitCode::kUsage, "generate runs in one process, found {} ranks: leave mpirun away", AskLauncher().ranks);
  }
  CheckpointReader checkpoint(NewestCheckpoint(given.path));
  const RunConfig config = Settle(SavedConfig(checkpoint, given.overrides, 1, /*reads_data=*/false), 1);
  Generator(config, checkpoint, options).Run();
  return 0;
}

std::function<int()> AddGenerate(CLI::App& app) {
  const auto given = AddCheckpointAndKeys(app);
  const auto options = std::make_shared<GenerateOptions>();
  app.add_option("--prompt", options->prompts, "Text to go on from; may be repeated")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  app.add_option("--file", options->files, "A file of such a text; may be repeated")
      ->allow_extra_args(false)
      ->type_name("FILE");
  app.add_flag("--ids", options->ids, "Prompts and output are token ids with spaces between");
  app.add_option("--tokenizer", options->tokenizer, "byte, or a SentencePiece model (default: the run's)")
      ->type_name("TOKENIZER");
  app.add_option("--tokens", options->tokens, "New tokens of each prompt")
      ->transform(WholeNumber(1, int64_t{1} << 31))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--logits", options->logits,
                 "Where the logits after each token go, of one prompt: safetensors, tokens [n] and logits [n,X]")
      ->type_name("FILE");
  app.add_option("--temperature", options->sampling.temperature, "Of the softmax; 0 takes the likeliest token")
      ->check(CLI::Range(0.0, 1e6).description(""))
      ->type_name("T")
      ->group("Sampling")
      ->capture_default_str();
  app.add_option("--top-k", options->sampling.top_k, "Draw from so many of the likeliest; 0 is from all")
      ->transform(WholeNumber(0, int64_t{1} << 31))
      ->type_name("K")
      ->group("Sampling")
      ->capture_default_str();
  app.add_option("--top-p", options->sampling.top_p, "Draw from the likeliest that make up this probability")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("P")
      ->group("Sampling")
      ->capture_default_str();
  app.add_option("--seed", options->sampling.seed, "The same draws the same")
      ->type_name("N")
      ->group("Sampling")
      ->capture_default_str();
  return [given, options] { return Generate(*given, *options); };
}

}  // namespace

extern const Command kGenerate = {"generate", "Write on from a prompt with a saved model", R"(
One prompt's text appears as it is made; several are made as a batch and printed at the end. Keys and values of what came
before lie in caches, so that a token takes as long as its attention. A model whose data has no tokenizer that is known
(datasets of other makers) takes --tokenizer or --ids. Runs in one process, on a GPU where there is one.

Examples:
  longspan generate runs/quickstart --prompt 'template <typename T>' --tokens 200 --temperature 0.8
  longspan generate runs/quickstart --file start.txt --top-k 40 --top-p 0.95 --seed 7
  longspan generate runs/fibonacci --ids --prompt '1 1 2' --temperature 0)",
                                  AddGenerate};

}  // namespace longspan
