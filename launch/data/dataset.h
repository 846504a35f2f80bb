// Dataset: the documents of tokenised, memory-mapped files, whatever their format.
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
  std::string file;
  int64_t document;  // of the file
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
  // The documents of several (one or more), one after another; `path` names them all. Throws Error (data) naming two
  // files when their tokens are not of one type.
  static Dataset Join(std::string path, std::vector<Dataset> datasets);

  const std::string& format() const { return format_; }  // "Megatron"
  const std::string& path() const { return path_; }      // of its file, or what names its files
  struct Span {
    std::string path;  // of a file
    int64_t documents, tokens;
  };
  std::vector<Span> files() const;
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
  // What it is and a hash of its document bounds and of tokens all over it: the same for the same data, wherever and in
  // how many files it lies, and hardly ever for other data.
  std::string Fingerprint() const;

 private:
  struct File {
    MappedFile mapped;
    int64_t first_byte;
    int64_t first_document, first_token, end_token;  // of all
  };
  const File& FileOf(int64_t token) const;
  const std::byte* TokenAt(int64_t token) const;  // followed by those of its file
  BadToken Locate(int64_t token) const;

  std::string format_, path_;
  std::vector<File> files_;
  TokenType type_;
  std::vector<int64_t> bounds_;  // ascending, from 0
  int64_t vocab_;
};

// Opens `path` (for Megatron the prefix of .bin and .idx). A path that is no file's is a pattern of the shell (* ?
// [a-z]) and means all files that match, as one dataset in the order of their names (bytes). Throws Error: (io) when
// one cannot be read or none matches, (data) when it is not what the format says, naming the file, the field or byte,
// what was expected and what was found.
Dataset OpenDataset(DataFormat format, const std::string& path, const DatasetOptions& options = {});

// The format of files or Megatron prefixes, by the first one's magic number; a file without one counts as nanoGPT's.
DataFormat DetectFormat(const std::string& path);

}  // namespace longspan
