#include "kernels/attention/gpu/plain.cuh"
#include "kernels/attention/gpu/selection_lists.cuh"
#include "kernels/attention/gpu/variants.h"

namespace longspan {
namespace {

template <typename Params>
bool IsF32(const Params& params) {
  return params.dtype == DType::kF32;
}

template <typename Sight>
void Forward(cudaStream_t stream, const char*, const BranchParams<Sight>& params) {
  BranchForwardF32(stream, params);
}

template <typename Params>
int64_t NoScratch(const Params&) {
  return 0;
}

void RangeBackward(cudaStream_t stream, const char*, const BackwardParams<RangeSight>& params, unsigned char*) {
  BranchBackwardF32(stream, params, {});
}

// One item a list.
SelectionListsPlan PlanLists(const BackwardParams<SelectedSight>& params) { return {params, 1, 0}; }

int64_t ListsScratch(const BackwardParams<SelectedSight>& params) {
  return params.keys_wanted() ? PlanLists(params).scratch_bytes() : 0;
}

void SelectedBackwardQ(cudaStream_t stream, const char*, const BackwardParams<SelectedSight>& params, unsigned char*) {
  BackwardParams<SelectedSight> pass = params;
  pass.d_k = pass.d_v = nullptr;
  BranchBackwardF32(stream, pass, {});
}

void SelectedBackwardKeys(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                          unsigned char* scratch) {
  if (!params.keys_wanted()) return;
  BackwardParams<SelectedSight> pass = params;
  pass.d_q = nullptr;
  BranchBackwardF32(stream, pass, PlanLists(params).Build(stream, operation, params, scratch).lists);
}

}  // namespace

const AttentionKernels kPlainAttention = {
    .name = "plain",
    .oldest = 80,
    .newest = INT32_MAX,
    .range_forward = {IsF32, Forward},
    .selected_forward = {IsF32, Forward},
    .range_backward = {IsF32, NoScratch, RangeBackward},
    .selected_backward_q = {IsF32, NoScratch, SelectedBackwardQ},
    .selected_backward_keys = {IsF32, ListsScratch, SelectedBackwardKeys},
    .select = {[](const SelectParams&) { return true; }, SelectPlain},
};

}  // namespace longspan
