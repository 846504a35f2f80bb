#include "launch/commands/text_options.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>

#include "runtime/error.h"

namespace longspan {

void AddTextOptions(CLI::App& app, TextOptions* options) {
  app.add_option("inputs", options->files.inputs, "Folders (searched to the bottom) and files")->type_name("PATH");
  app.add_option("--include", options->files.include, "Take only files that match (* ? [a-z]); may be repeated")
      ->allow_extra_args(false)
      ->type_name("PATTERN");
  app.add_option("--exclude", options->files.exclude, "Leave out files and folders that match; may be repeated")
      ->allow_extra_args(false)
      ->type_name("PATTERN");
  app.add_option("--jsonl", options->jsonl_key,
                 "The files are JSON lines (plain, gzip or zstd), each a document whose text is under KEY")
      ->type_name("KEY");
}

FoundFiles FindTexts(const TextOptions& options, const std::string& command) {
  const FileSelection& files = options.files;
  if (files.inputs.empty()) Fail(ExitCode::kUsage, "{}: expected at least one folder or file", command);
  FoundFiles found = FindFiles(files);
  if (!found.files.empty()) return found;
  std::string why = "holds no file";
  if (!files.include.empty() || !files.exclude.empty()) {
    why = "no file in it matches";
    for (const std::string& pattern : files.include) why += fmt::format(" --include '{}'", pattern);
    for (const std::string& pattern : files.exclude) why += fmt::format(" --exclude '{}'", pattern);
  }
  if (found.unreadable > 0)
    why += fmt::format("; unreadable: {}, the first {}", found.unreadable, found.first_unreadable);
  Fail(ExitCode::kData, "{}: {}", fmt::join(files.inputs, ", "), why);
}

}  // namespace longspan
