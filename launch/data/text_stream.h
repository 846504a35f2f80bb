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
  explicit TextStream(const Tokenizer& tokenizer);  // outlives this
  // What the tokens add to the text, printable: together that of all tokens. A character of several bytes (UTF-8) comes
  // when it is complete. A token takes as long as the decoding of a few.
  std::string Add(std::span<const int32_t> ids);
  std::string Rest() const;  // what is held back, at the end

 private:
  std::string Text(std::span<const int32_t> ids) const;  // what they add to what was said

  const Tokenizer& tokenizer_;
  std::vector<int32_t> anchor_;  // a token with a text, or none: what is decoded after it does not begin the text
  std::string anchor_text_;
  bool begun_ = false;        // something was said
  std::vector<int32_t> ids_;  // those of which nothing was: the begun character, or all while they have no text
};

}  // namespace longspan
