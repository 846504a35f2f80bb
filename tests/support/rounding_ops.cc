#include "tests/support/rounding_ops.h"

#include <bit>
#include <cmath>

namespace longspan {
namespace {

float Rounded(float x) {
  if (std::isnan(x)) return x;
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t tie_to_even = bits >> 16 & 1;
  return std::bit_cast<float>((bits + 0x7FFF + tie_to_even) & 0xFFFF0000);
}

template <typename... Tensors>
void Round(Stream& stream, const Tensors&... tensors) {
  (RoundToBf16(stream, tensors), ...);
}

class RoundingAttention final : public AttentionOps {
 public:
  void Compress(Stream& stream, const CompressArgs& args) override {
    cpu_->Compress(stream, args);
    Round(stream, args.y);
  }
  void CompressBackward(Stream& stream, const CompressArgs& args, const CompressGradient& gradient) override {
    cpu_->CompressBackward(stream, args, gradient);
  }
  void Compressed(Stream& stream, const CompressedArgs& args) override {
    cpu_->Compressed(stream, args);
    Round(stream, args.o);
  }
  void CompressedBackward(Stream& stream, const CompressedArgs& args, const BranchGradient& gradient) override {
    cpu_->CompressedBackward(stream, args, gradient);
  }
  void Select(Stream& stream, const SelectArgs& args) override { cpu_->Select(stream, args); }
  void Selected(Stream& stream, const SelectedArgs& args) override {
    cpu_->Selected(stream, args);
    Round(stream, args.o);
  }
  void SelectedBackward(Stream& stream, const SelectedArgs& args, const BranchGradient& gradient) override {
    cpu_->SelectedBackward(stream, args, gradient);
  }
  void Window(Stream& stream, const WindowArgs& args) override {
    cpu_->Window(stream, args);
    Round(stream, args.o);
  }
  void WindowBackward(Stream& stream, const WindowArgs& args, const BranchGradient& gradient) override {
    cpu_->WindowBackward(stream, args, gradient);
  }
  void Combine(Stream& stream, const CombineArgs& args) override {
    cpu_->Combine(stream, args);
    Round(stream, args.o);
  }
  void CombineBackward(Stream& stream, const CombineArgs& args, const CombineGradient& gradient) override {
    cpu_->CombineBackward(stream, args, gradient);
  }
  void HashSelection(Stream& stream, const HashSelectionArgs& args) override { cpu_->HashSelection(stream, args); }
  void Store(Stream& stream, const StoreArgs& args) override { cpu_->Store(stream, args); }
  std::string Kernels(Stream& stream, const AttentionSizes& sizes) const override {
    return cpu_->Kernels(stream, sizes);
  }

 private:
  const std::unique_ptr<AttentionOps> cpu_ = MakeCpuAttention();
};

class RoundingDense final : public DenseOps {
 public:
  // The product of a transposed a is a weight's gradient.
  void MatMul(Stream& stream, const MatMulArgs& args) override {
    Round(stream, args.a, args.b);
    cpu_->MatMul(stream, args);
    if (!args.transpose_a) Round(stream, args.c);
  }
  void RmsNorm(Stream& stream, const RmsNormArgs& args) override {
    cpu_->RmsNorm(stream, args);
    Round(stream, args.y);
  }
  void RmsNormBackward(Stream& stream, const RmsNormArgs& args, const RmsNormGradient& gradient) override {
    Round(stream, gradient.d_y);
    cpu_->RmsNormBackward(stream, args, gradient);
    Round(stream, gradient.d_x);
  }
  // Backward it rotates kept gradients.
  void Rope(Stream& stream, const RopeArgs& args) override {
    cpu_->Rope(stream, args);
    if (!args.inverse) Round(stream, args.y);
  }
  void SwiGlu(Stream& stream, const SwiGluArgs& args) override {
    cpu_->SwiGlu(stream, args);
    Round(stream, args.y);
  }
  void SwiGluBackward(Stream& stream, const SwiGluArgs& args, const SwiGluGradient& gradient) override {
    cpu_->SwiGluBackward(stream, args, gradient);
    Round(stream, gradient.d_gate, gradient.d_up);
  }
  void Embedding(Stream& stream, const EmbeddingArgs& args) override {
    cpu_->Embedding(stream, args);
    Round(stream, args.y);
  }
  void EmbeddingBackward(Stream& stream, const EmbeddingArgs& args, const EmbeddingGradient& gradient) override {
    cpu_->EmbeddingBackward(stream, args, gradient);
  }
  void Gate(Stream& stream, const GateArgs& args) override {
    cpu_->Gate(stream, args);
    Round(stream, args.y);
  }
  void GateBackward(Stream& stream, const GateArgs& args, const GateGradient& gradient) override {
    cpu_->GateBackward(stream, args, gradient);
    Round(stream, gradient.d_x);
  }
  // It adds kept gradients of shared keys and values.
  void Add(Stream& stream, const Tensor& x, const Tensor& y) override { cpu_->Add(stream, x, y); }

 private:
  const std::unique_ptr<DenseOps> cpu_ = MakeCpuDense();
};

class RoundingTrain final : public TrainOps {
 public:
  void LinearCrossEntropy(Stream& stream, const LinearCrossEntropyArgs& args) override {
    cpu_->LinearCrossEntropy(stream, args);
    Round(stream, args.d_x);
  }
  void AdamW(Stream& stream, const AdamWArgs& args) override { cpu_->AdamW(stream, args); }
  void AddSumOfSquares(Stream& stream, const Tensor& x, const Tensor& sum) override {
    cpu_->AddSumOfSquares(stream, x, sum);
  }
  void AddSum(Stream& stream, const Tensor& x, const Tensor& sum) override { cpu_->AddSum(stream, x, sum); }
  void ClipScale(Stream& stream, const ClipScaleArgs& args) override { cpu_->ClipScale(stream, args); }
  void Hash(Stream& stream, const Tensor& x, const Tensor& hash) override { cpu_->Hash(stream, x, hash); }

 private:
  const std::unique_ptr<TrainOps> cpu_ = MakeCpuTrain();
};

}  // namespace

Ops MakeRoundingOps() {
  return {std::make_unique<RoundingAttention>(), std::make_unique<RoundingDense>(), MakeCpuRows(),
          std::make_unique<RoundingTrain>()};
}

void RoundToBf16(Stream& stream, const Tensor& x) {
  if (!x) return;
  LS_CHECK(x.dtype == DType::kF32 && x.device == DeviceKind::kCpu && x.contiguous(),
           "rounding: expected F32 on cpu, contiguous; found {} {} on {}", DTypeName(x.dtype), x.shape.ToString(),
           DeviceName(x.device));
  stream.Enqueue([x] {
    float* const values = x.As<float>();
    for (int64_t i = 0; i < x.size(); ++i) values[i] = Rounded(values[i]);
  });
}

}  // namespace longspan
