#include "launch/data/encode_slice.h"

#include <algorithm>

namespace longspan {
namespace {

// What may decide about a token on either side of it: many times the longest piece of a tokenizer.
constexpr size_t kContext = 2048;
constexpr size_t kShift = 1021;  // prime: no repetition of a text lines two windows up
constexpr int kTries = 8;
static_assert(kTries * kContext + 3 * kContext < kSliceBytes, "a seam lies in its slice, its surroundings in the next");

struct Range {
  size_t begin, end;
};

// `at`, or the first byte behind it that begins a character of UTF-8.
size_t CharacterAt(std::string_view text, size_t at) {
  while (at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) ++at;
  return std::min(at, text.size());
}

// The tokens that begin within `range`, as seen with the text of `window`, which holds it.
Tokens EncodeWithin(const Tokenizer& tokenizer, std::string_view text, const Range& window, const Range& range) {
  const size_t first = CharacterAt(text, window.begin);
  const Tokens all = tokenizer.EncodePlaced(text.substr(first, CharacterAt(text, window.end) - first));
  Tokens found;
  for (size_t i = 0; i < all.ids.size(); ++i) {
    const size_t begin = first + all.begins[i];
    if (begin < range.begin || begin >= range.end) continue;
    found.ids.push_back(all.ids[i]);
    found.begins.push_back(begin);
  }
  return found;
}

// A byte not far behind `at` where a token begins for certain, since two windows that begin and end differently agree
// on those around it. npos when there is none.
size_t FindSeam(const Tokenizer& tokenizer, std::string_view text, size_t at) {
  if (at == 0 || at >= text.size()) return std::min(at, text.size());
  for (int i = 0; i < kTries && at + 3 * kContext < text.size(); ++i, at += kContext) {
    const Range agreed = {at, at + kContext};
    const Tokens tokens = EncodeWithin(tokenizer, text, {agreed.begin - kContext, agreed.end + kContext}, agreed);
    if (tokens != EncodeWithin(tokenizer, text, {agreed.begin - kContext + kShift, agreed.end + 2 * kContext}, agreed))
      continue;
    const auto middle = std::lower_bound(tokens.begins.begin(), tokens.begins.end(), at + kContext / 2);
    if (middle != tokens.begins.end()) return *middle;
  }
  return std::string_view::npos;
}

}  // namespace

std::vector<int32_t> EncodeSlice(const Tokenizer& tokenizer, std::string_view text, size_t slice) {
  const size_t begin = FindSeam(tokenizer, text, slice * kSliceBytes);
  if (begin == std::string_view::npos) return {};
  size_t end = std::string_view::npos;
  while (end == std::string_view::npos) end = FindSeam(tokenizer, text, ++slice * kSliceBytes);
  const Range window = {begin - std::min(begin, kContext), std::min(end + kContext, text.size())};
  return EncodeWithin(tokenizer, text, window, {begin, end == text.size() ? std::string_view::npos : end}).ids;
}

}  // namespace longspan
