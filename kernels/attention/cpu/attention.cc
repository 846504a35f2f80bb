// The attention family of the CPU reference: checks and counts here, the mathematics in
//   visibility   which key rows a query sees, of each branch
//   branch_forward, branch_backward   softmax attention over them; key_tiles brings the rows
//   select       importance, selection, its hash
//   compress_forward, compress_backward, combine, store
#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/cpu/branch.h"
#include "kernels/attention/cpu/combine.h"
#include "kernels/attention/cpu/compress.h"
#include "kernels/attention/cpu/select.h"
#include "kernels/attention/cpu/store.h"
#include "kernels/base/arguments.h"
#include "kernels/base/tile_math_cpu.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

void Forward(Stream& stream, const char* name, DType dtype, double pairs, const BranchArgs& args, int64_t key_tile,
             const Visibility& visible) {
  Launch(stream, name, BranchCost(args, pairs),
         [=] { DispatchFloat(dtype, [&]<typename T>() { ForwardBranch<T>(args, key_tile, visible); }); });
}

void Backward(Stream& stream, const char* name, DType dtype, double pairs, const BranchArgs& args,
              const BranchGradient& gradient, int64_t key_tile, const Visibility& visible) {
  Launch(stream, name, BranchBackwardCost(args, gradient, pairs),
         [=] { DispatchFloat(dtype, [&]<typename T>() { BackwardBranch<T>(args, gradient, key_tile, visible); }); });
}

class CpuAttention : public AttentionOps {
 public:
  // What the environment says wrongly is an Error here: none may leave the parallel regions that ask later.
  CpuAttention() { TileMathOf<float>(); }

  void Compress(Stream& stream, const CompressArgs& args) override {
    const char* const name = "attention.compress";
    const DType dtype = CheckCompress(name, args);
    Launch(stream, name, CompressCost(args),
           [=] { DispatchFloat(dtype, [&]<typename T>() { CompressTokens<T>(args); }); });
  }

  void CompressBackward(Stream& stream, const CompressArgs& args, const CompressGradient& gradient) override {
    const char* const name = "attention.compress_backward";
    const DType dtype = CheckCompressGradient(name, args, gradient);
    Launch(stream, name, CompressBackwardCost(args, gradient),
           [=] { DispatchFloat(dtype, [&]<typename T>() { CompressTokensBackward<T>(args, gradient); }); });
  }

  void Compressed(Stream& stream, const CompressedArgs& args) override {
    const char* const name = "attention.compressed";
    CheckBlockAndStride(name, args.block, args.stride);
    Forward(stream, name, CheckBranch(name, args), CompressedPairs(args.segments, args.block, args.stride), args,
            kKeyTile, SeenCompressed(args.doc_start, args.block, args.stride));
  }

  void CompressedBackward(Stream& stream, const CompressedArgs& args, const BranchGradient& gradient) override {
    const char* const name = "attention.compressed_backward";
    CheckBlockAndStride(name, args.block, args.stride);
    Backward(stream, name, CheckBranchGradient(name, args, gradient),
             CompressedPairs(args.segments, args.block, args.stride), args, gradient, kKeyTile,
             SeenCompressed(args.doc_start, args.block, args.stride));
  }

  void Select(Stream& stream, const SelectArgs& args) override {
    const char* const name = "attention.select";
    const DType dtype = CheckSelect(name, args);
    Launch(stream, name, SelectCost(args), [=] { DispatchFloat(dtype, [&]<typename T>() { SelectBlocks<T>(args); }); });
  }

  void Selected(Stream& stream, const SelectedArgs& args) override {
    const char* const name = "attention.selected";
    const DType dtype = CheckBranch(name, args);
    CheckSelected(name, args);
    Forward(stream, name, dtype, SelectedPairs(args.segments, args.select_block, args.selected.dim(2)), args,
            args.select_block, SeenSelected(args));
  }

  void SelectedBackward(Stream& stream, const SelectedArgs& args, const BranchGradient& gradient) override {
    const char* const name = "attention.selected_backward";
    const DType dtype = CheckBranchGradient(name, args, gradient);
    CheckSelected(name, args);
    Backward(stream, name, dtype, SelectedPairs(args.segments, args.select_block, args.selected.dim(2)), args, gradient,
             args.select_block, SeenSelected(args));
  }

  void Window(Stream& stream, const WindowArgs& args) override {
    const char* const name = "attention.window";
    LS_CHECK(args.window > 0, "{}: window: expected 1 or more, found {}", name, args.window);
    Forward(stream, name, CheckBranch(name, args), WindowPairs(args.segments, args.window), args, kKeyTile,
            SeenWindow(args));
  }

  void WindowBackward(Stream& stream, const WindowArgs& args, const BranchGradient& gradient) override {
    const char* const name = "attention.window_backward";
    LS_CHECK(args.window > 0, "{}: window: expected 1 or more, found {}", name, args.window);
    Backward(stream, name, CheckBranchGradient(name, args, gradient), WindowPairs(args.segments, args.window), args,
             gradient, kKeyTile, SeenWindow(args));
  }

  void Combine(Stream& stream, const CombineArgs& args) override {
    const char* const name = "attention.combine";
    const DType dtype = CheckCombine(name, args);
    RequireTensor(name, "o", args.o, dtype, args.o_cmp.shape);
    Launch(stream, name, CombineCost(args),
           [=] { DispatchFloat(dtype, [&]<typename T>() { CombineBranches<T>(args); }); });
  }

  void CombineBackward(Stream& stream, const CombineArgs& args, const CombineGradient& gradient) override {
    const char* const name = "attention.combine_backward";
    const DType dtype = CheckCombineGradient(name, args, gradient);
    Launch(stream, name, CombineBackwardCost(args, gradient),
           [=] { DispatchFloat(dtype, [&]<typename T>() { CombineBranchesBackward<T>(args, gradient); }); });
  }

  void HashSelection(Stream& stream, const HashSelectionArgs& args) override {
    const char* const name = "attention.hash_selection";
    CheckHashSelection(name, args);
    Launch(stream, name, {0, BytesOf({args.selected})}, [=] { HashBlocks(args); });
  }

  void Store(Stream& stream, const StoreArgs& args) override {
    const char* const name = "attention.store";
    CheckStore(name, args);
    Launch(stream, name, StoreCost(args), [=] { StoreRows(args); });
  }

  std::string Kernels(Stream&, const AttentionSizes&) const override { return "cpu"; }
};

}  // namespace

std::unique_ptr<AttentionOps> MakeCpuAttention() { return std::make_unique<CpuAttention>(); }

}  // namespace longspan
