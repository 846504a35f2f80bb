// What `longspan bench` found, as tables and as JSON. `bench nsa`:
//
//   {"version","device","dtype","runs","cases":[CASE ..]}
//   CASE   {"sizes":{"tokens","heads",..},"phi","selection","kernels","union_of_8","matmul_tflops","copy_gbps",
//           "tensor_mib","scratch_mib":{"forward","backward"},"stages":[STAGE ..]}, or
//          {"sizes","phi","selection","error"}
//   STAGE  {"name","direction","ms","best_ms","flops","bytes","tflops","matmul_share","gbps","copy_share"}, or
//          {"name","direction","error"}
//
// Stages are those of one operator and, as "whole", all of a direction one after another; "full" is dense attention.
// ms is the median. FLOPs and bytes are the operations' own counts (kernels/attention/cost.h): each tensor read or
// written once. Shares are of what a large matrix product and a large copy reach on the device in the same run.
//
// `bench layer`:
//
//   {"version","device","dtype","runs","ranks","recompute","cases":[CASE ..]}
//   CASE   {"sizes","phi","layout","selected_exchange","kernels","forward":PASS,"backward":PASS,"coverage",
//           "borrowed_mib","memory_mib","selection"}
//   PASS   {"ms","best_ms","exposed_ms"}
//
// A run's time is that of its slowest rank; ms the median of runs. exposed_ms, coverage, borrowed_mib and memory_mib
// are those of the rank that has most. `selection` is a hash, equal whatever the ranks, layout and exchange.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace longspan {

struct BenchStage {
  std::string name;
  std::string direction;  // "forward", "backward"
  double ms = 0, best_ms = 0;
  double flops = 0, bytes = 0;
  std::string error;  // why it was not measured; empty = it was
};

struct BenchCase {
  std::vector<std::pair<std::string, int64_t>> sizes;
  std::string phi;        // how a block is compressed: "MLP", "LINEAR", "MEAN"
  std::string selection;  // where the selected branch has its blocks from
  std::string kernels;    // which serve the sizes
  double union_of_8 = 0;  // blocks that eight neighbouring queries choose, the mean
  double matmul_tflops = 0;
  double copy_gbps = 0;                                           // read and written
  int64_t tensor_bytes = 0;                                       // of inputs, outputs and gradients
  int64_t forward_scratch_bytes = 0, backward_scratch_bytes = 0;  // of kernels beyond that, the most so far
  std::vector<BenchStage> stages;
  std::string error;
};

struct BenchReport {
  std::string version, device, dtype;
  int64_t runs = 0;
  std::vector<BenchCase> cases;
};

struct LayerPass {
  double ms = 0, best_ms = 0;
  double exposed_ms = 0;  // of a run, the mean: kernels waited for transfers
};

// The attention of a layer over ranks.
struct LayerBenchCase {
  std::vector<std::pair<std::string, int64_t>> sizes;
  std::string phi, layout, selected_exchange, kernels;
  LayerPass forward, backward;
  double coverage = 0;         // share of other ranks' blocks that FETCH brought; GATHER: 1
  int64_t borrowed_bytes = 0;  // from other ranks, by a forward
  int64_t memory_bytes = 0;
  uint64_t selection = 0;
};

struct LayerBenchReport {
  std::string version, device, dtype;
  int64_t runs = 0;
  int ranks = 1;
  bool recompute = false;  // the backward makes the forward again first
  std::vector<LayerBenchCase> cases;
};

// The columns of LayerBenchRow.
std::string LayerBenchHead();
std::string LayerBenchRow(const LayerBenchCase& found);

std::string BenchTable(const BenchCase& found);
// The file appears when it is complete. Throws Error (io).
void WriteBenchReport(const std::string& path, const BenchReport& report);
void WriteBenchReport(const std::string& path, const LayerBenchReport& report);

}  // namespace longspan
