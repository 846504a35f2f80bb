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

// Bytes at the end that may yet become another character: the beginning of one, or what stands for it when a tokenizer
// decodes too few bytes.
size_t Unfinished(const std::string& text) {
  size_t unknown = 0;
  while (unknown < 9 && text.size() >= unknown + 3 && text.compare(text.size() - unknown - 3, 3, kReplacement) == 0) {
    unknown += 3;
  }
  if (unknown > 0) return unknown;
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const char byte = text[text.size() - back];
    if (!Continues(byte)) return LengthOf(static_cast<uint8_t>(byte)) > back ? back : 0;
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

std::string TextStream::Upto(size_t end) {
  const size_t begin = std::min(said_, end);
  said_ = end;
  return Printable(std::string_view(text_).substr(begin, end - begin));
}

std::string TextStream::Add(std::span<const int32_t> ids) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  text_ = tokenizer_.Decode(ids_);
  const size_t end = text_.size() - Unfinished(text_);
  return end > said_ ? Upto(end) : "";
}

std::string TextStream::Rest() { return Upto(text_.size()); }

}  // namespace longspan
