#include "launch/data/text_stream.h"

#include <algorithm>

namespace longspan {
namespace {

// Bytes at the end that may yet become another character: the beginning of one, or what stands for it when a tokenizer
// decodes too few bytes.
size_t Unfinished(const std::string& text) {
  constexpr const char* kReplacement = "\xEF\xBF\xBD";
  size_t unknown = 0;
  while (unknown < 9 && text.size() >= unknown + 3 && text.compare(text.size() - unknown - 3, 3, kReplacement) == 0) {
    unknown += 3;
  }
  if (unknown > 0) return unknown;
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // not the first of a character
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::string TextStream::Upto(size_t end) {
  const size_t begin = std::min(said_, end);
  said_ = end;
  return text_.substr(begin, end - begin);
}

std::string TextStream::Add(int32_t id) {
  ids_.push_back(id);
  text_ = tokenizer_.Decode(ids_);
  const size_t end = text_.size() - Unfinished(text_);
  return end > said_ ? Upto(end) : "";
}

std::string TextStream::Rest() { return Upto(text_.size()); }

}  // namespace longspan
