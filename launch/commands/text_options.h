// The options of commands that read texts: which files, and what is in them.
#pragma once

#include <string>

#include "launch/data/find_files.h"

namespace CLI {  // NOLINT(readability-identifier-naming): CLI11's
class App;
}

namespace longspan {

struct TextOptions {
  FileSelection files;
  std::string jsonl_key;  // the files are JSON lines with the texts under this key; empty: each is a text
};

void AddTextOptions(CLI::App& app, TextOptions* options);

// Finds the files. Throws Error: (usage), naming `command`, when no input was given, (data) when nothing matches, (io).
FoundFiles FindTexts(const TextOptions& options, const std::string& command);

}  // namespace longspan
