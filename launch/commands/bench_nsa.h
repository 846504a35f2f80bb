// The stages of the NSA operator, timed on one device without transfers: one document, one segment, random values, keys
// and values shared by the branches.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/attention/nsa_config.h"
#include "launch/report/bench_report.h"
#include "model/attention/core.h"
#include "runtime/device.h"
#include "runtime/tensor.h"

namespace longspan {

struct NsaBenchCase {
  int64_t tokens = 0;  // S
  AttentionCore::Sizes sizes{};
  NsaConfig nsa;
  DType dtype = DType::kF32;
  int64_t runs = 0;
  bool backward = true;
  bool full = false;      // dense attention, too
  std::string selection;  // where `selected` is from
  // [S,G,N], the blocks of the selected branch; empty = those that the operator chooses.
  std::vector<int32_t> selected;
};

// The case's sizes and selection, with nothing found yet.
BenchCase DescribeNsaBench(const NsaBenchCase& bench);
// What was found of the case, each stage the median of its runs after one that warms up. A stage that the kernels
// refuse is one with their words. Throws Error when there is not memory enough.
BenchCase BenchNsa(Device& device, const NsaBenchCase& bench);

}  // namespace longspan
