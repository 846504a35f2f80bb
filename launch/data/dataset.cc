#include "launch/data/dataset.h"

#include <algorithm>

#include "runtime/error.h"

namespace longspan {
namespace {

// Widens the ids at `from` (at any alignment); returns how many come before the first one out of [0, vocab).
template <typename T>
int64_t Widen(const std::byte* from, std::span<int32_t> out, int64_t vocab) {
  for (size_t i = 0; i < out.size(); ++i) {
    T token;
    std::memcpy(&token, from + i * sizeof(T), sizeof(T));
    if (static_cast<int64_t>(token) < 0 || static_cast<int64_t>(token) >= vocab) return i;
    out[i] = static_cast<int32_t>(token);
  }
  return out.size();
}

// Calls `function` with a value of the C++ type of `type`.
template <typename Function>
auto WithType(TokenType type, Function function) {
  switch (type) {
    case TokenType::kU8:
      return function(uint8_t{});
    case TokenType::kI8:
      return function(int8_t{});
    case TokenType::kU16:
      return function(uint16_t{});
    case TokenType::kI16:
      return function(int16_t{});
    case TokenType::kU32:
      return function(uint32_t{});
    case TokenType::kI32:
      return function(int32_t{});
    case TokenType::kI64:
      break;
  }
  return function(int64_t{});
}

}  // namespace

int64_t TokenBytes(TokenType type) {
  return WithType(type, [](auto zero) { return static_cast<int64_t>(sizeof(zero)); });
}

const char* TokenTypeName(TokenType type) {
  constexpr const char* kNames[] = {"u8", "i8", "u16", "i16", "u32", "i32", "i64"};
  return kNames[static_cast<int>(type)];
}

Dataset::Dataset(std::string format, MappedFile file, int64_t first_byte, TokenType type, std::vector<int64_t> bounds,
                 int64_t vocab)
    : format_(std::move(format)),
      file_(std::move(file)),
      first_byte_(first_byte),
      type_(type),
      bounds_(std::move(bounds)),
      vocab_(std::min(vocab, int64_t{1} << 31)) {
  if (tokens() == 0) Fail(ExitCode::kData, "{}: expected tokens, found none", path());
}

void Dataset::Read(int64_t document, int64_t offset, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  LS_CHECK(document >= 0 && document < documents() && offset >= 0 && offset + count <= DocumentLength(document),
           "{}: no tokens [{}, {}) in document {}", path(), offset, offset + count, document);
  const std::byte* from = file_.data() + first_byte_ + (bounds_[document] + offset) * TokenBytes(type_);
  WithType(type_, [&](auto zero) {
    using T = decltype(zero);
    const int64_t good = Widen<T>(from, out, vocab_);
    if (good == count) return;
    T bad;
    std::memcpy(&bad, from + good * sizeof(T), sizeof(T));
    Fail(ExitCode::kData, "{}: document {}, offset {}: token id {} is outside the vocabulary of {}", path(), document,
         offset + good, static_cast<int64_t>(bad), vocab_);
  });
}

}  // namespace longspan
