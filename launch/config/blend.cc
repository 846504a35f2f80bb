#include "launch/config/blend.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <string_view>

namespace longspan {
namespace {

constexpr const char* kForm = "expected \"WEIGHT PATH [validation=PATH | validation_fraction=F]\"";

std::string_view Trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

bool ReadNumber(std::string_view text, double* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(*value);
}

}  // namespace

std::string ReadBlendEntry(const std::string& entry, BlendPart* part) {
  std::string_view rest = Trimmed(entry);
  const size_t space = rest.find(' ');
  if (space == std::string_view::npos) return kForm;
  if (!ReadNumber(rest.substr(0, space), &part->weight) || !(part->weight > 0)) {
    return fmt::format("{} with a weight above 0, found {}", kForm, rest.substr(0, space));
  }
  rest = Trimmed(rest.substr(space));
  if (rest.find(" validation=") != std::string_view::npos &&
      rest.find(" validation_fraction=") != std::string_view::npos) {
    return fmt::format("{}, found both", kForm);
  }
  // Paths may hold spaces.
  for (const char* option : {" validation=", " validation_fraction="}) {
    const size_t at = rest.rfind(option);
    if (at == std::string_view::npos) continue;
    const std::string_view value = Trimmed(rest.substr(at + std::string_view(option).size()));
    rest = Trimmed(rest.substr(0, at));
    if (std::string_view(option) == " validation=") {
      if (value.empty()) return fmt::format("{}, found no path after validation=", kForm);
      part->validation = value;
    } else if (!ReadNumber(value, &part->validation_fraction) ||
               !(part->validation_fraction >= 0 && part->validation_fraction < 1)) {
      return fmt::format("{} with a fraction of 0 to below 1, found {}", kForm, value);
    }
  }
  if (rest.empty() || rest.find(" validation") != std::string_view::npos || rest.starts_with("validation"))
    return kForm;
  part->train = rest;
  return "";
}

std::vector<BlendPart> PartsOf(const DataConfig& data) {
  if (data.blend.empty()) return {{1, data.train, data.validation, data.validation_fraction, "data.train"}};
  std::vector<BlendPart> parts;
  for (const std::string& entry : data.blend) {
    BlendPart& part = parts.emplace_back();
    part.validation_fraction = data.validation_fraction;
    part.key = fmt::format("data.blend[{}]", parts.size() - 1);
    ReadBlendEntry(entry, &part);
  }
  return parts;
}

}  // namespace longspan
