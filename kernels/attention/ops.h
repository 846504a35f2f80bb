// Attention: the operations of Native Sparse Attention (arXiv 2502.11089, DESIGN.md section 2) on one device.
//
// Queries come as segments of this rank's T tokens; keys and values as rows read through a page table, so that they may
// lie in any order (own, borrowed from a neighbour, gathered, fetched). A key's position is what the page table says, a
// query's what its segment says; every mask is plain arithmetic on positions.
//
// Forward operations overwrite their outputs. Backward operations ACCUMULATE into every gradient they are given, but
// for CombineBackward, which overwrites, and where they are told otherwise; a gradient tensor that is null is not
// wanted. Rows of o for a query that sees nothing are 0 and its lse is -inf. On CPU all floating tensors of one call
// have one dtype (F32 or F64).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/attention/nsa_config.h"
#include "kernels/attention/pages.h"
#include "kernels/attention/phi.h"
#include "runtime/device.h"
#include "runtime/tensor.h"

namespace longspan {

struct KeysValues {
  Tensor k;  // [R,G,K]
  Tensor v;  // [R,G,V]
  Pages pages;
};

// What the three branches have in common.
struct BranchArgs {
  std::vector<Segment> segments;
  Tensor doc_start;  // [S] I32, position of the first token of each token's document; null = one document
  Tensor q;          // [T,H,K]
  KeysValues kv;
  double scale = 0;  // of the scores, usually 1/sqrt(K)
  Tensor o;          // [T,H,V] output
  Tensor lse;        // [T,H] output, natural log; F32 at least
};

// o[t] = attention over the compressed tokens j with j*stride >= doc_start[t] and j*stride + block - 1 <= t. Compressed
// token j is row j + block/stride - 1 of the sequence of rows that kv.pages speaks of.
struct CompressedArgs : BranchArgs {
  int64_t block = 0;
  int64_t stride = 0;
};

// Over the tokens u <= t of the blocks in selected[t,g]. (A block never holds two documents.)
struct SelectedArgs : BranchArgs {
  int64_t select_block = 0;
  Tensor selected;  // [T,G,N] I32, block indices ascending, padded with -1
};

// Over u in [max(doc_start[t], t-window+1), t]. window >= S is dense causal attention (the FULL kind).
struct WindowArgs : BranchArgs {
  int64_t window = 0;
};

// Of a branch whose o Combine has multiplied with a gate: its backward is that of gate * o.
struct BranchGate {
  Tensor gates;    // [T,H,3], those of CombineArgs, 0 or more; null = not gated
  Tensor d_gates;  // [T,H,3], what CombineBackward has written: sum(d_o o)
  int branch = 0;  // whose of the three
};

// Of one branch. The forward's o and lse are inputs here.
struct BranchGradient {
  Tensor d_o;  // [T,H,V], of o or of gate * o
  Tensor d_q;  // [T,H,K], accumulated
  Tensor d_k;  // [R,G,K], accumulated, rows as kv.k
  Tensor d_v;  // [R,G,V], accumulated, rows as kv.v
  BranchGate gate = {};
  // d_q is overwritten instead, but for rows that no segment holds, which may be anything then: for the first branch
  // that adds to it.
  bool overwrite_q = false;
};

// Importance and selection (equations 9 to 12, read geometrically): p = softmax over visible compressed tokens by the
// saved lse; score of block i = sum over the group's heads and over j of p[j] * (cells of `stride` tokens shared by
// compressed token j and block i). Forced: the document's first `init` blocks and the `local` blocks ending with t's
// own. The rest by score, highest first, ties to the lower index. Always min(select, visible) blocks.
struct SelectArgs {
  std::vector<Segment> segments;
  Tensor doc_start;  // [S] I32 or null
  Tensor q;          // [T,H,K]
  Tensor k;          // [R,G,K] compressed, rotated keys
  Pages pages;
  Tensor lse;  // [T,H] of the compressed branch
  double scale = 0;
  NsaConfig nsa;
  Tensor selected;  // [T,G,N] I32 output, ascending, padded with -1
  Tensor scores;    // [T,G,N] output or null: score of each chosen block, by `selected`'s order; 0 for padding
};

// Compressed token j = phi(rows j*stride .. j*stride+block-1). Produces the rows whose last token lies in a segment: a
// segment [begin, begin+length) yields rows begin/stride .. (begin+length)/stride - 1, written from local row
// segment.row/stride on. Rows before compressed token 0 (there are block/stride-1) are set to 0. Segments begin at
// multiples of stride.
struct CompressArgs {
  std::vector<Segment> segments;
  Tensor x;     // [R,G,W]
  Pages pages;  // of x, rows = tokens
  Phi phi = Phi::kMlp;
  int64_t block = 0;
  int64_t stride = 0;
  PhiWeights weights;
  Tensor y;  // [T/stride,G,W] output
};

struct CompressGradient {
  Tensor d_y;            // [T/stride,G,W]
  Tensor d_x;            // [R,G,W], accumulated, rows as x
  PhiWeights d_weights;  // accumulated
};

// o = g_cmp*o_cmp + g_slc*o_slc + g_win*o_win, one gate per token, head and branch.
struct CombineArgs {
  Tensor gates;                // [T,H,3], after the sigmoid, order cmp, slc, win
  Tensor o_cmp, o_slc, o_win;  // [T,H,V]
  Tensor o;                    // [T,H,V] output
};

// The branches' backward takes the same d_o, and their gate (BranchGate).
struct CombineGradient {
  Tensor d_o;      // [T,H,V]
  Tensor d_gates;  // [T,H,3], overwritten
};

// Order-free hash of a selection: equal whatever the split over ranks, once the ranks' values are added (mod 2^64).
struct HashSelectionArgs {
  std::vector<Segment> segments;
  Tensor selected;  // [T,G,N]
  Tensor hash;      // [1] I64 output
};

// The rows of a segment go to where the page table says that its positions lie: y's row of position begin + i = x's row
// row + i. Other rows of y stay as they are.
struct StoreArgs {
  std::vector<Segment> segments;
  Tensor x;     // [T,G,W]
  Tensor y;     // [R,G,W]
  Pages pages;  // of y
};

struct AttentionSizes {
  DType dtype = DType::kF32;
  int64_t heads = 0, groups = 0;           // H, G
  int64_t key_width = 0, value_width = 0;  // K, V
};

class AttentionOps {
 public:
  virtual ~AttentionOps() = default;
  virtual void Compress(Stream& stream, const CompressArgs& args) = 0;
  virtual void CompressBackward(Stream& stream, const CompressArgs& args, const CompressGradient& gradient) = 0;
  virtual void Compressed(Stream& stream, const CompressedArgs& args) = 0;
  virtual void CompressedBackward(Stream& stream, const CompressedArgs& args, const BranchGradient& gradient) = 0;
  virtual void Select(Stream& stream, const SelectArgs& args) = 0;
  virtual void Selected(Stream& stream, const SelectedArgs& args) = 0;
  virtual void SelectedBackward(Stream& stream, const SelectedArgs& args, const BranchGradient& gradient) = 0;
  virtual void Window(Stream& stream, const WindowArgs& args) = 0;
  virtual void WindowBackward(Stream& stream, const WindowArgs& args, const BranchGradient& gradient) = 0;
  virtual void Combine(Stream& stream, const CombineArgs& args) = 0;
  virtual void CombineBackward(Stream& stream, const CombineArgs& args, const CombineGradient& gradient) = 0;
  virtual void HashSelection(Stream& stream, const HashSelectionArgs& args) = 0;
  virtual void Store(Stream& stream, const StoreArgs& args) = 0;
  // Which kernels serve calls of these sizes on the stream's device, for the log of a run's start: "sm80", or "sm90,
  // sm80 for selected_backward_q".
  virtual std::string Kernels(Stream& stream, const AttentionSizes& sizes) const = 0;
  // How many of a GPU's multiprocessors kernels whose blocks stay leave to what runs beside them; at first none.
  // Results do not depend on it. Throws Error (configuration) unless the stream's device has more. On a CPU nothing
  // happens.
  virtual void LeaveProcessors(Stream&, int64_t /*count*/) {}
};

std::unique_ptr<AttentionOps> MakeCpuAttention();
std::unique_ptr<AttentionOps> MakePlannedAttention(DeviceKind kind);

}  // namespace longspan
