#include "launch/config/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "configs/run.pb.h"
#include "launch/config/fields.h"
#include "launch/config/keys.h"
#include "launch/config/textproto.h"
#include "runtime/error.h"

namespace longspan {
namespace {

constexpr const char* kCommandLine = "command line";

class Loader {
 public:
  Loader() {
    VisitKeys(loaded_.config, [this](const char* key, const auto&) { loaded_.sources[key] = "default"; });
  }

  void File(const std::string& text, const std::string& name) {
    const Textproto file = ScanTextproto(text);
    std::string unknown_group;  // "modle.": its name was reported, its values are not looked at
    for (const TextprotoEntry& entry : file.entries) {
      if (!unknown_group.empty() && entry.path.starts_with(unknown_group)) continue;
      const std::string where = fmt::format("{}:{}", name, entry.line);
      if (!entry.is_group) {
        FileValue(entry, where);
      } else if (!Known(entry.path, "{ ... }", true, where)) {
        unknown_group = entry.path + ".";
      }
    }
    if (!file.error.empty()) {
      incomplete_ = true;
      loaded_.problems.push_back(
          fmt::format("{}:{}: {}; the rest of the file was not read", name, file.error_line, file.error));
    }
  }

  void Override(const std::string& text) {
    const size_t equal = text.find('=');
    if (equal == std::string::npos) {
      loaded_.problems.push_back(
          fmt::format("{}: {}: expected key=value, for example train.steps=100", kCommandLine, text));
      return;
    }
    const std::string key = text.substr(0, equal);
    std::string value = text.substr(equal + 1);
    if (!Known(key, value, false, kCommandLine)) return;
    ClearField(&run_, key);
    loaded_.sources[key] = kCommandLine;
    const auto* field = FindField(run_.GetDescriptor(), key);
    if (!field->is_repeated()) {
      Set(key, value, ValueForm::kCommandLine, kCommandLine);
      return;
    }
    const bool texts = IsText(field);
    if (!texts) std::erase_if(value, [](char c) { return c == '[' || c == ']' || c == ' '; });
    if (value.empty() && !texts)
      Set(key, value, ValueForm::kCommandLine, kCommandLine);  // refused: the default would be taken
    std::istringstream elements(value);
    for (std::string element; std::getline(elements, element, ',');) {
      Set(key, element, ValueForm::kCommandLine, kCommandLine);
    }
  }

  LoadedConfig Finish(int64_t world, bool reads_data) {
    loaded_.config = ConfigOf(run_);
    // A key that could not be read has its default here: what a rule says about it would mislead.
    for (const std::string& problem : Problems(loaded_.config, world, reads_data)) {
      const bool misleading = std::any_of(unread_.begin(), unread_.end(), [&](const std::string& key) {
        return problem.find(key + " = ") != std::string::npos;
      });
      if (incomplete_ || misleading) continue;
      const auto source = loaded_.sources.find(problem.substr(0, problem.find(' ')));
      const bool given = source != loaded_.sources.end() && source->second != "default";
      loaded_.problems.push_back(given ? source->second + ": " + problem : problem);
      ++loaded_.broken_rules;
    }
    return loaded_;
  }

 private:
  void FileValue(const TextprotoEntry& entry, const std::string& where) {
    if (!Known(entry.path, entry.value, false, where)) return;
    std::string& source = loaded_.sources[entry.path];
    const auto* field = FindField(run_.GetDescriptor(), entry.path);
    if (source != "default" && !field->is_repeated()) {
      loaded_.problems.push_back(fmt::format("{}: {} = {}: given twice; take out one (the other is at {})", where,
                                             entry.path, entry.value, source));
      return;
    }
    source = where;
    if (field->is_repeated() && IsText(field) && entry.value.empty()) return;  // []
    Set(entry.path, entry.value, ValueForm::kFile, where);
  }

  // Whether `path` is a value, or a group when `group`; reports it when not.
  bool Known(const std::string& path, const std::string& value, bool group, const std::string& where) {
    const auto* field = FindField(run_.GetDescriptor(), path);
    if (field != nullptr && IsGroup(field) == group) return true;
    const std::string nearest = NearestPath(run_.GetDescriptor(), path, group);
    unread_.push_back(nearest);
    std::string rule = fmt::format("no such key; did you mean {}?", nearest);
    if (field != nullptr) {
      rule = group ? fmt::format("is a value and not a group; write {}: VALUE", path)
                   : fmt::format("is a group and not a value; give {}.KEY a value", path);
    }
    loaded_.problems.push_back(fmt::format("{}: {} = {}: {}", where, path, value, rule));
    return false;
  }

  void Set(const std::string& path, const std::string& value, ValueForm form, const std::string& where) {
    const std::string expected = SetField(&run_, path, value, form);
    if (expected.empty()) return;
    unread_.push_back(path);
    loaded_.problems.push_back(fmt::format("{}: {} = {}: {}", where, path, value, expected));
  }

  proto::Run run_;
  LoadedConfig loaded_;
  std::vector<std::string> unread_;  // keys that someone wanted to set and could not
  bool incomplete_ = false;          // the file's syntax broke
};

}  // namespace

LoadedConfig ParseConfig(const std::string& text, const std::string& name, const std::vector<std::string>& overrides,
                         int64_t world, bool reads_data) {
  Loader loader;
  loader.File(text, name);
  for (const std::string& override_text : overrides) loader.Override(override_text);
  return loader.Finish(world, reads_data);
}

LoadedConfig ReadConfig(const std::string& path, const std::vector<std::string>& overrides, int64_t world) {
  std::ostringstream text;
  if (!path.empty()) {
    std::ifstream file(path);
    if (!file || std::filesystem::is_directory(path)) {
      Fail(ExitCode::kIo, "--config {}: expected a file that can be read", path);
    }
    if (file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  }
  return ParseConfig(text.str(), path, overrides, world);
}

void RefuseProblems(const std::vector<std::string>& problems) {
  if (problems.empty()) return;
  throw Error(ExitCode::kConfig,
              fmt::format("{}the configuration has {} problem{}:\n  {}", ProcessPrefix(), problems.size(),
                          problems.size() == 1 ? "" : "s", fmt::join(problems, "\n  ")));
}

std::string ConfigText(const RunConfig& config) {
  proto::Run run;
  WriteConfig(config, &run);
  std::string text;
  google::protobuf::TextFormat::PrintToString(run, &text);
  return text;
}

std::vector<std::pair<std::string, std::string>> ConfigValues(const RunConfig& config) {
  proto::Run run;
  WriteConfig(config, &run);
  std::vector<std::pair<std::string, std::string>> values;
  VisitKeys(config, [&](const char* key, const auto&) { values.emplace_back(key, FieldText(run, key)); });
  return values;
}

std::string SourceTable(const LoadedConfig& loaded) {
  std::string table;
  for (const auto& [key, value] : ConfigValues(loaded.config)) {
    table += fmt::format("{:<60}  # {}\n", fmt::format("{} = {}", key, value), loaded.sources.at(key));
  }
  return table;
}

}  // namespace longspan
