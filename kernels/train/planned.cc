// The operations of the training step of a planned device: arguments are checked and the work counted, as on a device
// of that kind.
#include "kernels/matmul/workspace.h"
#include "kernels/train/check.h"
#include "runtime/planned_device.h"

namespace longspan {
namespace {

class PlannedTrain final : public TrainOps {
 public:
  explicit PlannedTrain(DeviceKind kind) : kind_(kind) {}

  void LinearCrossEntropy(Stream& stream, const LinearCrossEntropyArgs& args) override {
    CheckLinearCrossEntropy(On("train.loss"), args);
    PlanScratch(stream, "the loss", LossScratchBytes(args));
    PlanScratch(stream, "the loss's matrix products", kMatMulWorkspaceBytes);
    Launch(stream, "train.loss", LinearCrossEntropyCost(args), nullptr);
  }
  void AdamW(Stream& stream, const AdamWArgs& args) override {
    CheckAdamW(On("train.adamw"), args);
    Launch(stream, "train.adamw", AdamWCost(args), nullptr);
  }
  void AddSumOfSquares(Stream& stream, const Tensor& x, const Tensor& sum) override {
    CheckSum(On("train.sum_of_squares"), x, sum);
    Launch(stream, "train.sum_of_squares", SumCost(x), nullptr);
  }
  void AddSum(Stream& stream, const Tensor& x, const Tensor& sum) override {
    CheckSum(On("train.sum"), x, sum);
    Launch(stream, "train.sum", SumCost(x), nullptr);
  }
  void ClipScale(Stream& stream, const ClipScaleArgs& args) override {
    CheckClipScale(On("train.clip_scale"), args);
    Launch(stream, "train.clip_scale", {}, nullptr);
  }
  void Hash(Stream& stream, const Tensor& x, const Tensor& hash) override {
    CheckHash(On("train.hash"), x, hash);
    Launch(stream, "train.hash", {0, static_cast<double>(x.bytes())}, nullptr);
  }

 private:
  Operation On(const char* name) const { return {name, kind_}; }

  const DeviceKind kind_;
};

}  // namespace

std::unique_ptr<TrainOps> MakePlannedTrain(DeviceKind kind) { return std::make_unique<PlannedTrain>(kind); }

}  // namespace longspan
