// What the benchmarks of attention are told alike: sizes, device, type and how often.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/attention/nsa_config.h"
#include "model/attention/core.h"

namespace CLI {  // NOLINT(readability-identifier-naming): CLI11's
class App;
}

namespace longspan {

enum class BenchDevice { kAuto, kCpu, kGpu };
enum class BenchType { kAuto, kF32, kBf16 };

struct BenchSizes {
  int64_t gpu_tokens = 65536, cpu_tokens = 4096;       // where none are given
  std::vector<int64_t> tokens;                         // S; empty: not given
  std::vector<std::string> shapes = {"64,4,128,128"};  // H,G,K,V
  NsaConfig nsa;
  BenchDevice device = BenchDevice::kAuto;  // AUTO: a GPU where there is one
  BenchType type = BenchType::kAuto;        // AUTO: BF16 on a GPU
  int64_t runs = 10;
  std::string json;  // file; empty: none

  bool OnGpu() const;
  DType Type() const;                                               // Throws Error (configuration): BF16 on a CPU.
  std::vector<int64_t> Lengths() const;                             // S. Throws Error (usage): no sizes of NSA.
  static AttentionCore::Sizes ParseShape(const std::string& text);  // of one that the command line has let pass
};

// A case's sizes by name, for its report.
std::vector<std::pair<std::string, int64_t>> NamedSizes(int64_t tokens, const AttentionCore::Sizes& sizes,
                                                        const NsaConfig& nsa);

// Adds the options to `app`; --select is by that name.
void AddBenchSizes(CLI::App& app, BenchSizes* sizes);

}  // namespace longspan
