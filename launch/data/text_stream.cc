#include "launch/data/text_stream.h"

#include <algorithm>

namespace longspan {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the character that begins with this one; 0: none does.
size_t LengthOf(uint8_t byte) {
  if (byte < 0x80) return 1;
  if (byte < 0xC2 || byte > 0xF4) return 0;
  return byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
}

bool Continues(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

// Tokens at the end that are bytes of a character whose others are to come.
size_t Unfinished(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (size_t back = 1; back <= std::min<size_t>(3, ids.size()); ++back) {
    const std::optional<uint8_t> byte = tokenizer.Byte(ids[ids.size() - back]);
    if (!byte) return 0;
    if (!Continues(static_cast<char>(*byte))) return LengthOf(*byte) > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string said;
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const size_t length = LengthOf(byte);
    size_t found = length > 0 ? 1 : 0;
    while (found > 0 && found < length && i + found < text.size() && Continues(text[i + found])) ++found;
    const bool controls = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F;
    if (length == 0 || found < length || controls) {
      said += kReplacement;
      ++i;
    } else {
      said += text.substr(i, length);
      i += length;
    }
  }
  return said;
}

TextStream::TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  for (int32_t id = 0; anchor_text_.empty() && id < tokenizer.vocab(); ++id) {
    if (tokenizer.Byte(id)) continue;
    anchor_ = {id};
    anchor_text_ = tokenizer.Decode(anchor_);
  }
}

std::string TextStream::Text(std::span<const int32_t> ids) const {
  if (!begun_) return tokenizer_.Decode(ids);
  std::vector<int32_t> anchored = anchor_;
  anchored.insert(anchored.end(), ids.begin(), ids.end());
  return tokenizer_.Decode(anchored).substr(anchor_text_.size());
}

std::string TextStream::Add(std::span<const int32_t> ids) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  const size_t whole = ids_.size() - Unfinished(tokenizer_, ids_);
  const std::string text = Text(std::span(ids_).first(whole));
  if (!begun_ && text.empty()) return "";
  begun_ = true;
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(whole));
  return Printable(text);
}

std::string TextStream::Rest() const { return Printable(Text(ids_)); }

}  // namespace longspan
