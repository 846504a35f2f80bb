// The angles of RoPE. YaRN (arXiv 2309.00071, section 3.2) with the conventions of Hugging Face's rope_scaling "yarn".
#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/dense/ops.h"

namespace longspan {
namespace {

// The (fractional) pair that makes `rotations` full turns within the original context.
double PairOfRotations(double rotations, const RopeConfig& config, int64_t key_width) {
  const double wavelength = static_cast<double>(config.original_max_position) / rotations;
  return static_cast<double>(key_width) * std::log(wavelength / (2 * std::numbers::pi)) / (2 * std::log(config.theta));
}

void ApplyYarn(const RopeConfig& config, int64_t key_width, RopeTable* table) {
  // Pairs up to `low` turn fast and keep their frequency; pairs from `high` on turn slowly and are interpolated.
  const double low = std::max(std::floor(PairOfRotations(config.beta_fast, config, key_width)), 0.0);
  const double high =
      std::min(std::ceil(PairOfRotations(config.beta_slow, config, key_width)), static_cast<double>(key_width - 1));
  const double span = high == low ? 0.001 : high - low;
  for (int64_t i = 0; i < key_width / 2; ++i) {
    const double interpolated = std::clamp((static_cast<double>(i) - low) / span, 0.0, 1.0);
    table->frequency[i] *= 1 - interpolated + interpolated / config.factor;
  }
  if (config.attention_factor > 0) {
    table->factor = config.attention_factor;
  } else if (config.factor > 1) {
    table->factor = 0.1 * std::log(config.factor) + 1;
  }
}

}  // namespace

RopeTable MakeRopeTable(const RopeConfig& config, int64_t key_width) {
  LS_CHECK(key_width > 0 && key_width % 2 == 0, "rope: expected an even key width, found {}", key_width);
  LS_CHECK(config.theta > 1, "rope: theta: expected more than 1, found {}", config.theta);
  RopeTable table;
  for (int64_t i = 0; i < key_width / 2; ++i) {
    table.frequency.push_back(std::pow(config.theta, -2.0 * static_cast<double>(i) / static_cast<double>(key_width)));
  }
  if (config.scaling == RopeScaling::kYarn) {
    LS_CHECK(config.factor >= 1, "rope: factor: expected at least 1, found {}", config.factor);
    LS_CHECK(config.original_max_position > 0, "rope: original_max_position: expected a positive value, found {}",
             config.original_max_position);
    LS_CHECK(config.beta_slow > 0 && config.beta_fast >= config.beta_slow,
             "rope: expected beta_fast >= beta_slow > 0, found {} and {}", config.beta_fast, config.beta_slow);
    ApplyYarn(config, key_width, &table);
  }
  return table;
}

}  // namespace longspan
