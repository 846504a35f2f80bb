// Dataset: the documents of a tokenised, memory-mapped file, whatever its format.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "runtime/files/mapped_file.h"

namespace longspan {

enum class TokenType { kU8, kI8, kU16, kI16, kU32, kI32, kI64 };
int64_t TokenBytes(TokenType type);
const char* TokenTypeName(TokenType type);  // "u16"

// A token id that is negative or not below the vocabulary, and its place.
struct BadToken {
  int64_t document;
  int64_t offset;
  int64_t id;
};

struct DatasetOptions {
  int64_t vocab = int64_t{1} << 31;  // Read refuses ids from here on
  // The id that separates documents in files that do not say where documents end. Default: GPT-2's 50256, or Llama 3's
  // 128000 in llm.c files of version 7. Where it never occurs, the file is one document. Not used for Megatron.
  std::optional<int64_t> separator;
};

class Dataset {
 public:
  // Tokens of `type` lie in `file` from byte `first_byte` on; document i is tokens [bounds[i], bounds[i+1]).
  Dataset(std::string format, MappedFile file, int64_t first_byte, TokenType type, std::vector<int64_t> bounds,
          int64_t vocab);

  const std::string& format() const { return format_; }  // "Megatron"
  const std::string& path() const { return file_.path(); }
  TokenType type() const { return type_; }
  int64_t documents() const { return static_cast<int64_t>(bounds_.size()) - 1; }
  int64_t tokens() const { return bounds_.back(); }
  int64_t DocumentLength(int64_t document) const { return bounds_[document + 1] - bounds_[document]; }
  // Tokens [offset, offset + out.size()) of the document. Throws Error (data) naming the file, the document and the
  // offset for an id that is negative or not below the vocabulary.
  void Read(int64_t document, int64_t offset, std::span<int32_t> out) const;
  // The first bad token of part `part` of `parts` equal ones of all tokens. Reads nothing where the type holds no bad
  // id. Breaks off when `stop`, asked every so many tokens, says so.
  std::optional<BadToken> FindBadToken(int64_t part = 0, int64_t parts = 1,
                                       const std::function<bool()>& stop = {}) const;
  // What it is and a hash of its document bounds and of tokens all over it: the same for the same data, wherever the
  // file lies, and hardly ever for other data.
  std::string Fingerprint() const;

 private:
  const std::byte* TokenAt(int64_t token) const { return file_.data() + first_byte_ + token * TokenBytes(type_); }
  BadToken Locate(int64_t token) const;  // in the document that holds it

  std::string format_;
  MappedFile file_;
  int64_t first_byte_;
  TokenType type_;
  std::vector<int64_t> bounds_;  // ascending, from 0
  int64_t vocab_;
};

// Opens `path` (for Megatron the prefix of .bin and .idx). Throws Error: (io) when it cannot be read, (data) when it is
// not what the format says, naming the file, the field or byte, what was expected and what was found.
Dataset OpenDataset(DataFormat format, const std::string& path, const DatasetOptions& options = {});

// The format of a file or Megatron prefix, by its magic number; a file without one counts as nanoGPT's.
DataFormat DetectFormat(const std::string& path);

}  // namespace longspan
