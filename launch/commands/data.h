// `longspan data`: folders of text or code -> a tokenised Megatron dataset; `longspan data info`: what a dataset holds.
#pragma once

#include <string>

#include "launch/data/find_files.h"

namespace longspan {

struct DataOptions {
  FileSelection files;
  std::string jsonl_key;           // the files are JSON lines with the texts under this key; empty: each is a text
  std::string tokenizer = "byte";  // byte | sentencepiece
  std::string model;               // SentencePiece .model file
  std::string output;              // PREFIX: writes PREFIX.bin, .idx and .json, replacing older ones
  double validation_fraction = 0;  // > 0: writes PREFIX_train and PREFIX_validation, split by documents
};

// Both print to standard output (progress to standard error), return 0 or throw Error (usage, data, io).
int RunData(const DataOptions& options);
int RunDataInfo(const std::string& path);  // a Megatron PREFIX, an llm.c or a nanoGPT file

}  // namespace longspan
