#include <algorithm>

#include "launch/data/train_tokenizer.h"

namespace longspan {

void TextSample::Add(std::string_view text) {
  seen_bytes_ += static_cast<int64_t>(text.size());
  while (!text.empty()) {
    // Up to the last line end that is near enough, or else to the beginning of a character.
    size_t end = std::min(text.size(), kLongestLine);
    if (const size_t newline = text.substr(0, end).rfind('\n'); newline != std::string_view::npos) {
      end = newline + 1;
    } else if (end < text.size()) {
      size_t begin = end;
      while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
      if (begin > 0) end = begin;
    }
    AddLine(text.substr(0, end));
    text.remove_prefix(end);
  }
}

void TextSample::AddLine(std::string_view line) {
  if (seen_lines_++ % stride_ != 0) return;
  lines_.emplace_back(line);
  bytes_ += static_cast<int64_t>(line.size());
  while (bytes_ > limit_ && lines_.size() > 1) {
    // Every second one goes, and so it is from now on.
    stride_ *= 2;
    size_t kept = 0;
    bytes_ = 0;
    for (size_t i = 0; i < lines_.size(); i += 2) {
      bytes_ += static_cast<int64_t>(lines_[i].size());
      if (kept != i) lines_[kept] = std::move(lines_[i]);
      ++kept;
    }
    lines_.resize(kept);
  }
}

}  // namespace longspan
