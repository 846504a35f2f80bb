// The dense operations of a planned device: arguments are checked and the work counted, as on a device of that kind.
#include "kernels/dense/check.h"
#include "kernels/matmul/workspace.h"
#include "runtime/planned_device.h"

namespace longspan {
namespace {

class PlannedDense final : public DenseOps {
 public:
  explicit PlannedDense(DeviceKind kind) : kind_(kind) {}

  void MatMul(Stream& stream, const MatMulArgs& args) override {
    CheckMatMul(On("dense.matmul"), args);
    PlanScratch(stream, "matrix products", kMatMulWorkspaceBytes);
    Launch(stream, "dense.matmul", MatMulCost(args), nullptr);
  }
  void RmsNorm(Stream& stream, const RmsNormArgs& args) override {
    CheckRmsNorm(On("dense.rms_norm"), args);
    Launch(stream, "dense.rms_norm", RmsNormCost(args), nullptr);
  }
  void RmsNormBackward(Stream& stream, const RmsNormArgs& args, const RmsNormGradient& gradient) override {
    CheckRmsNormGradient(On("dense.rms_norm_backward"), args, gradient);
    Launch(stream, "dense.rms_norm_backward", RmsNormBackwardCost(args, gradient), nullptr);
  }
  void Rope(Stream& stream, const RopeArgs& args) override {
    CheckRope(On("dense.rope"), args);
    Launch(stream, "dense.rope", RopeCost(args), nullptr);
  }
  void SwiGlu(Stream& stream, const SwiGluArgs& args) override {
    CheckSwiGlu(On("dense.swiglu"), args);
    Launch(stream, "dense.swiglu", SwiGluCost(args), nullptr);
  }
  void SwiGluBackward(Stream& stream, const SwiGluArgs& args, const SwiGluGradient& gradient) override {
    CheckSwiGluGradient(On("dense.swiglu_backward"), args, gradient);
    Launch(stream, "dense.swiglu_backward", SwiGluBackwardCost(args), nullptr);
  }
  void Embedding(Stream& stream, const EmbeddingArgs& args) override {
    CheckEmbedding(On("dense.embedding"), args);
    Launch(stream, "dense.embedding", EmbeddingCost(args), nullptr);
  }
  void EmbeddingBackward(Stream& stream, const EmbeddingArgs& args, const EmbeddingGradient& gradient) override {
    CheckEmbeddingGradient(On("dense.embedding_backward"), args, gradient);
    Launch(stream, "dense.embedding_backward", EmbeddingBackwardCost(gradient), nullptr);
  }
  void Gate(Stream& stream, const GateArgs& args) override {
    CheckGate(On("dense.gate"), args);
    Launch(stream, "dense.gate", GateCost(args), nullptr);
  }
  void GateBackward(Stream& stream, const GateArgs& args, const GateGradient& gradient) override {
    CheckGateGradient(On("dense.gate_backward"), args, gradient);
    Launch(stream, "dense.gate_backward", GateBackwardCost(args, gradient), nullptr);
  }
  void Add(Stream& stream, const Tensor& x, const Tensor& y) override {
    CheckAdd(On("dense.add"), x, y);
    Launch(stream, "dense.add", AddCost(y), nullptr);
  }

 private:
  Operation On(const char* name) const { return {name, kind_}; }

  const DeviceKind kind_;
};

}  // namespace

std::unique_ptr<DenseOps> MakePlannedDense(DeviceKind kind) { return std::make_unique<PlannedDense>(kind); }

}  // namespace longspan
