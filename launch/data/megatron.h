// Megatron's indexed dataset: PREFIX.bin holds the tokens, PREFIX.idx says where documents begin. Little-endian:
//
//   .bin  raw tokens, nothing else
//   .idx  0         9 bytes  "MMIDIDX\0\0"
//         9         u64      version, 1
//         17        u8       type of a token: 1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 6 f64, 7 f32, 8 u16
//         18        u64      S, number of sequences
//         26        u64      D, number of document bounds (documents + 1)
//         34        i32[S]   tokens of each sequence
//         34+4S     i64[S]   byte where each sequence begins in .bin
//         34+12S    i64[D]   first sequence of each document, then S
//         34+12S+8D i8[S]    mode of each sequence, in multimodal files only
//
// Sequences are required to follow each other in .bin without gaps, as every writer leaves them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "launch/data/dataset.h"
#include "runtime/files/output_file.h"

namespace longspan {

Dataset OpenMegatron(const std::string& path, const DatasetOptions& options);
std::string MegatronPrefix(const std::string& path);  // without .bin or .idx

// Streams documents to PREFIX.bin and PREFIX.idx, locked meanwhile. Tokens are u8 up to 256 ids, u16 below 65500
// (Megatron's own bound), else i32. Throws Error (io), and (data) for an id outside the vocabulary.
class MegatronWriter {
 public:
  MegatronWriter(const std::string& prefix, int64_t vocab);
  void Append(std::span<const int32_t> tokens);  // to the open document, as one sequence; at most 2^31-1 tokens
  void EndDocument();
  // Completes the index (no document may be open) and returns both files, the index last: CommitAll makes them appear.
  std::vector<OutputFile*> Complete();
  int64_t documents() const { return static_cast<int64_t>(bounds_.size()) - 1; }
  int64_t tokens() const { return tokens_; }
  int32_t largest_id() const { return largest_id_; }  // 0 without tokens

 private:
  const std::string prefix_;
  const int64_t vocab_;
  const TokenType type_;
  OutputFile bin_, idx_;
  std::vector<int32_t> lengths_;       // of each sequence
  std::vector<int64_t> bounds_ = {0};  // in sequences
  std::vector<std::byte> packed_;      // scratch of Append
  int64_t tokens_ = 0;
  int32_t largest_id_ = 0;
};

}  // namespace longspan
