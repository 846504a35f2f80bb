// What the tests of single operations share: host tensors, a stream, and a check of gradients by finite differences.
#pragma once

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/device.h"
#include "runtime/tensor.h"
#include "tests/support/compare.h"

namespace longspan::test {

inline Stream& HostStream() {
  static const std::unique_ptr<Device> device = MakeCpuDevice();
  static const std::unique_ptr<Stream> stream = device->MakeStream("test");
  return *stream;
}

// A tensor of host memory. Floats start as NaN, integers as the largest: what an operation leaves unwritten shows.
template <typename T>
class Values {
 public:
  explicit Values(const Shape& shape)
      : shape_(shape),
        data_(shape.count(),
              std::is_floating_point_v<T> ? std::numeric_limits<T>::quiet_NaN() : std::numeric_limits<T>::max()) {}
  Values(const Shape& shape, std::vector<T> values) : shape_(shape), data_(std::move(values)) {
    LS_CHECK(static_cast<int64_t>(data_.size()) == shape.count(), "expected {} values", shape.ToString());
  }
  // Normal numbers, exact in float, so that both types start from the same values.
  static Values Normal(const Shape& shape, uint64_t seed, double scale = 1) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal(0, scale);
    Values values(shape);
    for (T& value : values.data_) value = static_cast<T>(static_cast<float>(normal(random)));
    return values;
  }
  static Values Filled(const Shape& shape, T value) { return Values(shape, std::vector<T>(shape.count(), value)); }

  Tensor view() const { return HostView(const_cast<T*>(data_.data()), shape_); }
  const Shape& shape() const { return shape_; }
  int64_t size() const { return static_cast<int64_t>(data_.size()); }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  std::vector<double> Doubles() const { return {data_.begin(), data_.end()}; }

 private:
  Shape shape_;
  std::vector<T> data_;
};

template <typename T>
constexpr double Tolerance() {
  return std::is_same_v<T, float> ? 2e-6 : 1e-13;
}

template <typename T>
void ExpectClose(const std::string& name, const Values<T>& found, const std::vector<double>& expected) {
  EXPECT_TRUE(RmsClose(name, found.Doubles(), expected, Tolerance<T>()));
}

template <typename T>
void ExpectSameBits(const std::string& name, const Values<T>& found, const Values<T>& expected) {
  ASSERT_EQ(found.size(), expected.size()) << name;
  EXPECT_EQ(std::memcmp(found.view().data, expected.view().data, found.view().bytes()), 0) << name;
}

// The gradient of `loss`, a function of what `input` holds, by central differences.
inline void ExpectGradient(const std::string& name, const Values<double>& gradient, Values<double>& input,
                           const std::function<double()>& loss) {
  ASSERT_EQ(gradient.size(), input.size()) << name;
  std::vector<double> expected;
  for (int64_t i = 0; i < input.size(); ++i) {
    const double x = input[i], step = 1e-5 * std::max(1.0, std::abs(x));
    input[i] = x + step;
    const double above = loss();
    input[i] = x - step;
    const double below = loss();
    input[i] = x;
    expected.push_back((above - below) / (2 * step));
  }
  EXPECT_TRUE(RmsClose(name, gradient.Doubles(), expected, 1e-6));
}

inline double Dot(const Values<double>& x, const Values<double>& y) {
  double sum = 0;
  for (int64_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

// Runs `work` with 1, 2, 3 and 5 threads and expects the same bits of what it returns.
template <typename T>
void ExpectThreadsDoNotMatter(const std::string& name, const std::function<Values<T>()>& work) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const Values<T> expected = work();
  for (const int threads : {2, 3, 5}) {
    omp_set_num_threads(threads);
    ExpectSameBits(name + " with " + std::to_string(threads) + " threads", work(), expected);
  }
  omp_set_num_threads(before);
}

// `work` throws an Error of this code whose message holds every one of `parts`.
inline void ExpectError(ExitCode code, const std::vector<std::string>& parts, const std::function<void()>& work) {
  try {
    work();
    ADD_FAILURE() << "expected an error about " << parts.front();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

using FloatTypes = testing::Types<float, double>;

}  // namespace longspan::test
