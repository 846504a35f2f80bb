// The texts of files: each file is one, or, in files of JSON lines, each line.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "launch/data/find_files.h"
#include "runtime/files/mapped_file.h"

namespace longspan {

struct TextTakers {
  std::function<void(MappedFile file)> file;                            // where each is one text
  std::function<void(std::string text, const std::string& name)> line;  // else; name: "FILE:LINE"
  std::function<void(int64_t bytes)> progress;                          // of all files, as they are stored
};

// Calls `takers` in order. With `jsonl_key` the files are JSON lines (launch/data/json_lines.h) whose texts are under
// it. Returns how many files it read; those that cannot be opened are counted in `found`. Throws Error (data) for what
// is no such line.
int64_t ReadTexts(FoundFiles& found, const std::string& jsonl_key, const TextTakers& takers);

}  // namespace longspan
