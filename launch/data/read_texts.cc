#include "launch/data/read_texts.h"

#include <optional>
#include <utility>

#include "launch/data/json_lines.h"
#include "runtime/error.h"

namespace longspan {
namespace {

constexpr int64_t kLinesBetween = 256;  // calls of `progress`

// None when it cannot be opened, which is counted.
template <typename File, typename... Arguments>
std::optional<File> Open(FoundFiles& found, const std::string& path, const Arguments&... arguments) {
  try {
    return std::optional<File>(std::in_place, path, arguments...);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kIo) throw;
    if (found.unreadable++ == 0) found.first_unreadable = path;
    return std::nullopt;
  }
}

}  // namespace

int64_t ReadTexts(FoundFiles& found, const std::string& jsonl_key, const TextTakers& takers) {
  int64_t before = 0, read = 0;
  for (const FoundFile& file : found.files) {
    if (jsonl_key.empty()) {
      if (auto mapped = Open<MappedFile>(found, file.path)) {
        ++read;
        takers.file(std::move(*mapped));
      }
    } else if (auto lines = Open<JsonLines>(found, file.path, jsonl_key)) {
      ++read;
      for (std::string text; lines->Next(&text); text.clear()) {
        takers.line(std::move(text), fmt::format("{}:{}", file.path, lines->line()));
        if (lines->line() % kLinesBetween == 0) takers.progress(before + lines->consumed());
      }
    }
    before += file.bytes;
    takers.progress(before);
  }
  return read;
}

}  // namespace longspan
