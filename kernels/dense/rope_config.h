// The parameters of rotary position embedding.
#pragma once

#include <cstdint>

namespace longspan {

enum class RopeScaling { kNone, kYarn };

struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  // YaRN (arXiv 2309.00071), named as in Hugging Face's rope_scaling.
  double factor = 1.0;
  int64_t original_max_position = 4096;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double attention_factor = 0.0;  // 0 = 0.1 ln(factor) + 1
  bool operator==(const RopeConfig&) const = default;
};

}  // namespace longspan
