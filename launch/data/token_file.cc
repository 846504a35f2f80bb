#include "launch/data/token_file.h"

#include "runtime/error.h"

namespace longspan {
namespace {

constexpr int64_t kHeaderBytes = 256 * 4;
constexpr int32_t kGpt2Magic = 20240520, kGpt2Version = 1, kGpt2Separator = 50256;
constexpr int32_t kLlama3Magic = 20240801, kLlama3Version = 7, kLlama3Separator = 128000;

enum class SeparatorAt { kStart, kEnd };

// Cuts `count` tokens at the separators. A separator belongs to the document that it starts or ends.
template <typename T>
std::vector<int64_t> FindBounds(const MappedFile& file, int64_t first_byte, int64_t count, int64_t separator,
                                SeparatorAt at) {
  std::vector<int64_t> bounds = {0};
  for (int64_t i = 0; i < count; ++i) {
    if (file.Read<T>(first_byte + i * static_cast<int64_t>(sizeof(T))) != separator) continue;
    const int64_t bound = at == SeparatorAt::kStart ? i : i + 1;
    if (bound > bounds.back()) bounds.push_back(bound);
  }
  if (count > bounds.back()) bounds.push_back(count);
  return bounds;
}

}  // namespace

bool IsLlmc(const MappedFile& file) {
  if (file.size() < 4) return false;
  const auto magic = file.Read<int32_t>(0);
  return magic == kGpt2Magic || magic == kLlama3Magic;
}

Dataset OpenLlmc(const std::string& path, const DatasetOptions& options) {
  MappedFile file(path);
  if (file.size() < kHeaderBytes) {
    Fail(ExitCode::kData, "{}: expected a header of {} bytes, found {} in all", path, kHeaderBytes, file.size());
  }
  if (!IsLlmc(file)) {
    Fail(ExitCode::kData, "{}: byte 0: expected llm.c's magic {} or {}, found {}", path, kGpt2Magic, kLlama3Magic,
         file.Read<int32_t>(0));
  }
  const bool gpt2 = file.Read<int32_t>(0) == kGpt2Magic;
  const int32_t version = file.Read<int32_t>(4), expected = gpt2 ? kGpt2Version : kLlama3Version;
  if (version != expected) {
    Fail(ExitCode::kData, "{}: byte 4: expected version {}, found {}", path, expected, version);
  }
  const TokenType type = gpt2 ? TokenType::kU16 : TokenType::kU32;
  const int64_t count = file.Read<int32_t>(8), held = file.size() - kHeaderBytes;
  if (count < 0 || count * TokenBytes(type) != held) {
    Fail(ExitCode::kData, "{}: byte 8: expected {} tokens of {} bytes, found {} bytes after the header", path, count,
         TokenBytes(type), held);
  }
  const int64_t separator = options.separator.value_or(gpt2 ? kGpt2Separator : kLlama3Separator);
  const auto find = gpt2 ? FindBounds<uint16_t> : FindBounds<uint32_t>;
  auto bounds = find(file, kHeaderBytes, count, separator, SeparatorAt::kStart);
  return Dataset("llm.c", std::move(file), kHeaderBytes, type, std::move(bounds), options.vocab);
}

Dataset OpenNanogpt(const std::string& path, const DatasetOptions& options) {
  MappedFile file(path);
  if (IsLlmc(file)) {
    Fail(ExitCode::kData, "{}: expected tokens without a header, found llm.c's magic {}; set data.format=LLMC", path,
         file.Read<int32_t>(0));
  }
  if (file.size() % 2 != 0) {
    Fail(ExitCode::kData, "{}: expected tokens of 2 bytes, found {} bytes in all", path, file.size());
  }
  auto bounds =
      FindBounds<uint16_t>(file, 0, file.size() / 2, options.separator.value_or(kGpt2Separator), SeparatorAt::kEnd);
  return Dataset("nanoGPT", std::move(file), 0, TokenType::kU16, std::move(bounds), options.vocab);
}

}  // namespace longspan
