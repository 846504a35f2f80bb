// Launchers of the branches' forward. BF16 goes to the tensor cores (sm80/range_forward, sm80/selected_forward), F32 to
// the plain kernel (branch_forward_f32).
#include <algorithm>

#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/attention.h"
#include "kernels/attention/gpu/sight.cuh"

namespace longspan {
namespace {

constexpr int64_t kMaxGroupHeads = 64;

using ForwardBf16 = void (*)(cudaStream_t, const char*, const BranchArgs&, const SightGpu&);

void Forward(Stream& stream, const char* operation, double pairs, const BranchArgs& args, const SightGpu& sight,
             ForwardBf16 forward_bf16) {
  const DType dtype = CheckBranch(OnGpu(operation), args);
  CheckBranchLimits(operation, dtype, args);
  LaunchGpu(stream, operation, BranchCost(args, pairs), [&](cudaStream_t cuda_stream) {
    (dtype == DType::kBf16 ? forward_bf16 : BranchForwardF32)(cuda_stream, operation, args, sight);
  });
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

SightGpu SightOf(const CompressedArgs& args) {
  SightGpu sight;
  sight.doc_start = GpuData<const int32_t>(args.doc_start);
  sight.block = static_cast<int>(args.block);
  sight.stride = static_cast<int>(args.stride);
  return sight;
}

SightGpu SightOf(const SelectedArgs& args) {
  SightGpu sight;
  sight.selected = GpuData<const int32_t>(args.selected);
  sight.choices = static_cast<int>(args.selected.dim(2));
  sight.select_block = static_cast<int>(std::min<int64_t>(args.select_block, INT32_MAX / 2));
  return sight;
}

SightGpu SightOf(const WindowArgs& args) {
  SightGpu sight;
  sight.doc_start = GpuData<const int32_t>(args.doc_start);
  sight.window = static_cast<int>(std::min<int64_t>(args.window, INT32_MAX));
  return sight;
}

QueryTilesGpu CutQueriesGpu(const char* operation, const std::vector<Segment>& segments, int tile) {
  const SegmentList list = MakeSegmentList(operation, segments);
  QueryTilesGpu queries;
  queries.tile = tile;
  queries.first_tile[0] = 0;
  for (int i = 0; i < list.count; ++i) {
    LS_CHECK(std::max(list.begin[i] + list.length[i], list.row[i] + list.length[i]) < INT32_MAX,
             "{}: segments: expected positions below 2^31 on a GPU, found {} tokens from {} on", operation,
             list.length[i], list.begin[i]);
    queries.begin[i] = static_cast<int>(list.begin[i]);
    queries.length[i] = static_cast<int>(list.length[i]);
    queries.row[i] = static_cast<int>(list.row[i]);
    queries.first_tile[i + 1] = queries.first_tile[i] + static_cast<int>(CeilDiv(list.length[i], tile));
  }
  queries.count = list.count;
  return queries;
}

BranchParams BranchParamsOf(const char* operation, const BranchArgs& args, const SightGpu& sight, int tile_queries) {
  BranchParams params;
  params.q = args.q.data;
  params.k = args.kv.k.data;
  params.v = args.kv.v.data;
  params.o = args.o.data;
  params.lse = GpuData<float>(args.lse);
  params.table = GpuData<const int32_t>(args.kv.pages.table);
  params.page_rows = static_cast<int>(args.kv.pages.page_rows);
  params.heads = static_cast<int>(args.q.dim(1));
  params.groups = static_cast<int>(args.kv.k.dim(1));
  params.key_width = static_cast<int>(args.q.dim(2));
  params.value_width = static_cast<int>(args.kv.v.dim(2));
  params.scale = static_cast<float>(args.scale);
  params.sight = sight;
  params.queries = CutQueriesGpu(operation, args.segments, tile_queries);
  return params;
}

void GpuAttention::Compressed(Stream& stream, const CompressedArgs& args) {
  const char* const name = "attention.compressed";
  CheckBlockAndStride(name, args.block, args.stride);
  Forward(stream, name, CompressedPairs(args.segments, args.block, args.stride), args, SightOf(args), RangeForwardBf16);
}

void GpuAttention::Selected(Stream& stream, const SelectedArgs& args) {
  const char* const name = "attention.selected";
  CheckBranch(OnGpu(name), args);
  CheckSelected(OnGpu(name), args);
  Forward(stream, name, SelectedPairs(args.segments, args.select_block, args.selected.dim(2)), args, SightOf(args),
          SelectedForwardBf16);
}

void GpuAttention::Window(Stream& stream, const WindowArgs& args) {
  const char* const name = "attention.window";
  LS_CHECK(args.window > 0, "{}: window: expected 1 or more, found {}", name, args.window);
  Forward(stream, name, WindowPairs(args.segments, args.window), args, SightOf(args), RangeForwardBf16);
}

}  // namespace longspan
