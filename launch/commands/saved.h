// What commands share that begin with a checkpoint.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/checkpoint/reader.h"
#include "launch/commands/command.h"
#include "launch/config/config.h"
#include "launch/config/run_config.h"
#include "launch/data/sequence_source.h"
#include "launch/data/tokenizer.h"

namespace longspan {

// A checkpoint or a run's folder (its newest checkpoint), and keys over its configuration.
struct GivenCheckpoint {
  std::string path;
  std::vector<std::string> overrides;  // key.path=value
};
// Adds the two to `app`, which fills what is returned.
std::shared_ptr<GivenCheckpoint> AddCheckpointAndKeys(CLI::App& app);

// The configuration of the run that saved it, for `ranks` ranks of this machine instead, with the keys given over it.
// Throws Error (configuration) for keys that cannot be, or that make it another model. `reads_data`: its data must be
// there to be read.
RunConfig SavedConfig(const CheckpointReader& checkpoint, const std::vector<std::string>& overrides, int64_t ranks,
                      bool reads_data);

// Throws Error (configuration) where the data's tokens are of another tokenizer than those that the run trained on.
void RequireItsTokenizer(const CheckpointReader& checkpoint, const Sources& sources);

// What tokenizer the data had that the run trained on: "byte ", "sentencepiece HASH"; "" where it is not known.
std::string TrainedTokenizer(const CheckpointReader& checkpoint);

// The tokenizer of the data that the run trained on: `given` ("byte", or the path of a SentencePiece model), where it
// is not "". Throws Error (usage) where it cannot be known and none is given, (configuration) where another is given.
std::unique_ptr<Tokenizer> TokenizerOf(const CheckpointReader& checkpoint, const std::string& given);

}  // namespace longspan
