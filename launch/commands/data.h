// `longspan data`: folders of text or code -> a tokenised Megatron dataset; `longspan data info`: what a dataset holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/commands/text_options.h"

namespace longspan {

struct DataOptions {
  TextOptions texts;
  std::string tokenizer = "byte";  // byte | sentencepiece
  std::string model;               // SentencePiece .model file
  std::string output;              // PREFIX: writes PREFIX.bin, .idx and .json, replacing older ones
  double validation_fraction = 0;  // > 0: writes PREFIX_train and PREFIX_validation, split by documents
};

// Both print to standard output (progress to standard error), return 0 or throw Error (usage, data, io).
int RunData(const DataOptions& options);

struct DataInfoOptions {
  std::string path;  // a Megatron PREFIX, an llm.c or a nanoGPT file, a pattern
  std::vector<int64_t> sequence_lengths = {2048, 16384, 65536};  // for which it says what packing leaves as padding
  int64_t select_block = 64;
};
int RunDataInfo(const DataInfoOptions& options);

}  // namespace longspan
