// The kernels of sm80/: BF16 on the tensor cores of compute capability 8.0 and later, by mma.sync. kernels.cu has their
// set. Widths are multiples of 8, in the forward up to kMaxWidthGpu, in the backward up to 192 and 128.
#pragma once

#include "kernels/attention/gpu/selection_lists.cuh"

namespace longspan {

struct SelectParams;

// Overwrite o and lse.
void RangeForwardSm80(cudaStream_t stream, const char* operation, const BranchParams<RangeSight>& params);
void SelectedForwardSm80(cudaStream_t stream, const char* operation, const BranchParams<SelectedSight>& params);

// d_q += ...
void RangeBackwardQSm80(cudaStream_t stream, const char* operation, const BackwardParams<RangeSight>& params);
void SelectedBackwardQSm80(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params);

constexpr int kBackwardKeys = 64;  // keys of a tile of the d_k, d_v pass

// Work of the d_k, d_v pass of the window and compressed branches: an item is a tile of the sequence's keys and at most
// `chunk` of the queries that see it. A tile with more has several items, whose sums are added up in order.
struct RangeWork {
  int chunk = 1;
  int chunks = 1;            // of a tile at most
  int tiles = 1;             // of the sequence
  float* partial = nullptr;  // [G, tiles, chunks] results of PartBytes
};

// What the result of one item takes: [kBackwardKeys, KW+VW] F32 of the padded widths.
int64_t PartBytes(int key_width, int value_width);

// d_k += ..., d_v += ..., either may be null.
void BackwardKeysSm80(cudaStream_t stream, const char* operation, const BackwardParams<RangeSight>& params,
                      const RangeWork& work);
void BackwardKeysSm80(cudaStream_t stream, const char* operation, const BackwardParams<SelectedSight>& params,
                      const ListedWork& work);

// Writes `selected` (and `scores`).
bool SelectServedSm80(const SelectParams& params);
void SelectSm80(cudaStream_t stream, const char* operation, const SelectParams& params);

}  // namespace longspan
