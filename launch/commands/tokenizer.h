// `longspan tokenizer train`: folders of text or code -> a SentencePiece model.
#pragma once

#include <string>

#include "launch/commands/text_options.h"
#include "launch/data/train_tokenizer.h"

namespace longspan {

struct TokenizerOptions {
  TextOptions texts;
  TokenizerTraining training;
  std::string output;       // PREFIX: writes PREFIX.model, replacing an older one
  int64_t sample_mib = 32;  // of text that it is trained on, at most
};

// Prints to standard output (progress to standard error), returns 0 or throws Error (usage, data, io).
int RunTokenizerTrain(const TokenizerOptions& options);

}  // namespace longspan
