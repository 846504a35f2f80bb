#include "launch/data/dataset.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <limits>

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

template <typename T>
T LoadToken(const std::byte* from) {
  T token;
  std::memcpy(&token, from, sizeof(T));
  return token;
}

// Whether `count` ids are in [0, vocab). Passes over whole files, so it vectorises: no early end.
template <typename T>
bool AllInside(const std::byte* from, int64_t count, int64_t vocab) {
  T least = 0, most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const T token = LoadToken<T>(from + i * static_cast<int64_t>(sizeof(T)));
    least = std::min(least, token);
    most = std::max(most, token);
  }
  return least >= 0 && static_cast<int64_t>(most) < vocab;
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
      path_(file.path()),
      type_(type),
      bounds_(std::move(bounds)),
      vocab_(std::min(vocab, int64_t{1} << 31)) {
  if (tokens() == 0) Fail(ExitCode::kData, "{}: expected tokens, found none", path());
  files_.push_back({std::move(file), first_byte, 0, 0, tokens()});
}

Dataset Dataset::Join(std::string path, std::vector<Dataset> datasets) {
  Dataset all = std::move(datasets.at(0));
  const std::string first = all.path_;
  for (size_t i = 1; i < datasets.size(); ++i) {
    Dataset& next = datasets[i];
    if (next.type_ != all.type_) {
      Fail(ExitCode::kData, "{}: expected tokens of {} as in {}, found {}: one tokenizer's files have one type",
           next.path_, TokenTypeName(all.type_), first, TokenTypeName(next.type_));
    }
    const int64_t documents = all.documents(), tokens = all.tokens();
    for (size_t bound = 1; bound < next.bounds_.size(); ++bound) all.bounds_.push_back(tokens + next.bounds_[bound]);
    for (File& file : next.files_) {
      all.files_.push_back({std::move(file.mapped), file.first_byte, documents + file.first_document,
                            tokens + file.first_token, tokens + file.end_token});
    }
  }
  all.path_ = std::move(path);
  return all;
}

std::vector<Dataset::Span> Dataset::files() const {
  std::vector<Span> spans;
  for (size_t i = 0; i < files_.size(); ++i) {
    const int64_t end = i + 1 < files_.size() ? files_[i + 1].first_document : documents();
    spans.push_back(
        {files_[i].mapped.path(), end - files_[i].first_document, files_[i].end_token - files_[i].first_token});
  }
  return spans;
}

const Dataset::File& Dataset::FileOf(int64_t token) const {
  return *std::upper_bound(files_.begin(), files_.end(), token,
                           [](int64_t at, const File& file) { return at < file.end_token; });
}

const std::byte* Dataset::TokenAt(int64_t token) const {
  const File& file = files_.size() == 1 ? files_.front() : FileOf(token);
  return file.mapped.data() + file.first_byte + (token - file.first_token) * TokenBytes(type_);
}

BadToken Dataset::Locate(int64_t token) const {
  const File& file = FileOf(token);
  const int64_t document = std::upper_bound(bounds_.begin(), bounds_.end(), token) - bounds_.begin() - 1;
  const int64_t id =
      WithType(type_, [&](auto zero) { return static_cast<int64_t>(LoadToken<decltype(zero)>(TokenAt(token))); });
  return {file.mapped.path(), document - file.first_document, token - bounds_[document], id};
}

void Dataset::Read(int64_t document, int64_t offset, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  LS_CHECK(document >= 0 && document < documents() && offset >= 0 && offset + count <= DocumentLength(document),
           "{}: no tokens [{}, {}) in document {}", path(), offset, offset + count, document);
  if (count == 0) return;
  const int64_t first = bounds_[document] + offset;
  const int64_t good = WithType(type_, [&](auto zero) { return Widen<decltype(zero)>(TokenAt(first), out, vocab_); });
  if (good == count) return;
  const BadToken bad = Locate(first + good);
  Fail(ExitCode::kData, "{}: document {}, offset {}: token id {} is outside the vocabulary of {}", bad.file,
       bad.document, bad.offset, bad.id, vocab_);
}

std::optional<BadToken> Dataset::FindBadToken(int64_t part, int64_t parts, const std::function<bool()>& stop) const {
  const bool all_good = WithType(type_, [&](auto zero) {
    using Limits = std::numeric_limits<decltype(zero)>;
    return !Limits::is_signed && static_cast<uint64_t>(Limits::max()) < static_cast<uint64_t>(vocab_);
  });
  if (all_good) return std::nullopt;
  constexpr int64_t kPiece = int64_t{1} << 14;
  const int64_t share = (tokens() + parts - 1) / parts, end = std::min(tokens(), (part + 1) * share);
  std::vector<int32_t> ids(kPiece);
  for (int64_t first = part * share, count = 0; first < end; first += count) {
    if (stop && stop()) break;
    count = std::min({kPiece, end - first, FileOf(first).end_token - first});
    const int64_t good = WithType(type_, [&](auto zero) {
      using T = decltype(zero);
      if (AllInside<T>(TokenAt(first), count, vocab_)) return count;
      return Widen<T>(TokenAt(first), std::span(ids).first(count), vocab_);
    });
    if (good < count) return Locate(first + good);
  }
  return std::nullopt;
}

std::string Dataset::Fingerprint() const {
  constexpr int64_t kSamples = 4096, kTokens = 16;
  XXH64_hash_t hash = XXH3_64bits(bounds_.data(), bounds_.size() * sizeof(int64_t));
  const int64_t piece = std::min(kTokens, tokens()), last = tokens() - piece;
  const int64_t samples = std::min(kSamples, last + 1);
  for (int64_t i = 0; i < samples; ++i) {
    // From the first token to the last.
    const auto first = static_cast<int64_t>(static_cast<double>(last) * static_cast<double>(i) /
                                            static_cast<double>(std::max<int64_t>(1, samples - 1)));
    const int64_t here = std::min(piece, FileOf(first).end_token - first);
    if (here == piece) {
      hash = XXH3_64bits_withSeed(TokenAt(first), piece * TokenBytes(type_), hash);
      continue;
    }
    std::vector<std::byte> bytes;
    for (int64_t token = first; token < first + piece; ++token) {
      bytes.insert(bytes.end(), TokenAt(token), TokenAt(token) + TokenBytes(type_));
    }
    hash = XXH3_64bits_withSeed(bytes.data(), bytes.size(), hash);
  }
  return fmt::format("{} of {}, {} documents, {} tokens, hash {:016x}", format_, TokenTypeName(type_), documents(),
                     tokens(), hash);
}

}  // namespace longspan
