// DatasetRecord: what a dataset was made with and what is in it, beside it as PREFIX.json:
//
//   {"tokenizer": "sentencepiece", "tokenizer_hash": "<hex>", "tokens": N, "documents": N, "largest_id": N}
//
// `longspan data` writes it, and where the tokenizer has a model that too, as PREFIX.tokenizer.model; datasets of other
// makers have neither.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "launch/data/dataset.h"
#include "runtime/files/output_file.h"

namespace longspan {

struct DatasetRecord {
  std::string tokenizer;       // its kind: "byte", "sentencepiece"
  std::string tokenizer_hash;  // of its model: the same text gives the same ids where both are the same; "" for byte
  int64_t tokens = 0, documents = 0;
  int64_t largest_id = 0;
  bool operator==(const DatasetRecord&) const = default;
  std::string Tokenizer() const;  // "sentencepiece (model 0123456789abcdef)"
};

// The record of the dataset `path` (with or without .bin or .idx). None when there is no file of that name, or one that
// is no record (a text in JSON, say). Throws Error: (io) when it cannot be read, (data) when a value is not what it
// should be.
std::optional<DatasetRecord> ReadDatasetRecord(const std::string& path);

// The same of an open dataset; of one in several files, where all have one, of them together. Throws Error (data) also
// when a record counts other tokens or documents, since one of the two was replaced without the other, and when files
// of one dataset are of different tokenizers.
std::optional<DatasetRecord> RecordOf(const Dataset& dataset);

inline constexpr const char* kTokenizerEnding = ".tokenizer.model";

// The bytes of the model of the dataset's tokenizer, where it lies beside it and is the one of the record; "" else.
std::string TokenizerModelOf(const Dataset& dataset);

void WriteDatasetRecord(const DatasetRecord& record, OutputFile* file);  // does not commit; throws Error (io)

}  // namespace longspan
