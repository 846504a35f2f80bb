#include "launch/data/megatron.h"

#include <algorithm>
#include <filesystem>

#include "runtime/error.h"

namespace longspan {
namespace {

constexpr char kMagic[] = "MMIDIDX\0";  // 9 bytes with the closing zero
constexpr int64_t kMagicBytes = 9;
constexpr int64_t kArrays = 34;  // where they begin
static_assert(sizeof(kMagic) == kMagicBytes);

struct TypeCode {
  uint8_t code;
  TokenType type;
};
constexpr TypeCode kTypeCodes[] = {{1, TokenType::kU8},  {2, TokenType::kI8},  {3, TokenType::kI16},
                                   {4, TokenType::kI32}, {5, TokenType::kI64}, {8, TokenType::kU16}};

TokenType TypeOf(const std::string& path, uint8_t code) {
  for (const TypeCode& known : kTypeCodes) {
    if (known.code == code) return known.type;
  }
  Fail(ExitCode::kData, "{}: byte 17: expected the code of an integer type (1-5 or 8), found {}", path, code);
}

uint8_t CodeOf(TokenType type) {
  for (const TypeCode& known : kTypeCodes) {
    if (known.type == type) return known.code;
  }
  LS_CHECK(false, "Megatron has no code for tokens of type {}", TokenTypeName(type));
  return 0;
}

// The index with its counts checked against its size, so that the arrays can be read.
struct Index {
  MappedFile file;
  TokenType type;
  int64_t sequences;  // S
  int64_t bounds;     // D

  explicit Index(const std::string& path) : file(path) {
    if (file.size() < kArrays) {
      Fail(ExitCode::kData, "{}: expected a header of {} bytes, found {} in all", path, kArrays, file.size());
    }
    if (std::memcmp(file.data(), kMagic, kMagicBytes) != 0) {
      Fail(ExitCode::kData, "{}: byte 0: expected the magic MMIDIDX, found another", path);
    }
    if (const auto version = file.Read<uint64_t>(9); version != 1) {
      Fail(ExitCode::kData, "{}: byte 9: expected version 1, found {}", path, version);
    }
    type = TypeOf(path, file.Read<uint8_t>(17));
    const auto stated_sequences = file.Read<uint64_t>(18), stated_bounds = file.Read<uint64_t>(26);
    // Each entry takes at least 8 bytes: counts beyond the file's size are refused before they are multiplied.
    const auto limit = static_cast<uint64_t>(file.size());
    if (stated_sequences > limit / 12 || stated_bounds > limit / 8) {
      Fail(ExitCode::kData, "{}: bytes 18 and 26: {} sequences and {} document bounds do not fit in {} bytes", path,
           stated_sequences, stated_bounds, file.size());
    }
    sequences = static_cast<int64_t>(stated_sequences);
    bounds = static_cast<int64_t>(stated_bounds);
    const int64_t expected = BoundsAt() + 8 * bounds;
    if (file.size() != expected && file.size() != expected + sequences) {
      Fail(ExitCode::kData, "{}: expected {} bytes for {} sequences and {} document bounds, found {}", path, expected,
           sequences, bounds, file.size());
    }
    if (bounds == 0) Fail(ExitCode::kData, "{}: byte 26: expected at least one document bound, found 0", path);
  }

  int64_t OffsetsAt() const { return kArrays + 4 * sequences; }
  int64_t BoundsAt() const { return kArrays + 12 * sequences; }
};

}  // namespace

std::string MegatronPrefix(const std::string& path) {
  const std::filesystem::path name(path);
  return name.extension() == ".bin" || name.extension() == ".idx" ? path.substr(0, path.size() - 4) : path;
}

Dataset OpenMegatron(const std::string& path, const DatasetOptions& options) {
  const std::string prefix = MegatronPrefix(path);
  const Index index(prefix + ".idx");
  const std::string& name = index.file.path();
  MappedFile bin(prefix + ".bin");
  const int64_t token_bytes = TokenBytes(index.type);
  const int64_t capacity = bin.size() / token_bytes;  // tokens; bounds every sum below

  std::vector<int64_t> bounds;  // in tokens
  bounds.reserve(index.bounds);
  int64_t tokens = 0, document = 0;
  const auto bound = [&](int64_t i) { return index.file.Read<int64_t>(index.BoundsAt() + 8 * i); };
  for (int64_t sequence = 0; sequence <= index.sequences; ++sequence) {
    for (; document < index.bounds && bound(document) == sequence; ++document) bounds.push_back(tokens);
    if (sequence == index.sequences) break;
    const auto length = index.file.Read<int32_t>(kArrays + 4 * sequence);
    if (length < 0 || length > capacity - tokens) {
      Fail(ExitCode::kData, "{}: sequence {} at token {}: expected a length that fits in the {} tokens of {}, found {}",
           name, sequence, tokens, capacity, bin.path(), length);
    }
    const auto offset = index.file.Read<int64_t>(index.OffsetsAt() + 8 * sequence);
    if (offset != tokens * token_bytes) {
      Fail(ExitCode::kData, "{}: sequence {}: expected byte offset {} (where the one before ends), found {}", name,
           sequence, tokens * token_bytes, offset);
    }
    tokens += length;
  }
  if (document != index.bounds) {
    Fail(ExitCode::kData, "{}: document bound {}: expected ascending sequence numbers up to {}, found {}", name,
         document, index.sequences, bound(document));
  }
  if (bound(0) != 0 || bound(index.bounds - 1) != index.sequences) {
    Fail(ExitCode::kData, "{}: expected document bounds from 0 to {}, found {} to {}", name, index.sequences, bound(0),
         bound(index.bounds - 1));
  }
  if (tokens * token_bytes != bin.size()) {
    Fail(ExitCode::kData, "{}: expected {} bytes ({} tokens of {}), found {}", bin.path(), tokens * token_bytes, tokens,
         TokenTypeName(index.type), bin.size());
  }
  return Dataset("Megatron", std::move(bin), 0, index.type, std::move(bounds), options.vocab);
}

MegatronWriter::MegatronWriter(const std::string& prefix, int64_t vocab)
    : prefix_(prefix),
      vocab_(vocab),
      type_(vocab <= 256    ? TokenType::kU8
            : vocab < 65500 ? TokenType::kU16
                            : TokenType::kI32),
      bin_(prefix + ".bin"),
      idx_(prefix + ".idx") {}

void MegatronWriter::Append(std::span<const int32_t> tokens) {
  LS_CHECK(tokens.size() <= INT32_MAX, "a sequence of {} tokens is too long for the index", tokens.size());
  const int64_t width = TokenBytes(type_);
  packed_.resize(tokens.size() * width);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_) {
      Fail(ExitCode::kData, "{}: document {}: token id {} is outside the vocabulary of {}", prefix_, documents(),
           tokens[i], vocab_);
    }
    largest_id_ = std::max(largest_id_, tokens[i]);
    std::memcpy(packed_.data() + i * width, &tokens[i], width);  // little-endian: the low bytes come first
  }
  bin_.Write(packed_.data(), packed_.size());
  lengths_.push_back(static_cast<int32_t>(tokens.size()));
  tokens_ += static_cast<int64_t>(tokens.size());
}

void MegatronWriter::EndDocument() { bounds_.push_back(static_cast<int64_t>(lengths_.size())); }

std::vector<OutputFile*> MegatronWriter::Complete() {
  LS_CHECK(bounds_.back() == static_cast<int64_t>(lengths_.size()), "{}: the last document has no end", prefix_);
  idx_.Write(kMagic, kMagicBytes);
  idx_.Write<uint64_t>(1);
  idx_.Write<uint8_t>(CodeOf(type_));
  idx_.Write<uint64_t>(lengths_.size());
  idx_.Write<uint64_t>(bounds_.size());
  idx_.Write(lengths_.data(), lengths_.size() * sizeof(int32_t));
  int64_t offset = 0;
  for (const int32_t length : lengths_) {
    idx_.Write(offset);
    offset += length * TokenBytes(type_);
  }
  idx_.Write(bounds_.data(), bounds_.size() * sizeof(int64_t));
  return {&bin_, &idx_};
}

}  // namespace longspan
