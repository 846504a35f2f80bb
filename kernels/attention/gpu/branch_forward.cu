// Launchers of the branches' forward: checks, then the kernel that serves the call (variants.h).
#include <algorithm>

#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/attention.h"
#include "kernels/attention/gpu/sight.cuh"
#include "kernels/attention/gpu/variants.h"

namespace longspan {
namespace {

constexpr int64_t kMaxGroupHeads = 64;

template <typename Sight>
void Forward(Stream& stream, const char* operation, double pairs, const BranchArgs& args, const Sight& sight,
             int left_processors, Kernel<BranchParams<Sight>> AttentionKernels::*kind) {
  const DType dtype = CheckBranch(OnGpu(operation), args);
  CheckBranchLimits(operation, dtype, args);
  const BranchParams<Sight> params = BranchParamsOf(operation, dtype, args, sight, left_processors);
  const auto& kernel = KernelFor(stream, operation, kind, params);
  LaunchGpu(stream, operation, BranchCost(args, pairs), [&](cudaStream_t cuda_stream) {
    if (params.queries.tiles() > 0) kernel.launch(cuda_stream, operation, params);
  });
}

RangeSight SightOfDocuments(const BranchArgs& args) {
  RangeSight sight;
  sight.doc_start = GpuData<const int32_t>(args.doc_start);
  sight.doc_tokens = args.doc_start ? static_cast<int>(args.doc_start.dim(0)) : 0;
  return sight;
}

}  // namespace

void CheckBranchLimits(const char* operation, DType dtype, const BranchArgs& args) {
  const int64_t key_width = args.q.dim(2), value_width = args.kv.v.dim(2),
                group_heads = args.q.dim(1) / args.kv.k.dim(1);
  LS_CHECK(group_heads <= kMaxGroupHeads, "{}: q: expected at most {} heads a group on a GPU, found {}", operation,
           kMaxGroupHeads, group_heads);
  for (const auto& [name, width] : {std::pair("k", key_width), std::pair("v", value_width)}) {
    LS_CHECK(width <= kMaxWidthGpu, "{}: {}: expected a width of at most {} on a GPU, found {}", operation, name,
             kMaxWidthGpu, width);
    LS_CHECK(dtype == DType::kF32 || width % 8 == 0,
             "{}: {}: expected a width that is a multiple of 8 in BF16 on a GPU, found {}", operation, name, width);
  }
  LS_CHECK(args.kv.pages.table.size() <= INT32_MAX / args.kv.pages.page_rows,
           "{}: pages: expected fewer than 2^31 rows on a GPU, found {} pages of {}", operation,
           args.kv.pages.table.size(), args.kv.pages.page_rows);
}

RangeSight SightOf(const CompressedArgs& args) {
  RangeSight sight = SightOfDocuments(args);
  sight.block = static_cast<int>(args.block);
  sight.stride = static_cast<int>(args.stride);
  sight.lead = sight.block / sight.stride - 1;
  return sight;
}

RangeSight SightOf(const WindowArgs& args) {
  RangeSight sight = SightOfDocuments(args);
  sight.window = static_cast<int>(std::min<int64_t>(args.window, INT32_MAX));
  return sight;
}

SelectedSight SightOf(const SelectedArgs& args) {
  return {GpuData<const int32_t>(args.selected), static_cast<int>(args.selected.dim(2)),
          static_cast<int>(std::min<int64_t>(args.select_block, INT32_MAX / 2))};
}

void GpuAttention::Compressed(Stream& stream, const CompressedArgs& args) {
  const char* const name = "attention.compressed";
  CheckBlockAndStride(name, args.block, args.stride);
  Forward(stream, name, CompressedPairs(args.segments, args.block, args.stride), args, SightOf(args), left_processors_,
          &AttentionKernels::range_forward);
}

void GpuAttention::Selected(Stream& stream, const SelectedArgs& args) {
  const char* const name = "attention.selected";
  CheckBranch(OnGpu(name), args);
  CheckSelected(OnGpu(name), args);
  Forward(stream, name, SelectedPairs(args.segments, args.select_block, args.selected.dim(2)), args, SightOf(args),
          left_processors_, &AttentionKernels::selected_forward);
}

void GpuAttention::Window(Stream& stream, const WindowArgs& args) {
  const char* const name = "attention.window";
  LS_CHECK(args.window > 0, "{}: window: expected 1 or more, found {}", name, args.window);
  Forward(stream, name, WindowPairs(args.segments, args.window), args, SightOf(args), left_processors_,
          &AttentionKernels::range_forward);
}

}  // namespace longspan
