// From a textproto and overrides to a RunConfig, and back to text.
//
// Later wins: defaults (configs/run.proto), the file, the overrides from left to right. All problems are reported at
// once, each with place, key, value, rule and cure.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "launch/config/rules.h"

namespace longspan {

struct LoadedConfig {
  RunConfig config;                            // keys that could not be read have their defaults
  std::map<std::string, std::string> sources;  // of every key: "default", "FILE:LINE" or "command line"
  std::vector<std::string> problems;  // one line each; the rules between values (launch/config/rules.h) are checked too
  int64_t broken_rules = 0;           // of problems, the last ones: those of rules, all else could be read
};

// Reads `text`; `name` is the file in messages. Overrides are "key.path=value", lists with commas. `world` is the
// number of ranks, 0 when not known yet. `reads_data`: as in Problems.
LoadedConfig ParseConfig(const std::string& text, const std::string& name, const std::vector<std::string>& overrides,
                         int64_t world, bool reads_data = true);

// The same from a file, "" for the defaults alone. Throws Error (kIo) when the file cannot be read.
LoadedConfig ReadConfig(const std::string& path, const std::vector<std::string>& overrides, int64_t world = 0);

// Throws Error (kConfig) with all of `problems`, unless there are none.
void RefuseProblems(const std::vector<std::string>& problems);

// The whole configuration as textproto, defaults too: what a run keeps as config.textproto.
std::string ConfigText(const RunConfig& config);

// Every key and its value as text.
std::vector<std::pair<std::string, std::string>> ConfigValues(const RunConfig& config);

// One line a key, "key = value  # source": a file that says the same.
std::string SourceTable(const LoadedConfig& loaded);

}  // namespace longspan
