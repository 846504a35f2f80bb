// SwiGLU and the gates of NSA: sigmoids of single elements. Work goes by rows, so that an element's place in its row,
// not in the call, decides how it is computed.
#include <cmath>

#include "kernels/base/blocks_cpu.h"
#include "kernels/dense/check.h"
#include "kernels/dense/cpu.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

template <typename T>
T Sigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

// body(offset of the row's first element).
template <typename Body>
void ForRows(const Tensor& x, const Body& body) {
  const int64_t rows = x.dim(0), width = x.dim(1);
#pragma omp parallel for if (x.size() > kBlockElements)
  for (int64_t row = 0; row < rows; ++row) body(row * width);
}

}  // namespace

void CpuDense::SwiGlu(Stream& stream, const SwiGluArgs& args) {
  constexpr const char* kName = "dense.swiglu";
  const DType dtype = CheckSwiGlu(kName, args);
  RequireTensor(kName, "y", args.y, dtype, args.gate.shape);
  Launch(stream, kName, SwiGluCost(args), [args, dtype] {
    DispatchFloat(dtype, [&]<typename T>() {
      ForRows(args.gate, [&](int64_t row) {
        const T* const gate = args.gate.As<T>() + row;
        const T* const up = args.up.As<T>() + row;
        T* const y = args.y.As<T>() + row;
        for (int64_t c = 0; c < args.gate.dim(1); ++c) y[c] = gate[c] * Sigmoid(gate[c]) * up[c];
      });
    });
  });
}

void CpuDense::SwiGluBackward(Stream& stream, const SwiGluArgs& args, const SwiGluGradient& gradient) {
  constexpr const char* kName = "dense.swiglu_backward";
  const DType dtype = CheckSwiGluGradient(kName, args, gradient);
  Launch(stream, kName, SwiGluBackwardCost(args), [args, gradient, dtype] {
    DispatchFloat(dtype, [&]<typename T>() {
      ForRows(args.gate, [&](int64_t row) {
        const T* const gate = args.gate.As<T>() + row;
        const T* const up = args.up.As<T>() + row;
        const T* const d_y = gradient.d_y.As<T>() + row;
        T* const d_gate = gradient.d_gate.As<T>() + row;
        T* const d_up = gradient.d_up.As<T>() + row;
        for (int64_t c = 0; c < args.gate.dim(1); ++c) {
          const T open = Sigmoid(gate[c]);
          const T through = d_y[c];
          d_gate[c] = through * up[c] * open * (T(1) + gate[c] * (T(1) - open));
          d_up[c] = through * gate[c] * open;
        }
      });
    });
  });
}

void CpuDense::Gate(Stream& stream, const GateArgs& args) {
  constexpr const char* kName = "dense.gate";
  const DType dtype = CheckGate(kName, args);
  Launch(stream, kName, GateCost(args), [args, dtype] {
    DispatchFloat(dtype, [&]<typename T>() {
      const T* const bias = args.bias.As<T>();
      ForRows(args.x, [&](int64_t row) {
        const T* const x = args.x.As<T>() + row;
        T* const y = args.y.As<T>() + row;
        for (int64_t c = 0; c < args.x.dim(1); ++c) y[c] = Sigmoid(x[c] + bias[c]);
      });
    });
  });
}

void CpuDense::GateBackward(Stream& stream, const GateArgs& args, const GateGradient& gradient) {
  constexpr const char* kName = "dense.gate_backward";
  const DType dtype = CheckGateGradient(kName, args, gradient);
  const int64_t width = args.y.dim(1);
  Launch(stream, kName, GateBackwardCost(args, gradient), [args, gradient, dtype, width] {
    DispatchFloat(dtype, [&]<typename T>() {
      T* const total = gradient.d_bias ? gradient.d_bias.As<T>() : nullptr;
      AddOverRows(args.y.dim(0), width, total, [&](int64_t row, T* d_bias) {
        const T* const y = args.y.As<T>() + row * width;
        const T* const d_y = gradient.d_y.As<T>() + row * width;
        T* const d_x = gradient.d_x.As<T>() + row * width;
        for (int64_t c = 0; c < width; ++c) {
          d_x[c] = d_y[c] * y[c] * (T(1) - y[c]);
          d_bias[c] += d_x[c];
        }
      });
    });
  });
}

}  // namespace longspan
