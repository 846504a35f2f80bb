// What the work of attention costs: floating-point operations and bytes, counted beside the launches.
#pragma once

#include <initializer_list>
#include <vector>

#include "kernels/attention/decode.h"
#include "kernels/attention/ops.h"
#include "runtime/trace.h"

namespace longspan {

// (query, key row) pairs of one head, were there one document only (the starts of documents are not known to a
// launcher).
double CompressedPairs(const std::vector<Segment>& segments, int64_t block, int64_t stride);
double SelectedPairs(const std::vector<Segment>& segments, int64_t select_block, int64_t select);
double WindowPairs(const std::vector<Segment>& segments, int64_t window);

// Of a branch with so many pairs in every head: two products forward, five backward.
Cost BranchCost(const BranchArgs& args, double pairs);
Cost BranchBackwardCost(const BranchArgs& args, const BranchGradient& gradient, double pairs);

Cost SelectCost(const SelectArgs& args);  // one product
Cost CompressCost(const CompressArgs& args);
Cost CompressBackwardCost(const CompressArgs& args, const CompressGradient& gradient);
Cost CombineCost(const CombineArgs& args);
Cost StoreCost(const StoreArgs& args);
Cost CombineBackwardCost(const CombineArgs& args, const CombineGradient& gradient);

// Of a step's sequences that the host knows; keys and values are read by each query for itself.
Cost DecodeSummarizeCost(const DecodeSummarizeArgs& args);
Cost DecodeAttendCost(const DecodeAttendArgs& args);

// Of those that are not null.
double BytesOf(std::initializer_list<Tensor> tensors);

}  // namespace longspan
