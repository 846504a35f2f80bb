// The attention of a planned device: arguments are checked and the work counted, as on a device of that kind.
#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/matmul/workspace.h"
#include "runtime/planned_device.h"

namespace longspan {
namespace {

class PlannedAttention final : public AttentionOps {
 public:
  explicit PlannedAttention(DeviceKind kind) : kind_(kind) {}

  void Compress(Stream& stream, const CompressArgs& args) override {
    CheckCompress(On("attention.compress"), args);
    if (args.phi != Phi::kMean) PlanScratch(stream, "the products of compression", kMatMulWorkspaceBytes);
    Launch(stream, "attention.compress", CompressCost(args), nullptr);
  }
  void CompressBackward(Stream& stream, const CompressArgs& args, const CompressGradient& gradient) override {
    CheckCompressGradient(On("attention.compress_backward"), args, gradient);
    Launch(stream, "attention.compress_backward", CompressBackwardCost(args, gradient), nullptr);
  }
  void Compressed(Stream& stream, const CompressedArgs& args) override {
    Forward(stream, "attention.compressed", args, Pairs(args));
  }
  void CompressedBackward(Stream& stream, const CompressedArgs& args, const BranchGradient& gradient) override {
    Backward(stream, "attention.compressed_backward", args, gradient, Pairs(args));
  }
  void Select(Stream& stream, const SelectArgs& args) override {
    CheckSelect(On("attention.select"), args);
    Launch(stream, "attention.select", SelectCost(args), nullptr);
  }
  void Selected(Stream& stream, const SelectedArgs& args) override {
    Forward(stream, "attention.selected", args, Pairs(args));
  }
  void SelectedBackward(Stream& stream, const SelectedArgs& args, const BranchGradient& gradient) override {
    Backward(stream, "attention.selected_backward", args, gradient, Pairs(args));
  }
  void Window(Stream& stream, const WindowArgs& args) override {
    Forward(stream, "attention.window", args, WindowPairs(args.segments, args.window));
  }
  void WindowBackward(Stream& stream, const WindowArgs& args, const BranchGradient& gradient) override {
    Backward(stream, "attention.window_backward", args, gradient, WindowPairs(args.segments, args.window));
  }
  void Combine(Stream& stream, const CombineArgs& args) override {
    CheckCombine(On("attention.combine"), args);
    Launch(stream, "attention.combine", CombineCost(args), nullptr);
  }
  void CombineBackward(Stream& stream, const CombineArgs& args, const CombineGradient& gradient) override {
    CheckCombineGradient(On("attention.combine_backward"), args, gradient);
    Launch(stream, "attention.combine_backward", CombineBackwardCost(args, gradient), nullptr);
  }
  void HashSelection(Stream& stream, const HashSelectionArgs& args) override {
    CheckHashSelection(On("attention.hash_selection"), args);
    Launch(stream, "attention.hash_selection", {0, BytesOf({args.selected})}, nullptr);
  }
  void Store(Stream& stream, const StoreArgs& args) override {
    CheckStore(On("attention.store"), args);
    Launch(stream, "attention.store", StoreCost(args), nullptr);
  }
  std::string Kernels(Stream&, const AttentionSizes&) const override { return "planned"; }

 private:
  Operation On(const char* name) const { return {name, kind_}; }
  static double Pairs(const CompressedArgs& args) { return CompressedPairs(args.segments, args.block, args.stride); }
  static double Pairs(const SelectedArgs& args) {
    return SelectedPairs(args.segments, args.select_block, args.selected.dim(2));
  }
  void Forward(Stream& stream, const char* name, const BranchArgs& args, double pairs) const {
    CheckBranch(On(name), args);
    Launch(stream, name, BranchCost(args, pairs), nullptr);
  }
  void Backward(Stream& stream, const char* name, const BranchArgs& args, const BranchGradient& gradient,
                double pairs) const {
    CheckBranchGradient(On(name), args, gradient);
    // Of each row delta and, with a gate, its lse. What else they need depends on the kernels and is left out.
    const int64_t of_row = (gradient.gate.gates ? 2 : 1) * DTypeSize(DType::kF32);
    PlanScratch(stream, "the attention branches", args.q.dim(0) * args.q.dim(1) * of_row);
    Launch(stream, name, BranchBackwardCost(args, gradient, pairs), nullptr);
  }

  const DeviceKind kind_;
};

}  // namespace

std::unique_ptr<AttentionOps> MakePlannedAttention(DeviceKind kind) { return std::make_unique<PlannedAttention>(kind); }

}  // namespace longspan
