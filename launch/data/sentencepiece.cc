// The one file that sees SentencePiece's header.
#define XXH_INLINE_ALL
#include <sentencepiece_processor.h>
#include <xxhash.h>

#include "launch/data/tokenizer.h"
#include "runtime/error.h"
#include "runtime/files/mapped_file.h"

namespace longspan {
namespace {

class SentencePieceTokenizer : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::string& model) : model_(model) {
    const MappedFile file(model);  // for a clear error when it cannot be read
    hash_ = fmt::format("{:016x}", XXH3_64bits(file.data(), file.size()));
    model_bytes_.assign(reinterpret_cast<const char*>(file.data()), file.size());
    if (model_bytes_.find_first_not_of(" \t\r\n") == model_bytes_.find('{') &&
        model_bytes_.find('{') != std::string::npos) {
      Fail(
          ExitCode::kData,
          "{}: expected a SentencePiece model, found JSON: Hugging Face's tokenizer.json is not read; take the model's "
          "SentencePiece file (tokenizer.model) if it has one, or make one by `longspan tokenizer train`",
          model);
    }
    if (file.size() == 0) Fail(ExitCode::kData, "{}: expected a SentencePiece model, found an empty file", model);
    const auto status = processor_.LoadFromSerializedProto(model_bytes_);
    if (!status.ok()) Fail(ExitCode::kData, "{}: expected a SentencePiece model: {}", model, status.ToString());
  }
  std::string kind() const override { return "sentencepiece"; }
  std::string hash() const override { return hash_; }
  std::string model() const override { return model_bytes_; }
  TokenizerMarks marks() const override {
    const auto piece = [&](int id) { return id < 0 ? "" : processor_.IdToPiece(id); };
    sentencepiece::ImmutableSentencePieceText text;
    const auto status = processor_.Encode("a", text.mutable_proto());
    const bool space = status.ok() && text.pieces_size() > 0 && text.pieces(0).piece().starts_with("\u2581");
    return {piece(processor_.unk_id()), piece(processor_.bos_id()), piece(processor_.eos_id()),
            piece(processor_.pad_id()), space};
  }
  int64_t vocab() const override { return processor_.GetPieceSize(); }
  std::vector<int32_t> Encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    const auto status = processor_.Encode(text, &ids);
    if (!status.ok()) Fail(ExitCode::kData, "{}: cannot encode: {}", model_, status.ToString());
    return ids;
  }
  Tokens EncodePlaced(std::string_view text) const override {
    sentencepiece::ImmutableSentencePieceText pieces;
    const auto status = processor_.Encode(text, pieces.mutable_proto());
    if (!status.ok()) Fail(ExitCode::kData, "{}: cannot encode: {}", model_, status.ToString());
    const size_t count = pieces.pieces_size();
    Tokens tokens = {std::vector<int32_t>(count), std::vector<size_t>(count)};
    for (size_t i = 0; i < count; ++i) {
      const auto piece = pieces.pieces(static_cast<int>(i));
      tokens.ids[i] = static_cast<int32_t>(piece.id());
      tokens.begins[i] = piece.begin();
    }
    return tokens;
  }
  std::string Decode(std::span<const int32_t> ids) const override {
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) Fail(ExitCode::kData, "{}: cannot decode: {}", model_, status.ToString());
    return text;
  }
  std::optional<uint8_t> Byte(int32_t id) const override {
    if (id < 0 || id >= vocab() || !processor_.IsByte(id)) return {};
    return static_cast<uint8_t>(std::stoi(processor_.IdToPiece(id).substr(3, 2), nullptr, 16));  // "<0xE6>"
  }

 private:
  std::string model_, hash_, model_bytes_;
  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace

std::unique_ptr<Tokenizer> LoadSentencePiece(const std::string& model) {
  return std::make_unique<SentencePieceTokenizer>(model);
}

}  // namespace longspan
