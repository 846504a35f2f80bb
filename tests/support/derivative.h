// Checking a backward pass against differences of a forward evaluation, in fp64.
#pragma once

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "tests/support/compare.h"

namespace longspan::test {

inline std::vector<double> Normal(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(count);
  for (double& x : values) x = normal(random);
  return values;
}

inline double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// d f / d x[i] by central differences, at `points` places of x, against `gradient`.
inline void ExpectGradient(const std::string& name, std::vector<double> x, const std::vector<double>& gradient,
                           const std::function<double(const std::vector<double>&)>& f, int points = 40) {
  const double step = 1e-5;
  std::vector<double> found, expected;
  for (int n = 0; n < points; ++n) {
    const size_t i = (n * 7919 + 3) % x.size();
    const double value = x[i];
    x[i] = value + step;
    const double above = f(x);
    x[i] = value - step;
    expected.push_back((above - f(x)) / (2 * step));
    found.push_back(gradient[i]);
    x[i] = value;
  }
  EXPECT_TRUE(RmsClose(name, found, expected, 1e-7));
}

}  // namespace longspan::test
