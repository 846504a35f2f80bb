// Compression backward: adds to d_x and the weights' gradients. Panels of about 1024 rows one after another, the
// products of one panel in parallel; blocks that overlap add to their shared rows of x by ascending token. Bound by the
// products.
#include <algorithm>
#include <cmath>

#include "kernels/attention/cpu/compress.h"
#include "kernels/base/scratch_cpu.h"
#include "kernels/matmul/matmul_cpu.h"

namespace longspan {
namespace {

constexpr int64_t kPanelRows = 1024;

// The calling thread's memory.
template <typename T>
struct Workspace {
  Scratch<T> blocks, d_blocks, d_y, hidden, activation, d_hidden;
};

// sums[width] += the rows of x, first to last.
template <typename T>
void AddRowSums(const T* x, int64_t rows, int64_t width, T* sums) {
  constexpr int64_t kColumns = 256;
#pragma omp parallel for
  for (int64_t begin = 0; begin < width; begin += kColumns) {
    const int64_t end = std::min(begin + kColumns, width);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t c = begin; c < end; ++c) sums[c] += x[i * width + c];
    }
  }
}

// A weight's gradient from `offset` on, null when it is not wanted.
template <typename T>
T* Wanted(const Tensor& gradient, int64_t offset = 0) {
  return gradient ? gradient.As<T>() + offset : nullptr;
}

// d_blocks[rows, block*W] from d_y through the MLP; adds to the gradients of its two layers.
template <typename T>
void MlpBackward(const CompressArgs& args, const PhiWeights& d_weights, int64_t rows, Workspace<T>& work,
                 const T* blocks, const T* d_y, T* d_blocks) {
  const int64_t width = args.x.dim(2), block_width = args.block * width, hidden_width = args.weights.weight1.dim(1);
  const T* const weight1 = args.weights.weight1.As<const T>();
  const T* const weight2 = args.weights.weight2.As<const T>();
  T* const hidden = work.hidden.Get(rows * hidden_width);
  T* const activation = work.activation.Get(rows * hidden_width);
  T* const d_hidden = work.d_hidden.Get(rows * hidden_width);
  MatMulCpu<T>({.a = blocks, .b = weight1, .c = hidden, .m = rows, .n = hidden_width, .k = block_width});
  AddBias(args.weights.bias1, rows, hidden);
  MatMulCpu<T>({.a = d_y, .b = weight2, .c = d_hidden, .m = rows, .n = hidden_width, .k = width, .transpose_b = true});
#pragma omp parallel for
  for (int64_t i = 0; i < rows * hidden_width; ++i) {
    const T x = hidden[i];
    const T below = T(0.5) * (1 + std::erf(x * T(0.70710678118654752440)));  // of the normal distribution
    const T density = T(0.39894228040143267794) * std::exp(T(-0.5) * x * x);
    activation[i] = x * below;
    d_hidden[i] *= below + x * density;
  }
  if (T* const d_weight2 = Wanted<T>(d_weights.weight2)) {
    MatMulCpu<T>({.a = activation,
                  .b = d_y,
                  .c = d_weight2,
                  .m = hidden_width,
                  .n = width,
                  .k = rows,
                  .transpose_a = true,
                  .accumulate = true});
  }
  if (T* const d_bias2 = Wanted<T>(d_weights.bias2)) AddRowSums(d_y, rows, width, d_bias2);
  if (T* const d_weight1 = Wanted<T>(d_weights.weight1)) {
    MatMulCpu<T>({.a = blocks,
                  .b = d_hidden,
                  .c = d_weight1,
                  .m = block_width,
                  .n = hidden_width,
                  .k = rows,
                  .transpose_a = true,
                  .accumulate = true});
  }
  if (T* const d_bias1 = Wanted<T>(d_weights.bias1)) AddRowSums(d_hidden, rows, hidden_width, d_bias1);
  MatMulCpu<T>({.a = d_hidden,
                .b = weight1,
                .c = d_blocks,
                .m = rows,
                .n = block_width,
                .k = hidden_width,
                .transpose_b = true});
}

template <typename T>
void AddToRows(const CompressArgs& args, const CompressPanel& panel, const CompressPlan& plan, const T* d_blocks,
               const Tensor& d_x) {
  const int64_t width = args.x.dim(2);
#pragma omp parallel for
  for (int64_t g = 0; g < panel.groups; ++g) {
    for (int64_t i = 0; i < panel.count * args.block; ++i) {
      const int64_t x_row = plan.x_rows[panel.first * args.block + i];
      const int64_t block_row = (i / args.block * panel.groups + g) * args.block + i % args.block;
      T* const to = d_x.As<T>() + (x_row * args.x.dim(1) + panel.group + g) * width;
      for (int64_t c = 0; c < width; ++c) to[c] += d_blocks[block_row * width + c];
    }
  }
}

}  // namespace

template <typename T>
void CompressTokensBackward(const CompressArgs& args, const CompressGradient& gradient) {
  static thread_local Workspace<T> work;
  const CompressPlan plan(args);
  const PhiWeights& d_weights = gradient.d_weights;
  const int64_t width = args.x.dim(2), block_width = args.block * width;
  for (const CompressPanel& panel : CutPanels(args, plan.tokens(), kPanelRows)) {
    const int64_t rows = panel.rows();
    T* const blocks = work.blocks.Get(rows * block_width);
    T* const d_blocks = work.d_blocks.Get(rows * block_width);
    T* const d_y = work.d_y.Get(rows * width);
    for (int64_t i = 0; i < panel.count; ++i) {
      const int64_t row = plan.y_rows[panel.first + i] * args.x.dim(1) + panel.group;
      std::copy_n(gradient.d_y.As<const T>() + row * width, panel.groups * width, d_y + i * panel.groups * width);
    }
    T* d_position = Wanted<T>(d_weights.position);
    switch (args.phi) {
      case Phi::kMlp:
        GatherBlocks(args, panel, plan, blocks);
        MlpBackward(args, d_weights, rows, work, blocks, d_y, d_blocks);
        break;
      case Phi::kLinear: {
        const int64_t offset = panel.group * block_width * width;
        GatherBlocks(args, panel, plan, blocks);
        if (T* const d_weight = Wanted<T>(d_weights.weight, offset)) {
          MatMulCpu<T>({.a = blocks,
                        .b = d_y,
                        .c = d_weight,
                        .m = block_width,
                        .n = width,
                        .k = rows,
                        .transpose_a = true,
                        .accumulate = true});
        }
        MatMulCpu<T>({.a = d_y,
                      .b = args.weights.weight.As<const T>() + offset,
                      .c = d_blocks,
                      .m = rows,
                      .n = block_width,
                      .k = width,
                      .transpose_b = true});
        if (d_position) d_position += panel.group * block_width;
        break;
      }
      case Phi::kMean:
        for (int64_t i = 0; i < rows * args.block; ++i) {
          for (int64_t c = 0; c < width; ++c) d_blocks[i * width + c] = d_y[i / args.block * width + c] / T(args.block);
        }
        break;
    }
    if (d_position && args.phi != Phi::kMean) AddRowSums(d_blocks, rows, block_width, d_position);
    if (gradient.d_x) AddToRows(args, panel, plan, d_blocks, gradient.d_x);
  }
}

template void CompressTokensBackward<float>(const CompressArgs&, const CompressGradient&);
template void CompressTokensBackward<double>(const CompressArgs&, const CompressGradient&);

}  // namespace longspan
