// Compression backward on the GPU: adds to d_x and the weights' gradients, F32. Panel after panel: the hidden layer is
// computed again, weights' gradients are products that accumulate, biases and position encodings take sums of columns
// in fixed order, and each channel of a row of x is owned by one thread, which adds the blocks that cover it by
// ascending token. Nothing is added atomically. Bound by the products and the passes over d_blocks.
#include <algorithm>
#include <bit>

#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/compress.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 256;

unsigned BlocksFor(int64_t items) { return static_cast<unsigned>(std::min<int64_t>(CeilDiv(items, kThreads), 4096)); }

// rounded[kPanelRows, W] = the panel's rows of d_y, zeros below; exact[rows, W] = the same in F32.
template <typename T>
__global__ void GatherGradientKernel(const float* d_y, CompressPanelGpu panel, int64_t groups, int64_t width,
                                     T* rounded, float* exact) {
  for (int64_t i = GridThread(); i < kPanelRows * width; i += GridThreads()) {
    const int64_t row = i / width;
    float value = 0;
    if (row < panel.rows()) {
      const int64_t y_row = (panel.y_row + row / panel.groups) * groups + panel.group + row % panel.groups;
      value = d_y[y_row * width + i % width];
      exact[i] = value;
    }
    rounded[i] = FromFloat<T>(value);
  }
}

// From the hidden layer before its bias and GELU and the gradient after it: activation, and the gradient before GELU,
// in place and rounded.
template <typename T>
__global__ void GeluBackwardKernel(const float* hidden, const T* bias, int64_t count, int64_t width, T* activation,
                                   float* d_hidden, T* d_hidden_rounded) {
  for (int64_t i = GridThread(); i < count; i += GridThreads()) {
    const float x = hidden[i] + ToFloat(bias[i % width]);
    const float below = NormalBelow(x), density = 0.39894228f * expf(-0.5f * x * x);
    const float gradient = d_hidden[i] * (below + x * density);
    activation[i] = FromFloat<T>(x * below);
    d_hidden[i] = gradient;
    d_hidden_rounded[i] = FromFloat<T>(gradient);
  }
}

// sums[width] += the rows of x [rows, width]: a warp takes every 32nd row of 32 columns, then the warps are added in
// order.
__global__ void AddColumnSumsKernel(const float* x, int64_t rows, int64_t width, float* sums) {
  __shared__ float parts[kWarp][kWarp + 1];
  const int64_t column = int64_t{blockIdx.x} * kWarp + threadIdx.x;
  float sum = 0;
  if (column < width) {
#pragma unroll 16  // loads under way at once
    for (int64_t row = threadIdx.y; row < rows; row += kWarp) sum += x[row * width + column];
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= width) return;
  float total = 0;
  for (int i = 0; i < kWarp; ++i) total += parts[i][threadIdx.x];
  sums[column] += total;
}

void AddColumnSums(cudaStream_t stream, const float* x, int64_t rows, int64_t width, float* sums) {
  AddColumnSumsKernel<<<GridFor(width, kWarp), dim3(kWarp, kWarp), 0, stream>>>(x, rows, width, sums);
}

struct RowsParams {
  const int32_t* table;
  int64_t page_rows, groups, width, block;
  CompressPanelGpu panel;
  float* d_x;         // [R,G,W]
  int64_t first_row;  // of the rows of x that the panel's blocks cover
  int rows, stride;
};

RowsParams RowsOf(const CompressArgs& args, const CompressPanelGpu& panel, const Tensor& d_x) {
  const int64_t rows = (panel.count - 1) * args.stride + args.block;
  LS_CHECK(rows < INT32_MAX, "attention.compress_backward: segments: expected fewer than 2^31 rows, found {}", rows);
  return {GpuData<const int32_t>(args.pages.table),
          args.pages.page_rows,
          args.x.dim(1),
          args.x.dim(2),
          args.block,
          panel,
          GpuData<float>(d_x),
          panel.token * args.stride,
          static_cast<int>(rows),
          static_cast<int>(args.stride)};
}

template <int Count>
struct alignas(Count * sizeof(float)) Floats {
  float at[Count];
};

// d_x += the blocks of the panel, Count channels at once, by blocks of [lanes of a row, rows]. term(token, group, i,
// channel), both from the panel's first on, is the gradient of row i of that token's block.
template <int Count, typename Term>
__device__ void AddToRows(const RowsParams& p, const Term& term) {
  const int row = blockIdx.x * blockDim.y + threadIdx.y, block = static_cast<int>(p.block);
  if (row >= p.rows) return;
  const int64_t place = PageRow(p.table, p.page_rows, p.first_row + row);
  if (place < 0) return;
  const int begin = row < block ? 0 : (row - block) / p.stride + 1;
  const int end = min(row / p.stride + 1, static_cast<int>(p.panel.count)), width = static_cast<int>(p.width);
  float* const to = p.d_x + (place * p.groups + p.panel.group) * width;
  for (int i = threadIdx.x * Count; i < p.panel.groups * width; i += blockDim.x * Count) {
    const int group = i / width, channel = i % width;
    float sum[Count] = {};
    for (int token = begin; token < end; ++token) {
      const Floats<Count> here = term(token, group, row - token * p.stride, channel);
#pragma unroll
      for (int j = 0; j < Count; ++j) sum[j] += here.at[j];
    }
    Floats<Count>& all = *reinterpret_cast<Floats<Count>*>(to + i);
    Floats<Count> result = all;
#pragma unroll
    for (int j = 0; j < Count; ++j) result.at[j] += sum[j];
    all = result;
  }
}

// d_blocks [panel rows, block*W]
template <int Count>
__global__ void __launch_bounds__(kThreads) AddBlocksKernel(RowsParams p, const float* d_blocks) {
  AddToRows<Count>(p, [&](int64_t token, int group, int i, int channel) {
    return *reinterpret_cast<const Floats<Count>*>(
        d_blocks + ((token * p.panel.groups + group) * p.block + i) * p.width + channel);
  });
}

// d_y [T/stride,G,W]; the panel has all groups.
template <int Count>
__global__ void __launch_bounds__(kThreads) AddMeanKernel(RowsParams p, const float* d_y) {
  AddToRows<Count>(p, [&](int64_t token, int group, int, int channel) {
    Floats<Count> x =
        *reinterpret_cast<const Floats<Count>*>(d_y + ((p.panel.y_row + token) * p.groups + group) * p.width + channel);
#pragma unroll
    for (float& value : x.at) value /= static_cast<float>(p.block);
    return x;
  });
}

using RowsKernel = void (*)(RowsParams, const float*);

// `by_four` where rows are as long as that.
void AddRows(cudaStream_t stream, const CompressArgs& args, const CompressPanelGpu& panel, const Tensor& d_x,
             const float* from, RowsKernel by_four, RowsKernel by_one) {
  const RowsParams params = RowsOf(args, panel, d_x);
  const bool fours = params.width % 4 == 0;
  const int64_t items = params.panel.groups * params.width / (fours ? 4 : 1);
  const unsigned lanes = std::clamp(std::bit_ceil(static_cast<unsigned>(items)), 8U, 64U), rows = kThreads / lanes;
  (fours ? by_four : by_one)<<<GridFor(params.rows, rows), dim3(lanes, rows), 0, stream>>>(params, from);
}

// A weight's gradient from `offset` on, null when it is not wanted.
float* Wanted(const Tensor& gradient, int64_t offset = 0) {
  return gradient ? GpuData<float>(gradient) + offset : nullptr;
}

// One call's scratch and products.
template <typename T>
class Backward {
 public:
  Backward(Stream& stream, cudaStream_t on, const CompressArgs& args, const CompressGradient& gradient,
           GpuScratch* scratch, MatMulGpu* matmul)
      : stream_(stream), on_(on), args_(args), gradient_(gradient), matmul_(*matmul) {
    ScratchCut cut;
    const int64_t blocks_at = cut.Add(kPanelRows * block_width_ * sizeof(T));
    const int64_t d_blocks_at = cut.Add(kPanelRows * block_width_ * sizeof(float));
    const int64_t d_y_at = cut.Add(kPanelRows * width_ * sizeof(T));
    const int64_t exact_d_y_at = cut.Add(kPanelRows * width_ * sizeof(float));
    const int64_t hidden_at = cut.Add(kPanelRows * hidden_width_ * sizeof(float));
    const int64_t d_hidden_at = cut.Add(kPanelRows * hidden_width_ * sizeof(float));
    const int64_t activation_at = cut.Add(kPanelRows * hidden_width_ * sizeof(T));
    const int64_t rounded_d_hidden_at = cut.Add(kPanelRows * hidden_width_ * sizeof(T));
    char* const memory = static_cast<char*>(scratch->Get(stream, cut.bytes));
    blocks_ = reinterpret_cast<T*>(memory + blocks_at);
    d_blocks_ = reinterpret_cast<float*>(memory + d_blocks_at);
    d_y_ = reinterpret_cast<T*>(memory + d_y_at);
    exact_d_y_ = reinterpret_cast<float*>(memory + exact_d_y_at);
    hidden_ = reinterpret_cast<float*>(memory + hidden_at);
    d_hidden_ = reinterpret_cast<float*>(memory + d_hidden_at);
    activation_ = reinterpret_cast<T*>(memory + activation_at);
    rounded_d_hidden_ = reinterpret_cast<T*>(memory + rounded_d_hidden_at);
  }

  void Run(const CompressPanelGpu& panel) {
    GatherBlocksGpu(on_, args_.x.dtype, args_, panel, blocks_);
    GatherGradientKernel<T><<<BlocksFor(kPanelRows * width_), kThreads, 0, on_>>>(
        GpuData<const float>(gradient_.d_y), panel, args_.x.dim(1), width_, d_y_, exact_d_y_);
    float* d_position = Wanted(gradient_.d_weights.position);
    const bool below = d_position != nullptr || gradient_.d_x;  // are the blocks' gradients wanted
    if (args_.phi == Phi::kMlp) {
      RunMlp(panel, below);
    } else {
      const int64_t offset = panel.group * block_width_ * width_;
      Accumulate(blocks_, d_y_, block_width_, width_, Wanted(gradient_.d_weights.weight, offset));
      if (below) Product(d_y_, GpuData<const T>(args_.weights.weight) + offset, block_width_, width_, d_blocks_);
      if (d_position != nullptr) d_position += panel.group * block_width_;
    }
    if (d_position != nullptr) AddColumnSums(on_, d_blocks_, panel.rows(), block_width_, d_position);
    if (gradient_.d_x) {
      AddRows(on_, args_, panel, gradient_.d_x, d_blocks_, AddBlocksKernel<4>, AddBlocksKernel<1>);
    }
  }

 private:
  void RunMlp(const CompressPanelGpu& panel, bool below) {
    const PhiWeights &weights = args_.weights, &d_weights = gradient_.d_weights;
    const int64_t count = kPanelRows * hidden_width_;
    matmul_.Run(stream_, {.m = kPanelRows, .n = hidden_width_, .k = block_width_, .operands = args_.x.dtype}, blocks_,
                weights.weight1.data, hidden_);
    Product(d_y_, GpuData<const T>(weights.weight2), hidden_width_, width_, d_hidden_);
    GeluBackwardKernel<T><<<BlocksFor(count), kThreads, 0, on_>>>(
        hidden_, GpuData<const T>(weights.bias1), count, hidden_width_, activation_, d_hidden_, rounded_d_hidden_);
    Accumulate(activation_, d_y_, hidden_width_, width_, Wanted(d_weights.weight2));
    Accumulate(blocks_, rounded_d_hidden_, block_width_, hidden_width_, Wanted(d_weights.weight1));
    if (float* const d_bias = Wanted(d_weights.bias2)) AddColumnSums(on_, exact_d_y_, panel.rows(), width_, d_bias);
    if (float* const d_bias = Wanted(d_weights.bias1)) {
      AddColumnSums(on_, d_hidden_, panel.rows(), hidden_width_, d_bias);
    }
    if (below) {
      Product(rounded_d_hidden_, GpuData<const T>(weights.weight1), block_width_, hidden_width_, d_blocks_);
    }
  }

  // c[inputs, outputs] += a[kPanelRows, inputs]^T b[kPanelRows, outputs], unless c is null.
  void Accumulate(const T* a, const T* b, int64_t inputs, int64_t outputs, float* c) {
    if (c == nullptr) return;
    matmul_.Run(stream_,
                {.m = inputs,
                 .n = outputs,
                 .k = kPanelRows,
                 .transpose_a = true,
                 .accumulate = true,
                 .operands = args_.x.dtype},
                a, b, c);
  }

  // c[kPanelRows, inputs] = a[kPanelRows, outputs] weight[inputs, outputs]^T
  void Product(const T* a, const T* weight, int64_t inputs, int64_t outputs, float* c) {
    matmul_.Run(stream_, {.m = kPanelRows, .n = inputs, .k = outputs, .transpose_b = true, .operands = args_.x.dtype},
                a, weight, c);
  }

  Stream& stream_;
  const cudaStream_t on_;
  const CompressArgs& args_;
  const CompressGradient& gradient_;
  MatMulGpu& matmul_;
  const int64_t width_ = args_.x.dim(2);
  const int64_t block_width_ = args_.block * width_;
  const int64_t hidden_width_ = args_.phi == Phi::kMlp ? args_.weights.weight1.dim(1) : 0;
  T* blocks_;            // [kPanelRows, block*W]
  float* d_blocks_;      // [kPanelRows, block*W]
  T* d_y_;               // [kPanelRows, W]
  float* exact_d_y_;     // [panel rows, W]
  float* hidden_;        // [kPanelRows, M] before bias and GELU
  float* d_hidden_;      // [kPanelRows, M] of GELU's output, then of its input
  T* activation_;        // [kPanelRows, M]
  T* rounded_d_hidden_;  // [kPanelRows, M]
};

}  // namespace

void GpuAttention::CompressBackward(Stream& stream, const CompressArgs& args, const CompressGradient& gradient) {
  const char* const name = "attention.compress_backward";
  const DType dtype = CheckCompressGradient(OnGpu(name), args, gradient);
  const std::vector<CompressPanelGpu> panels = CutCompressPanels(name, args);
  LaunchGpu(stream, name, CompressBackwardCost(args, gradient), [&](cudaStream_t on) {
    if (args.phi == Phi::kMean) {
      for (const CompressPanelGpu& panel : panels) {
        if (!gradient.d_x) break;
        AddRows(on, args, panel, gradient.d_x, GpuData<const float>(gradient.d_y), AddMeanKernel<4>, AddMeanKernel<1>);
      }
      return;
    }
    DispatchFloatGpu(dtype, [&]<typename T>() {
      Backward<T> backward(stream, on, args, gradient, &compress_scratch_, &compress_matmul_);
      for (const CompressPanelGpu& panel : panels) backward.Run(panel);
    });
  });
}

}  // namespace longspan
