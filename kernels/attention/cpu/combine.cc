// Combination: overwrites its outputs, forward and backward; bound by memory.
#include "kernels/attention/cpu/combine.h"

namespace longspan {

template <typename T>
void CombineBranches(const CombineArgs& args) {
  const int64_t rows = args.o.dim(0) * args.o.dim(1), width = args.o.dim(2);
  const T* const gates = args.gates.As<const T>();
  const T* const o_cmp = args.o_cmp.As<const T>();
  const T* const o_slc = args.o_slc.As<const T>();
  const T* const o_win = args.o_win.As<const T>();
  T* const o = args.o.As<T>();
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const T cmp = gates[row * 3], slc = gates[row * 3 + 1], win = gates[row * 3 + 2];
#pragma omp simd
    for (int64_t i = row * width; i < (row + 1) * width; ++i) o[i] = cmp * o_cmp[i] + slc * o_slc[i] + win * o_win[i];
  }
}

template <typename T>
void CombineBranchesBackward(const CombineArgs& args, const CombineGradient& gradient) {
  const int64_t rows = gradient.d_o.dim(0) * gradient.d_o.dim(1), width = gradient.d_o.dim(2);
  const T* const d_o = gradient.d_o.As<const T>();
  T* const d_gates = gradient.d_gates.As<T>();
  const Tensor* const o[3] = {&args.o_cmp, &args.o_slc, &args.o_win};
  for (int branch = 0; branch < 3; ++branch) {
    const T* const o_branch = o[branch]->As<const T>();
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
      T d_gate = 0;
      for (int64_t i = row * width; i < (row + 1) * width; ++i) d_gate += d_o[i] * o_branch[i];
      d_gates[row * 3 + branch] = d_gate;
    }
  }
}

template void CombineBranches<float>(const CombineArgs&);
template void CombineBranches<double>(const CombineArgs&);
template void CombineBranchesBackward<float>(const CombineArgs&, const CombineGradient&);
template void CombineBranchesBackward<double>(const CombineArgs&, const CombineGradient&);

}  // namespace longspan
