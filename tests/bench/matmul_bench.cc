// Single-thread rate of MatMulCpu beside Eigen's product as this build compiles it. Exits 1 when a large product falls
// under 70% of Eigen's rate.
#include <fmt/format.h>
#include <omp.h>
#include <time.h>

#include <Eigen/Core>
#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/matmul/matmul_cpu.h"

namespace longspan {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int kRounds = 25;
constexpr double kRequiredShare = 0.7;

struct Case {
  const char* name;
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  bool large;  // must reach kRequiredShare
};

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Of this thread on a core: what others do on a shared machine counts for neither side.
double CoreSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double Seconds(const std::function<void()>& work) {
  const double start = CoreSeconds();
  work();
  return CoreSeconds() - start;
}

// Prints the case's line; false when it is too slow. The two alternate and each round has its own share, so that a
// busy machine slows both.
bool Measure(const Case& size) {
  const RowMajor a = size.transpose_a ? RowMajor::Random(size.k, size.m) : RowMajor::Random(size.m, size.k);
  const RowMajor b = size.transpose_b ? RowMajor::Random(size.n, size.k) : RowMajor::Random(size.k, size.n);
  RowMajor c(size.m, size.n);
  const auto ours = [&] {
    MatMulCpu<float>({.a = a.data(),
                      .b = b.data(),
                      .c = c.data(),
                      .m = size.m,
                      .n = size.n,
                      .k = size.k,
                      .transpose_a = size.transpose_a,
                      .transpose_b = size.transpose_b});
  };
  const auto eigen = [&] {
    if (size.transpose_a) {
      c.noalias() = a.transpose() * b;
    } else if (size.transpose_b) {
      c.noalias() = a * b.transpose();
    } else {
      c.noalias() = a * b;
    }
  };
  ours();
  eigen();
  std::vector<double> our_seconds, eigen_seconds, shares;
  for (int round = 0; round < kRounds; ++round) {
    our_seconds.push_back(Seconds(ours));
    eigen_seconds.push_back(Seconds(eigen));
    shares.push_back(eigen_seconds.back() / our_seconds.back());
  }
  const double flops = 2.0 * size.m * size.n * size.k;
  const double our_rate = flops / Median(our_seconds) * 1e-9;
  const double eigen_rate = flops / Median(eigen_seconds) * 1e-9;
  const double share = Median(shares);
  const bool good = !size.large || share >= kRequiredShare;
  fmt::print("{:<28} {:>5} x {:>4} x {:>4} {:>10.1f} {:>10.1f} {:>7.0f}%{}\n", size.name, size.m, size.n, size.k,
             our_rate, eigen_rate, 100 * share, good ? "" : "  too slow");
  return good;
}

int Main() {
  omp_set_num_threads(1);
  fmt::print("{:<28} {:>5}   {:>4}   {:>4} {:>10} {:>10} {:>8}   (fp32, one thread)\n", "", "m", "n", "k", "GFLOP/s",
             "Eigen", "share");
  bool good = true;
  for (const Case& size :
       {Case{"forward", 2048, 512, 512, false, false, true}, Case{"feed-forward", 2048, 344, 128, false, false, true},
        Case{"input gradient", 2048, 512, 512, false, true, true},
        Case{"input gradient", 2048, 128, 344, false, true, true},
        Case{"weight gradient", 512, 512, 2048, true, false, true},
        Case{"weight gradient", 128, 344, 2048, true, false, true},
        Case{"odd sizes", 1001, 333, 257, false, false, true}, Case{"one tile", 64, 64, 128, false, true, false},
        Case{"eight rows", 8, 512, 512, false, false, false}, Case{"one row", 1, 512, 512, false, false, false}}) {
    good &= Measure(size);
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace longspan

int main() { return longspan::Main(); }
