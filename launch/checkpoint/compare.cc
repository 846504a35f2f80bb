#include "launch/checkpoint/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "launch/config/blend.h"
#include "launch/config/config.h"

namespace longspan {
namespace {

// Which documents of which datasets are held out, and how often the others are trained on.
bool SameSplit(const DataConfig& a, const DataConfig& b) {
  const std::vector<BlendPart> first = PartsOf(a), second = PartsOf(b);
  return std::equal(first.begin(), first.end(), second.begin(), second.end(), [](const auto& x, const auto& y) {
    if (x.weight != y.weight || x.validation.empty() != y.validation.empty()) return false;
    return !x.validation.empty() || x.validation_fraction == y.validation_fraction;
  });
}

// Whether with another value of the key the weights, or the place in the order of the data, would mean something else.
bool Binds(const std::string& key, bool same_split) {
  if (key == "data.validation" || key == "data.validation_fraction" || key == "data.blend") return !same_split;
  return key.starts_with("model.") || key == "data.sequence_length" || key == "data.document_masks" ||
         key == "data.packing" || key == "data.stages" || key == "data.seed";
}

std::string Difference(const std::string& key, const std::string& saved, const std::string& now) {
  return fmt::format("{}: {} in the checkpoint, {} now", key, saved, now);
}

std::map<std::string, std::string> Shown(const std::vector<DataClaim>& data,
                                         std::map<std::string, std::string>* values) {
  std::map<std::string, std::string> shown;
  for (const DataClaim& claim : data) {
    (*values)[claim.key] = claim.value;
    shown[claim.key] = claim.from.empty() ? claim.value : fmt::format("{} ({})", claim.value, claim.from);
  }
  return shown;
}

}  // namespace

Differences Compare(const Manifest& saved, const RunConfig& config, const std::vector<DataClaim>& data) {
  Differences differences;
  // What this program does not know is no difference: the rest of it is compared.
  const RunConfig before = ParseConfig(saved.config, "config", {}, 0).config;
  const bool same_split = SameSplit(before.data, config.data);
  const auto now = ConfigValues(config);
  const auto then = ConfigValues(before);
  for (size_t i = 0; i < now.size(); ++i) {
    if (then[i].second == now[i].second) continue;
    auto& list = Binds(now[i].first, same_split) ? differences.refused : differences.changed;
    list.push_back(Difference(now[i].first, then[i].second, now[i].second));
  }

  std::map<std::string, std::string> values_then, values_now;
  std::map<std::string, std::string> shown_then = Shown(saved.data, &values_then), shown_now = Shown(data, &values_now);
  std::map<std::string, std::string> keys = shown_then;
  keys.insert(shown_now.begin(), shown_now.end());
  for (const auto& [key, unused] : keys) {
    if (values_then[key] == values_now[key]) continue;
    // A dataset may have lost its record, and is the same.
    if (key.starts_with("tokenizer") && (values_then[key].empty() || values_now[key].empty())) continue;
    const auto show = [&](std::map<std::string, std::string>& shown) {
      return shown[key].empty() ? std::string("none") : shown[key];
    };
    // Other held-out data beside the same training data only measures otherwise.
    auto& list = key.ends_with("validation") && same_split ? differences.changed : differences.refused;
    list.push_back(Difference(key, show(shown_then), show(shown_now)));
  }
  return differences;
}

}  // namespace longspan
