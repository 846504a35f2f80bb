// Training a tokenizer on texts: a SentencePiece model that gives every text back as it was, code and spaces included.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace longspan {

// Lines of texts, a part of them that is spread evenly where all are too many. The same texts in the same order give
// the same lines.
class TextSample {
 public:
  // Keeps no more than about `bytes`.
  explicit TextSample(int64_t bytes) : limit_(bytes) {}
  void Add(std::string_view text);

  const std::vector<std::string>& lines() const { return lines_; }  // at most kLongestLine each, with their ends
  int64_t bytes() const { return bytes_; }                          // of them
  int64_t seen_bytes() const { return seen_bytes_; }                // of all texts

  static constexpr size_t kLongestLine = 4096;  // what SentencePiece takes, in bytes

 private:
  void AddLine(std::string_view line);

  const int64_t limit_;
  std::vector<std::string> lines_;
  int64_t bytes_ = 0, seen_bytes_ = 0, seen_lines_ = 0;
  int64_t stride_ = 1;  // every so many lines one is kept
};

struct TokenizerTraining {
  std::string type = "unigram";  // or "bpe"
  int64_t vocab = 0;             // pieces in all, the 256 of single bytes and three marks included
  double coverage = 0.9995;      // share of the characters that get pieces; the rarest others are bytes
};

// Returns the bytes of the model: the same for the same lines, however many processors there are. Bytes that no piece
// holds become pieces of single bytes, and nothing is normalised but U+2581, SentencePiece's own sign for a space.
// Throws Error (usage) with SentencePiece's reason when these lines make no such vocabulary, or when this program was
// built without its trainer.
std::string TrainTokenizer(const TokenizerTraining& training, const TextSample& sample);

}  // namespace longspan
