// The set of sm90/ for kernels/attention/gpu/variants.h.
#include "kernels/attention/gpu/variants.h"
#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/range_work.cuh"

namespace longspan {
namespace {

bool RangeBackwardServed(const BackwardParams<RangeSight>& params) {
  const auto widths = [&](int width) { return params.key_width == width && params.value_width == width; };
  return params.dtype == DType::kBf16 && (widths(64) || widths(128)) && params.group_heads() <= kWarpgroupRows &&
         params.scale >= 0 && AlignedForCopies(params.q) && AlignedForCopies(params.k) && AlignedForCopies(params.v) &&
         AlignedForCopies(params.d_o);
}

int64_t RangeBackwardScratch(const BackwardParams<RangeSight>& params) {
  return params.keys_wanted() ? RangeBackwardKeysScratchSm90(params) : 0;
}

void RangeBackward(cudaStream_t stream, const char* operation, const BackwardParams<RangeSight>& params,
                   unsigned char* scratch) {
  if (params.d_q != nullptr && !RangeBackwardTogetherSm90(params)) RangeBackwardQSm90(stream, operation, params);
  if (params.keys_wanted()) RangeBackwardKeysSm90(stream, operation, params, scratch);
}

bool RangeBackwardOverwrites(const BackwardParams<RangeSight>& params) { return !RangeBackwardTogetherSm90(params); }

int64_t NoScratch(const BackwardParams<SelectedSight>&) { return 0; }

void SelectedBackwardQ(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                       unsigned char*) {
  if (params.d_q != nullptr) SelectedBackwardQSm90(stream, operation, params);
}

}  // namespace

const AttentionKernels kSm90Attention = {
    .name = "sm90",
    .oldest = 90,
    .newest = 90,
    .range_forward = {RangeForwardServedSm90, RangeForwardSm90},
    .selected_forward = {SelectedForwardServedSm90, SelectedForwardSm90},
    .range_backward = {RangeBackwardServed, RangeBackwardScratch, RangeBackward, RangeBackwardOverwrites},
    .selected_backward_q = {SelectedBackwardQServedSm90, NoScratch, SelectedBackwardQ,
                            [](const BackwardParams<SelectedSight>&) { return true; }},
    .selected_backward_keys = {SelectedBackwardKeysServedSm90, SelectedBackwardKeysScratchSm90,
                               SelectedBackwardKeysSm90},
    .select = {SelectServedSm90, SelectSm90},
};

}  // namespace longspan
