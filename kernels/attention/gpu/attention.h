// The attention family on a GPU, in F32 or BF16: all floating inputs and outputs of one call have one type; lse, scores
// and gradients that accumulate are F32. Compute capability 8.0 and newer.
//
//   branch_forward, branch_backward   softmax attention of the three branches
//   select, hash                      importance, selection, its hash
//   compress_forward, compress_backward, combine, store
//   variants                          which kernels serve a call: plain ones, an architecture's (sm80/)
#pragma once

#include "kernels/attention/ops.h"
#include "kernels/matmul/matmul_gpu.h"
#include "runtime/gpu.h"

namespace longspan {

class GpuAttention final : public AttentionOps {
 public:
  void Compress(Stream& stream, const CompressArgs& args) override;
  void CompressBackward(Stream& stream, const CompressArgs& args, const CompressGradient& gradient) override;
  void Compressed(Stream& stream, const CompressedArgs& args) override;
  void CompressedBackward(Stream& stream, const CompressedArgs& args, const BranchGradient& gradient) override;
  void Select(Stream& stream, const SelectArgs& args) override;
  void Selected(Stream& stream, const SelectedArgs& args) override;
  void SelectedBackward(Stream& stream, const SelectedArgs& args, const BranchGradient& gradient) override;
  void Window(Stream& stream, const WindowArgs& args) override;
  void WindowBackward(Stream& stream, const WindowArgs& args, const BranchGradient& gradient) override;
  void Combine(Stream& stream, const CombineArgs& args) override;
  void CombineBackward(Stream& stream, const CombineArgs& args, const CombineGradient& gradient) override;
  void HashSelection(Stream& stream, const HashSelectionArgs& args) override;
  void Store(Stream& stream, const StoreArgs& args) override;
  std::string Kernels(Stream& stream, const AttentionSizes& sizes) const override;
  void LeaveProcessors(Stream& stream, int64_t count) override;

 private:
  int left_processors_ = 0;
  GpuScratch compress_scratch_{"compression"};
  MatMulGpu compress_matmul_{"the products of compression"};
  GpuScratch branch_scratch_{"the attention branches"};
};

std::unique_ptr<AttentionOps> MakeGpuAttention();

}  // namespace longspan
