#include "runtime/problem_list.h"

#include <cmath>

namespace longspan {

bool ProblemList::Size(const std::string& key, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return true;
  Add("{} = {}: must be {} to {}", key, value, least, most);
  return false;
}

void ProblemList::Fraction(const std::string& key, double value, bool below) {
  if (value >= 0 && (below ? value < 1 : value <= 1)) return;
  Add("{} = {}: must be 0 to {}1", key, value, below ? "below " : "");
}

void ProblemList::Above(const std::string& key, double value, double bound) {
  if (std::isfinite(value) && value > bound) return;
  Add("{} = {}: must be a finite number above {}", key, value, bound);
}

void ProblemList::NotNegative(const std::string& key, double value) {
  if (std::isfinite(value) && value >= 0) return;
  Add("{} = {}: must be a finite number, 0 or more", key, value);
}

std::string NearestMultiples(int64_t value, int64_t unit) {
  const int64_t below = value / unit * unit;
  return below > 0 ? fmt::format("{} or {}", below, below + unit) : fmt::format("{}", unit);
}

}  // namespace longspan
