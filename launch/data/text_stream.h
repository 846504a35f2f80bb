// TextStream: text that appears token by token.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launch/data/tokenizer.h"

namespace longspan {

// The text with U+FFFD for each byte that is no text: of no character (UTF-8), or one that controls a terminal.
std::string Printable(std::string_view text);

class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // What the tokens add to the text, printable. A character of several bytes (UTF-8) comes when it is complete.
  std::string Add(std::span<const int32_t> ids);
  std::string Rest();  // what was held back, at the end

 private:
  std::string Upto(size_t end);

  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  std::string text_;  // of all ids
  size_t said_ = 0;   // bytes of it
};

}  // namespace longspan
