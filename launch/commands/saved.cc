#include "launch/commands/saved.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <numeric>

#include "launch/checkpoint/folder.h"
#include "launch/config/config.h"
#include "launch/train/about.h"
#include "runtime/error.h"

namespace longspan {

std::shared_ptr<GivenCheckpoint> AddCheckpointAndKeys(CLI::App& app) {
  const auto given = std::make_shared<GivenCheckpoint>();
  app.add_option("checkpoint", given->path, "A checkpoint, or a run's folder: its newest")
      ->required()
      ->type_name("RUN_OR_CHECKPOINT");
  app.add_option("overrides", given->overrides, "Keys over the run's configuration, such as runtime.device=CPU")
      ->type_name("KEY=VALUE");
  return given;
}

RunConfig SavedConfig(const CheckpointReader& checkpoint, const std::vector<std::string>& overrides, int64_t ranks,
                      bool reads_data) {
  const std::string name = checkpoint.path() + ": config";
  const RunConfig saved = ParseConfig(checkpoint.manifest().config, name, {}, 0).config;
  // What the run's own ranks and machine settled, and what only training asks for.
  std::vector<std::string> keys = {"runtime.device=AUTO",
                                   "runtime.dtype=AUTO",
                                   "parallel.transport=AUTO",
                                   "parallel.dp=0",
                                   fmt::format("parallel.cp={}", std::gcd(saved.parallel.cp, ranks)),
                                   fmt::format("train.sequences_per_step={}", ranks),
                                   "train.recompute=FULL",
                                   "train.offload=false",
                                   "data.stages=",
                                   "train.frozen_selection=",
                                   "train.initial_weights=",
                                   "train.record_selection="};
  keys.insert(keys.end(), overrides.begin(), overrides.end());
  const LoadedConfig loaded = ParseConfig(checkpoint.manifest().config, name, keys, ranks, reads_data);
  RefuseProblems(loaded.problems);
  const auto then = ConfigValues(saved), now = ConfigValues(loaded.config);
  for (size_t i = 0; i < now.size(); ++i) {
    const std::string& key = now[i].first;
    if (key.starts_with("model.") && now[i].second != then[i].second) {
      Fail(ExitCode::kConfig, "{} = {}: the checkpoint's model has {}", key, now[i].second, then[i].second);
    }
  }
  return loaded.config;
}

void RequireItsTokenizer(const CheckpointReader& checkpoint, const Sources& sources) {
  for (const DataClaim& now : DataClaims(sources)) {
    if (!now.key.starts_with("tokenizer")) continue;
    for (const DataClaim& then : checkpoint.manifest().data) {
      if (!then.key.starts_with("tokenizer") || then.value == now.value) continue;
      Fail(ExitCode::kConfig, "{}: {} in the checkpoint, {} now: name data of the same tokenizer", now.key, then.value,
           now.value);
    }
  }
}

std::string TrainedTokenizer(const CheckpointReader& checkpoint) {
  for (const DataClaim& claim : checkpoint.manifest().data) {
    if (claim.key.starts_with("tokenizer")) return claim.value;
  }
  return "";
}

std::unique_ptr<Tokenizer> TokenizerOf(const CheckpointReader& checkpoint, const std::string& given) {
  const std::string trained = TrainedTokenizer(checkpoint);
  if (given.empty()) {
    if (trained.starts_with("byte")) return MakeByteTokenizer();
    const std::string model = checkpoint.path() + "/" + kTokenizerName;
    if (checkpoint.manifest().files.contains(kTokenizerName)) return LoadSentencePiece(model);
    Fail(ExitCode::kUsage, "{}: its tokenizer is {}: give --tokenizer, or --ids", checkpoint.path(),
         trained.empty() ? "not known" : trained);
  }
  auto tokenizer = given == "byte" ? MakeByteTokenizer() : LoadSentencePiece(given);
  const std::string found = tokenizer->kind() + " " + tokenizer->hash();
  if (!trained.empty() && found != trained) {
    Fail(ExitCode::kConfig, "--tokenizer {}: it is {}, the run trained on {}", given, found, trained);
  }
  return tokenizer;
}

}  // namespace longspan
