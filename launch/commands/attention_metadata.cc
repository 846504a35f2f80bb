#include "launch/commands/attention_metadata.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "launch/config/nearest_name.h"

namespace longspan {
namespace {

// The whole text as a number; false when it is none, or out of range.
template <typename T>
bool ParseNumber(const std::string& text, T* value) {
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, *value);
  return error == std::errc() && rest == end;
}

const std::map<std::string, Phi> kPhis = {{"MLP", Phi::kMlp}, {"LINEAR", Phi::kLinear}, {"MEAN", Phi::kMean}};
const std::map<std::string, CompressRope> kCompressRopes = {{"AFTER", CompressRope::kAfter},
                                                            {"BEFORE", CompressRope::kBefore}};

// Each returns what was expected, "" when the text is good.
std::string Parse(const std::string& text, int64_t* value) { return ParseNumber(text, value) ? "" : "a whole number"; }

std::string ParseAbove(const std::string& text, double bound, double* value) {
  if (ParseNumber(text, value) && std::isfinite(*value) && *value > bound) return "";
  return fmt::format("a finite number above {}", bound);
}

template <typename T>
std::string Parse(const std::string& text, const std::map<std::string, T>& names, T* value) {
  const auto found = names.find(text);
  if (found == names.end()) {
    std::vector<std::string> all;
    for (const auto& [name, unused] : names) all.push_back(name);
    return fmt::format("{}", fmt::join(all, " or "));
  }
  *value = found->second;
  return "";
}

}  // namespace

void ReadAttentionMetadata(const std::string& path, const std::map<std::string, std::string>& metadata,
                           AttentionCase* out) {
  NsaConfig& nsa = out->nsa;
  const auto whole = [](int64_t* value) { return [value](const std::string& text) { return Parse(text, value); }; };
  const std::map<std::string, std::function<std::string(const std::string&)>> keys = {
      {"block", whole(&nsa.block)},
      {"stride", whole(&nsa.stride)},
      {"select_block", whole(&nsa.select_block)},
      {"select", whole(&nsa.select)},
      {"init", whole(&nsa.init)},
      {"local", whole(&nsa.local)},
      {"window", whole(&nsa.window)},
      {"phi", [&](const std::string& text) { return Parse(text, kPhis, &nsa.phi); }},
      {"compress_rope", [&](const std::string& text) { return Parse(text, kCompressRopes, &nsa.compress_rope); }},
      {"rope_theta", [&](const std::string& text) { return ParseAbove(text, 1, &out->rope_theta); }},
      {"scale", [&](const std::string& text) { return ParseAbove(text, 0, &out->scale); }},
      {"format", [](const std::string&) { return ""; }},
  };
  for (const auto& [key, value] : metadata) {
    const auto found = keys.find(key);
    if (found == keys.end()) {
      std::vector<std::string> names;
      for (const auto& [name, unused] : keys) names.push_back(name);
      Fail(ExitCode::kData, "{}: metadata: unknown key \"{}\"; the nearest is {}", path, key, NearestName(key, names));
    }
    const std::string expected = found->second(value);
    if (!expected.empty()) {
      Fail(ExitCode::kData, "{}: metadata: {}: expected {}, found \"{}\"", path, key, expected, value);
    }
  }
  const std::vector<std::string> problems = Problems(nsa, "");
  if (!problems.empty()) Fail(ExitCode::kData, "{}: metadata: {}", path, fmt::join(problems, "; "));
}

const char* PhiName(Phi phi) {
  const auto named = [phi](const auto& entry) { return entry.second == phi; };
  return std::find_if(kPhis.begin(), kPhis.end(), named)->first.c_str();
}

}  // namespace longspan
