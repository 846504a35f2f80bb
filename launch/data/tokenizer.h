// Tokenizer: text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace longspan {

struct Tokens {
  std::vector<int32_t> ids;
  std::vector<size_t> begins;  // the byte of the text where each begins, ascending
  bool operator==(const Tokens&) const = default;
};

// What other programs are told of a SentencePiece model.
struct TokenizerMarks {
  std::string unknown, begin, end, padding;  // pieces; "" where there is none
  bool space_before_text = false;            // texts are read as if a space stood before them
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string kind() const = 0;                                  // "byte", "sentencepiece"
  virtual std::string hash() const = 0;                                  // of the model, 16 hex digits; "" without one
  virtual std::string model() const { return ""; }                       // its bytes; "" without one
  virtual TokenizerMarks marks() const { return {}; }                    // of the model
  virtual int64_t vocab() const = 0;                                     // ids are below it
  virtual std::vector<int32_t> Encode(std::string_view text) const = 0;  // safe from several threads, as the next
  virtual Tokens EncodePlaced(std::string_view text) const = 0;          // the same ids
  virtual std::string Decode(std::span<const int32_t> ids) const = 0;    // ids out of the vocabulary throw Error (data)
  // The byte that the token is, where it is one of a character's. Other tokens have their text whatever stands beside
  // them, but for a space that may be left out where the text begins.
  virtual std::optional<uint8_t> Byte(int32_t id) const = 0;
};

// One id per byte, 256 in all. No id marks the end of a document: the dataset's index does.
std::unique_ptr<Tokenizer> MakeByteTokenizer();

// A trained SentencePiece .model file (Hugging Face's tokenizer.json is refused by name). No beginning or end marks are
// added; what the model's normaliser changes (many replace line ends by spaces) stays changed. Throws Error (io, data)
// when the file is not such a model.
std::unique_ptr<Tokenizer> LoadSentencePiece(const std::string& model);

// Which of "line ends", "runs of spaces" and "tabs" do not come back from the tokenizer's ids.
std::vector<std::string> WhatIsLost(const Tokenizer& tokenizer);

// By the names of `longspan data --tokenizer`: "byte" or "sentencepiece". Throws Error (usage) for another name, for
// sentencepiece without a model and byte with one.
std::unique_ptr<Tokenizer> MakeTokenizer(const std::string& name, const std::string& model);

}  // namespace longspan
