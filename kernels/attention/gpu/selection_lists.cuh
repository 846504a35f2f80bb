// Who chose a block: the choice of the selected branch turned round, for its d_k and d_v.
#pragma once

#include "kernels/attention/gpu/backward.cuh"

namespace longspan {

// Where the lists of a call lie in scratch, and how they are cut into work items.
class SelectionListsPlan {
 public:
  // Adds to `cut`. `tokens` is T; `part_bytes` is what the partial result of one item takes (0: lists are not cut).
  SelectionListsPlan(const BackwardParams& params, int64_t tokens, int64_t part_bytes, ScratchCut* cut);
  // Enqueues; the result's pointers lie in `scratch`. No atomics: lists are ascending whatever runs first.
  KeyWork Build(cudaStream_t stream, const char* operation, const BackwardParams& params, unsigned char* scratch) const;

 private:
  int64_t tokens_, entries_, lists_, chunk_, tiles_, max_parts_;
  int64_t counts_at_, rows_at_, begin_at_, item_at_, partial_index_at_, partial_at_;
};

}  // namespace longspan
