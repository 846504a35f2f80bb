// The kernels for Hopper (compute capability 9.0 exactly, sm_90a); kernels.cu has their set.
#pragma once

#include "kernels/attention/gpu/backward.cuh"
#include "kernels/attention/gpu/contest.cuh"

namespace longspan {

// BF16; (K,V) = (64,64), (128,128) or (192,128); any pages, documents and segments, up to 128 heads a group.
bool RangeForwardServedSm90(const BranchParams<RangeSight>& params);
void RangeForwardSm90(cudaStream_t stream, const char* operation, const BranchParams<RangeSight>& params);

// d_q += ..., or overwritten.
void RangeBackwardQSm90(cudaStream_t stream, const char* operation, const BackwardParams<RangeSight>& params);
// d_k += ..., d_v += ..., either may be null; with d_q += ... where it pays to have all from one pass.
bool RangeBackwardTogetherSm90(const BackwardParams<RangeSight>& params);
int64_t RangeBackwardKeysScratchSm90(const BackwardParams<RangeSight>& params);
void RangeBackwardKeysSm90(cudaStream_t stream, const char* operation, const BackwardParams<RangeSight>& params,
                           unsigned char* scratch);

// BF16; (K,V) as above; any pages, segments, blocks and heads a group.
bool SelectedForwardServedSm90(const BranchParams<SelectedSight>& params);
void SelectedForwardSm90(cudaStream_t stream, const char* operation, const BranchParams<SelectedSight>& params);
// d_q, added or overwritten; the same.
bool SelectedBackwardQServedSm90(const BackwardParams<SelectedSight>& params);
void SelectedBackwardQSm90(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params);
// d_k += ..., d_v += ..., either may be null. BF16; (K,V) = (64,64) or (128,128); any pages, documents, segments and
// blocks; 2 heads a group and more that fill at most 8 parts of 8 rows (selected_bring.cuh).
bool SelectedBackwardKeysServedSm90(const BackwardParams<SelectedSight>& params);
int64_t SelectedBackwardKeysScratchSm90(const BackwardParams<SelectedSight>& params);
void SelectedBackwardKeysSm90(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                              unsigned char* scratch);

// BF16, K = 64, 128 or 192, up to 16 heads a group; any blocks, pages, documents and segments.
bool SelectServedSm90(const SelectParams& params);
void SelectSm90(cudaStream_t stream, const char* operation, const SelectParams& params);

}  // namespace longspan
