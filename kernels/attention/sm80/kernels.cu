// The set of sm80/ for kernels/attention/gpu/variants.h, and how its backward goes: d_q, then d_k and d_v.
#include <algorithm>

#include "kernels/attention/gpu/variants.h"
#include "kernels/attention/sm80/kernels.cuh"
#include "kernels/attention/sm80/warp_tiles.cuh"

namespace longspan {
namespace {

constexpr int64_t kMinChunk = 512;  // queries of a work item of the d_k, d_v pass
constexpr int64_t kItems = 4096;    // work items that keep a GPU busy evenly to the end

template <typename Params>
bool ForwardServed(const Params& params) {
  return params.dtype == DType::kBf16 && params.key_width % 8 == 0 && params.value_width % 8 == 0 &&
         params.key_width <= kMaxWidthGpu && params.value_width <= kMaxWidthGpu;
}

template <typename Params>
bool BackwardServed(const Params& params) {
  return ForwardServed(params) && params.key_width <= kMaxBackwardKeyWidth &&
         params.value_width <= kMaxBackwardValueWidth;
}

// Few tiles with many watchers are cut into several items.
RangeWork PlanRange(const BackwardParams<RangeSight>& params) {
  RangeWork work;
  work.tiles = static_cast<int>(CeilDiv(params.key_rows, kBackwardKeys));
  const int64_t watchers = std::min<int64_t>(params.queries.tiles(), int64_t{params.sight.window} + kBackwardKeys - 1);
  const int64_t chunks = std::max<int64_t>(
      1, std::min(watchers / kMinChunk, kItems / std::max<int64_t>(1, int64_t{work.tiles} * params.groups)));
  work.chunk = static_cast<int>(std::max<int64_t>(1, CeilDiv(watchers, chunks)));
  work.chunks = static_cast<int>(chunks);
  return work;
}

int64_t RangeScratch(const BackwardParams<RangeSight>& params) {
  const RangeWork work = PlanRange(params);
  if (!params.keys_wanted() || work.chunks == 1) return 0;
  return int64_t{work.tiles} * work.chunks * params.groups * PartBytes(params.key_width, params.value_width);
}

void RangeBackward(cudaStream_t stream, const char* operation, const BackwardParams<RangeSight>& params,
                   unsigned char* scratch) {
  if (params.d_q != nullptr) RangeBackwardQSm80(stream, operation, params);
  if (!params.keys_wanted()) return;
  RangeWork work = PlanRange(params);
  if (work.chunks > 1) work.partial = reinterpret_cast<float*>(scratch);
  BackwardKeysSm80(stream, operation, params, work);
}

SelectionListsPlan PlanLists(const BackwardParams<SelectedSight>& params) {
  return {params, kBackwardKeys, PartBytes(params.key_width, params.value_width)};
}

int64_t ListsScratch(const BackwardParams<SelectedSight>& params) {
  return params.keys_wanted() ? PlanLists(params).scratch_bytes() : 0;
}

int64_t NoScratch(const BackwardParams<SelectedSight>&) { return 0; }

void SelectedBackwardQ(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                       unsigned char*) {
  if (params.d_q != nullptr) SelectedBackwardQSm80(stream, operation, params);
}

void SelectedBackwardKeys(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                          unsigned char* scratch) {
  if (!params.keys_wanted()) return;
  BackwardKeysSm80(stream, operation, params, PlanLists(params).Build(stream, operation, params, scratch));
}

}  // namespace

const AttentionKernels kSm80Attention = {
    .name = "sm80",
    .oldest = 80,
    .newest = INT32_MAX,
    .range_forward = {ForwardServed, RangeForwardSm80},
    .selected_forward = {ForwardServed, SelectedForwardSm80},
    .range_backward = {BackwardServed, RangeScratch, RangeBackward},
    .selected_backward_q = {BackwardServed, NoScratch, SelectedBackwardQ},
    .selected_backward_keys = {BackwardServed, ListsScratch, SelectedBackwardKeys},
    .select = {SelectServedSm80, SelectSm80},
};

}  // namespace longspan
