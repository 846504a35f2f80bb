// What the attention launchers ask of their arguments, and what their work costs.
#pragma once

#include <initializer_list>
#include <vector>

#include "kernels/attention_ops.h"

namespace longspan {

// Each returns the floating type of the call or throws Error naming `operation` and the argument.
DType CheckBranch(const char* operation, const BranchArgs& args);
DType CheckBranchGradient(const char* operation, const BranchArgs& args, const BranchGradient& gradient);
DType CheckSelect(const char* operation, const SelectArgs& args);
DType CheckCompress(const char* operation, const CompressArgs& args);
DType CheckCompressGradient(const char* operation, const CompressArgs& args, const CompressGradient& gradient);
DType CheckCombine(const char* operation, const CombineArgs& args);
DType CheckCombineGradient(const char* operation, const CombineArgs& args, const CombineGradient& gradient);
void CheckSelected(const char* operation, const SelectedArgs& args);
void CheckBlockAndStride(const char* operation, int64_t block, int64_t stride);
void CheckHashSelection(const char* operation, const HashSelectionArgs& args);

// (query, key row) pairs of one head, were there one document only (the starts of documents are not known to a
// launcher).
double CompressedPairs(const std::vector<Segment>& segments, int64_t block, int64_t stride);
double SelectedPairs(const std::vector<Segment>& segments, int64_t select_block, int64_t select);
double WindowPairs(const std::vector<Segment>& segments, int64_t window);

double BytesOf(std::initializer_list<Tensor> tensors);

}  // namespace longspan
