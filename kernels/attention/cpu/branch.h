// The three branches of NSA are one computation: softmax attention over the key rows that a query sees. What it sees is
// a Visibility (kernels/attention/cpu/visibility.h); everything else is here. float and double.
#pragma once

#include "kernels/attention/cpu/visibility.h"
#include "kernels/attention/ops.h"
#include "kernels/base/scratch_cpu.h"
#include "kernels/base/tile_math_cpu.h"

namespace longspan {

// Rows of a query tile, so many (query, head of the group) pairs at most; one query's heads stay together.
constexpr int64_t kTileQueryRows = 64;
// Rows of a key tile where the branch does not say otherwise.
constexpr int64_t kKeyTile = 64;

std::vector<QueryTile> CutForHeads(const std::vector<Segment>& segments, int64_t heads_per_group);

// to[count*heads_per_group, PadRow(width)] = factor * x[queries, heads of the group, :], padded with zeros.
template <typename T>
void PackQueries(const Tensor& x, const QueryTile& queries, int64_t group, int64_t groups, T factor, T* to);

// Overwrites o and lse.
template <typename T>
void ForwardBranch(const BranchArgs& args, int64_t key_tile, const Visibility& visible);

// Adds to d_q, d_k and d_v, each unless null.
template <typename T>
void BackwardBranch(const BranchArgs& args, const BranchGradient& gradient, int64_t key_tile,
                    const Visibility& visible);

}  // namespace longspan
