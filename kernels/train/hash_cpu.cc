// The hash of a tensor's bytes: a sum over their 8-byte words, each mixed with its place, so that any order of the
// additions gives the same.
#include "kernels/base/blocks_cpu.h"
#include "kernels/base/mix.h"
#include "kernels/train/check.h"
#include "kernels/train/cpu.h"

namespace longspan {

void CpuTrain::Hash(Stream& stream, const Tensor& x, const Tensor& hash) {
  constexpr const char* kName = "train.hash";
  CheckHash(kName, x, hash);
  Launch(stream, kName, {0, static_cast<double>(x.bytes())}, [x, hash] {
    const auto* const words = static_cast<const uint64_t*>(x.data);
    const int64_t count = x.bytes() / 8;
    uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum) if (count > kBlockElements)
    for (int64_t i = 0; i < count; ++i) sum += Mix(Mix(static_cast<uint64_t>(i) + 1) ^ words[i]);
    *static_cast<uint64_t*>(hash.data) = sum;
  });
}

}  // namespace longspan
