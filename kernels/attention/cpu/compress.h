// Compression of key/value blocks by phi (contracts in kernels/attention/ops.h).
#pragma once

#include <vector>

#include "kernels/attention/ops.h"

namespace longspan {

// The compressed tokens of a call and where their `block` rows of x lie.
struct CompressPlan {
  explicit CompressPlan(const CompressArgs& args);

  std::vector<int64_t> y_rows;     // of each token, its row of y
  std::vector<int64_t> x_rows;     // [tokens, block], rows of x
  std::vector<int64_t> lead_rows;  // rows of y before compressed token 0
  int64_t tokens() const { return std::ssize(y_rows); }
};

// Tokens [first, first+count) x groups [group, group+groups): the rows of one matrix product, token by token.
struct CompressPanel {
  int64_t first = 0;
  int64_t count = 0;
  int64_t group = 0;
  int64_t groups = 0;
  int64_t rows() const { return count * groups; }
};

// Cuts all tokens: MLP takes all groups in one panel (they share weights), LINEAR and MEAN one group. About
// `rows` rows a panel; panels of a group ascend.
std::vector<CompressPanel> CutPanels(const CompressArgs& args, int64_t tokens, int64_t rows);

// blocks[panel rows, block*W] = the rows of x, plus the position encoding.
template <typename T>
void GatherBlocks(const CompressArgs& args, const CompressPanel& panel, const CompressPlan& plan, T* blocks);

// x[row, :] += bias[:] for all rows.
template <typename T>
void AddBias(const Tensor& bias, int64_t rows, T* x);

// Overwrites y.
template <typename T>
void CompressTokens(const CompressArgs& args);

// Adds to d_x and the weights' gradients, each unless null.
template <typename T>
void CompressTokensBackward(const CompressArgs& args, const CompressGradient& gradient);

}  // namespace longspan
