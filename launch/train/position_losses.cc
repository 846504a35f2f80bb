#include "launch/train/position_losses.h"

#include <algorithm>

namespace longspan {

PositionLosses::PositionLosses(int64_t sequence) {
  int64_t end = 16;
  while (end * 256 < sequence) end *= 2;
  for (int64_t begin = 0; begin < sequence; begin = end, end *= 2) {
    buckets_.push_back({begin, std::min(end, sequence)});
  }
}

std::pair<double, int64_t> PositionLosses::Add(const Batch& part, std::span<const double> losses) {
  double sum = 0;
  int64_t labels = 0;
  for (size_t row = 0; row < part.targets.size(); ++row) {
    if (part.targets[row] < 0) continue;
    const auto bucket = std::find_if(buckets_.begin(), buckets_.end(),
                                     [&](const PositionBucket& b) { return part.positions[row] < b.end; });
    bucket->loss_sum += losses[row];
    ++bucket->labels;
    sum += losses[row];
    ++labels;
  }
  return {sum, labels};
}

std::vector<PositionBucket> PositionLosses::Sum(Job& job) const {
  std::vector<Job::Number> numbers;
  for (const PositionBucket& bucket : buckets_) {
    numbers.push_back({bucket.loss_sum, ReduceOp::kSum});
    numbers.push_back({static_cast<double>(bucket.labels), ReduceOp::kSum});
  }
  const std::vector<double> sums = job.Reduce(numbers);
  std::vector<PositionBucket> all = buckets_;
  for (size_t i = 0; i < all.size(); ++i) {
    all[i].loss_sum = sums[2 * i];
    all[i].labels = static_cast<int64_t>(sums[2 * i + 1]);
  }
  return all;
}

}  // namespace longspan
