#include "tests/support/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace longspan::test {
namespace {

using ::testing::AssertionFailure;
using ::testing::AssertionResult;
using ::testing::AssertionSuccess;

AssertionResult SizesDiffer(const std::string& name, size_t found, size_t expected) {
  return AssertionFailure() << fmt::format("{}: expected {} values, found {}", name, expected, found);
}

}  // namespace

double Rms(const std::vector<double>& values) {
  double sum = 0;
  for (double x : values) sum += x * x;
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

double GradientFloor(const std::vector<const std::vector<double>*>& gradients) {
  double sum = 0;
  size_t count = 0;
  for (const auto* gradient : gradients) {
    for (double x : *gradient) sum += x * x;
    count += gradient->size();
  }
  return count == 0 ? 0 : 1e-3 * std::sqrt(sum / static_cast<double>(count));
}

AssertionResult RmsClose(const std::string& name, const std::vector<double>& found, const std::vector<double>& expected,
                         double tolerance, double floor) {
  if (found.size() != expected.size()) return SizesDiffer(name, found.size(), expected.size());
  std::vector<double> error(found.size(), 0), reference(found.size(), 0);
  size_t worst = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::isinf(expected[i])) {
      error[i] = found[i] == expected[i] ? 0 : std::numeric_limits<double>::quiet_NaN();
    } else {
      error[i] = found[i] - expected[i];
      reference[i] = expected[i];
    }
    if (!std::isnan(error[worst]) && !(std::abs(error[i]) <= std::abs(error[worst]))) worst = i;
  }
  double allowed = tolerance * std::max(Rms(reference), floor);
  // Written so that NaN fails.
  if (Rms(error) <= allowed) return AssertionSuccess();
  return AssertionFailure() << fmt::format(
             "{}: RMS error {:.3g}, allowed {:.3g} (RMS expected {:.3g}); worst at [{}] of {}: expected {}, found {}",
             name, Rms(error), allowed, Rms(reference), worst, found.size(), expected[worst], found[worst]);
}

AssertionResult BitEqual(const std::string& name, const std::vector<double>& found,
                         const std::vector<double>& expected) {
  if (found.size() != expected.size()) return SizesDiffer(name, found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::bit_cast<uint64_t>(found[i]) != std::bit_cast<uint64_t>(expected[i])) {
      return AssertionFailure() << fmt::format("{}: bits differ first at [{}] of {}: expected {:.17g}, found {:.17g}",
                                               name, i, found.size(), expected[i], found[i]);
    }
  }
  return AssertionSuccess();
}

AssertionResult BitEqual(const std::string& name, const std::vector<int32_t>& found,
                         const std::vector<int32_t>& expected) {
  if (found.size() != expected.size()) return SizesDiffer(name, found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] != expected[i]) {
      return AssertionFailure() << fmt::format("{}: differs first at [{}] of {}: expected {}, found {}", name, i,
                                               found.size(), expected[i], found[i]);
    }
  }
  return AssertionSuccess();
}

AssertionResult AllFinite(const std::string& name, const std::vector<double>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return AssertionFailure() << fmt::format("{}: expected finite values, found {} at [{}] of {}", name, values[i], i,
                                               values.size());
    }
  }
  return AssertionSuccess();
}

}  // namespace longspan::test
