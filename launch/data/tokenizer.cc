#include "launch/data/tokenizer.h"

#include <numeric>

#include "runtime/error.h"

namespace longspan {
namespace {

class ByteTokenizer : public Tokenizer {
 public:
  std::string kind() const override { return "byte"; }
  std::string hash() const override { return ""; }
  int64_t vocab() const override { return 256; }
  std::vector<int32_t> Encode(std::string_view text) const override {
    std::vector<int32_t> ids(text.size());
    for (size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<uint8_t>(text[i]);
    return ids;
  }
  Tokens EncodePlaced(std::string_view text) const override {
    Tokens tokens = {Encode(text), std::vector<size_t>(text.size())};
    std::iota(tokens.begins.begin(), tokens.begins.end(), 0);
    return tokens;
  }
  std::string Decode(std::span<const int32_t> ids) const override {
    std::string text(ids.size(), '\0');
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] > 255) Fail(ExitCode::kData, "byte tokenizer: expected ids below 256, found {}", ids[i]);
      text[i] = static_cast<char>(ids[i]);
    }
    return text;
  }
  std::optional<uint8_t> Byte(int32_t id) const override { return static_cast<uint8_t>(id); }
};

}  // namespace

std::unique_ptr<Tokenizer> MakeByteTokenizer() { return std::make_unique<ByteTokenizer>(); }

std::vector<std::string> WhatIsLost(const Tokenizer& tokenizer) {
  std::vector<std::string> lost;
  for (const auto& [space, name] : {std::pair{"\n", "line ends"}, {"  ", "runs of spaces"}, {"\t", "tabs"}}) {
    const std::string text = fmt::format("a{}b", space);
    if (tokenizer.Decode(tokenizer.Encode(text)).find(space) == std::string::npos) lost.emplace_back(name);
  }
  return lost;
}

std::unique_ptr<Tokenizer> MakeTokenizer(const std::string& name, const std::string& model) {
  if (name == "byte") {
    if (!model.empty()) Fail(ExitCode::kUsage, "--model {}: the byte tokenizer takes none", model);
    return MakeByteTokenizer();
  }
  if (name == "sentencepiece") {
    if (model.empty()) Fail(ExitCode::kUsage, "--tokenizer sentencepiece: expected --model FILE");
    return LoadSentencePiece(model);
  }
  Fail(ExitCode::kUsage, "--tokenizer: expected byte or sentencepiece, found \"{}\"", name);
}

}  // namespace longspan
