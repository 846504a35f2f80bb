// ProblemList: what is wrong with the values of a configuration, all of it at once. Each problem is one line,
// "key = value: rule; cure" or "key = value and key = value disagree: rule; cure".
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace longspan {

struct ProblemList {
  static constexpr int64_t kLargest = (int64_t{1} << 31) - 1;  // of any size: products of two then fit int64

  std::vector<std::string> lines;

  // False when the value is not `least` to `most`: rules that compute with it are then skipped.
  bool Size(const std::string& key, int64_t value, int64_t least = 1, int64_t most = kLargest);
  // From 0 to 1; `below`: the end of the range is not part of it.
  void Fraction(const std::string& key, double value, bool below);
  void Above(const std::string& key, double value, double bound);  // finite, too
  void NotNegative(const std::string& key, double value);          // finite, too

  template <typename... Args>
  void Add(fmt::format_string<Args...> text, Args&&... args) {
    lines.push_back(fmt::format(text, std::forward<Args>(args)...));
  }
};

// "1024 or 2048": the multiples of `unit` on both sides of `value`.
std::string NearestMultiples(int64_t value, int64_t unit);

}  // namespace longspan
