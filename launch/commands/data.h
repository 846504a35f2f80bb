// `longspan data`: folders of text or code -> a tokenised Megatron dataset; `longspan data info`: what a dataset holds.
#pragma once

#include <string>
#include <vector>

namespace longspan {

struct DataOptions {
  std::vector<std::string> inputs;   // folders (searched to the bottom) and files
  std::vector<std::string> include;  // take only files that match one of these; empty = all
  std::vector<std::string> exclude;  // leave out files and folders that match one of these
  std::string tokenizer = "byte";    // byte | sentencepiece
  std::string model;                 // SentencePiece .model file
  std::string output;                // PREFIX: writes PREFIX.bin and PREFIX.idx, replacing older ones
  double validation_fraction = 0;    // > 0: writes PREFIX_train and PREFIX_validation, split by documents
};
// Patterns are those of the shell (* ? [a-z]); one without '/' is held against the name, one with '/' against the path
// as listed, where * also crosses '/'. A file named in `inputs` is taken whatever the patterns say. Every file is one
// document; empty and binary files (a NUL byte) are skipped and counted, and a file reached twice (by links) is taken
// once.

// Both print to standard output (progress to standard error), return 0 or throw Error (usage, data, io).
int RunData(const DataOptions& options);
int RunDataInfo(const std::string& path);  // a Megatron PREFIX, an llm.c or a nanoGPT file

}  // namespace longspan
