// The three branches of one call: who asks, what each branch reads, where results go. The order of DESIGN.md section 2.
#pragma once

#include <array>
#include <vector>

#include "kernels/attention/ops.h"

namespace longspan {

inline constexpr int kCmp = 0, kSlc = 1, kWin = 2;  // the order of branches everywhere

struct BranchOutputs {
  std::array<Tensor, 3> o;    // [T,H,V]
  std::array<Tensor, 3> lse;  // [T,H]
  Tensor selected;            // [T,G,N] I32
};

struct Branches {
  std::vector<Segment> segments;
  std::vector<Segment> window_segments;  // of the window's own sequence of rows
  Tensor doc_start;                      // [S] I32 or null
  Tensor q;                              // [T,H,K]
  std::array<KeysValues, 3> keys;        // kCmp: compressed and rotated
  BranchOutputs out;
  NsaConfig nsa;
  double scale = 0;

  CompressedArgs Compressed() const;
  SelectedArgs Selected() const;
  WindowArgs Window() const;
  void Forward(AttentionOps& ops, Stream& stream) const;  // overwrites `out`

 private:
  void Fill(int branch, BranchArgs* args) const;
};

}  // namespace longspan
