// From a checkpoint to the layout of Hugging Face (model/interchange/hugging_face.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "launch/checkpoint/reader.h"
#include "launch/data/tokenizer.h"
#include "model/interchange/hugging_face.h"

namespace longspan {

struct ExportOptions {
  DType dtype = DType::kF32;                     // of the tensors; F32 or BF16
  int64_t shard_bytes = int64_t{5'000'000'000};  // of a file, unless one tensor is larger
  const Tokenizer* tokenizer = nullptr;          // to take along; null: none
  std::function<void(int64_t done, int64_t total)> progress = [](int64_t, int64_t) {};  // bytes
};

// Makes the folder, which must be new or empty, with config.json, the tensors, the tokenizer and, of our own
// type, modeling_longspan.py.
// Throws Error (usage, io, data).
void ExportHuggingFace(CheckpointReader& checkpoint, const HuggingFaceModel& model, const std::string& folder,
                       const ExportOptions& options);

extern const char* const kModelingLongspan;  // the text of modeling_longspan.py

}  // namespace longspan
