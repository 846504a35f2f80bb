// Compression forward on the GPU: overwrites y. A panel's blocks are gathered through the page table into a matrix in
// scratch, which meets the weights in cuBLASLt. Bound by the gather's writes, then by the products.
#include <algorithm>

#include "kernels/attention/check.h"
#include "kernels/attention/cost.h"
#include "kernels/attention/gpu/compress.cuh"

namespace longspan {
namespace {

constexpr int kThreads = 256;

// One thread block a row of the matrix. V elements at once: V divides W and addresses are multiples of V elements.
template <typename T, int V>
__global__ void GatherKernel(const T* x, const int32_t* table, int64_t page_rows, const T* position, int64_t groups,
                             int64_t width, int64_t block, int64_t stride, CompressPanelGpu panel, T* blocks) {
  extern __shared__ int64_t places[];  // [block] rows of x
  const int64_t row = blockIdx.x, size = block * width;
  T* const to = blocks + row * size;
  if (row >= panel.rows()) {
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) to[i] = FromFloat<T>(0);
    return;
  }
  const int64_t token = panel.token + row / panel.groups, group = panel.group + row % panel.groups;
  for (int64_t i = threadIdx.x; i < block; i += blockDim.x) places[i] = PageRow(table, page_rows, token * stride + i);
  __syncthreads();
  for (int64_t i = threadIdx.x * V; i < size; i += blockDim.x * V) {
    const int64_t place = places[i / width];
    const T* const from = x + (place * groups + group) * width + i % width;
    if constexpr (V == 1) {
      to[i] = FromFloat<T>((place < 0 ? 0 : ToFloat(*from)) + ToFloat(position[i]));
    } else {
      float values[V] = {}, added[V];
      if (place >= 0) LoadVector(from, values);
      LoadVector(position + i, added);
#pragma unroll
      for (int j = 0; j < V; ++j) values[j] += added[j];
      StoreVector(to + i, values);
    }
  }
}

// activation[rows, M] = GELU(hidden + bias), in its erf form.
template <typename T>
__global__ void GeluKernel(const float* hidden, const T* bias, int64_t count, int64_t width, T* activation) {
  for (int64_t i = GridThread(); i < count; i += GridThreads()) {
    const float x = hidden[i] + ToFloat(bias[i % width]);
    activation[i] = FromFloat<T>(x * NormalBelow(x));
  }
}

// The panel's rows of y = products[rows, W] + bias; bias may be null.
template <typename T>
__global__ void FinishKernel(const float* products, const T* bias, CompressPanelGpu panel, int64_t groups,
                             int64_t width, T* y) {
  for (int64_t i = GridThread(); i < panel.rows() * width; i += GridThreads()) {
    const int64_t row = i / width, channel = i % width;
    const int64_t y_row = (panel.y_row + row / panel.groups) * groups + panel.group + row % panel.groups;
    y[y_row * width + channel] = FromFloat<T>(products[i] + (bias == nullptr ? 0.0f : ToFloat(bias[channel])));
  }
}

// y = the mean of the block's rows, for all groups. A thread owns one channel of a compressed token and group.
template <typename T>
__global__ void MeanKernel(const T* x, const int32_t* table, int64_t page_rows, CompressPanelGpu panel,
                           int64_t row_size, int64_t block, int64_t stride, T* y) {
  for (int64_t i = GridThread(); i < panel.count * row_size; i += GridThreads()) {
    const int64_t token = i / row_size, column = i % row_size;
    float sum = 0;
    for (int64_t j = 0; j < block; ++j) {
      const int64_t place = PageRow(table, page_rows, (panel.token + token) * stride + j);
      sum += place < 0 ? 0 : ToFloat(x[place * row_size + column]);
    }
    y[(panel.y_row + token) * row_size + column] = FromFloat<T>(sum / static_cast<float>(block));
  }
}

unsigned BlocksFor(int64_t items) { return static_cast<unsigned>(std::min<int64_t>(CeilDiv(items, kThreads), 4096)); }

void ZeroLeadRows(cudaStream_t stream, const CompressArgs& args) {
  const int64_t lead = args.block / args.stride - 1;
  const int64_t row_bytes = args.y.dim(1) * args.y.dim(2) * DTypeSize(args.y.dtype);
  for (const Segment& segment : args.segments) {
    const int64_t begin = segment.begin / args.stride, end = (segment.begin + segment.length) / args.stride;
    const int64_t count = std::min(lead, end) - begin;
    if (count <= 0) continue;
    char* const rows = static_cast<char*>(args.y.data) + segment.row / args.stride * row_bytes;
    CudaCheck(cudaMemsetAsync(rows, 0, count * row_bytes, stream), "attention.compress");
  }
}

template <typename T>
void RunMean(cudaStream_t stream, const CompressArgs& args, const std::vector<CompressPanelGpu>& panels) {
  const int64_t row_size = args.x.dim(1) * args.x.dim(2);
  for (const CompressPanelGpu& panel : panels) {
    MeanKernel<T><<<BlocksFor(panel.count * row_size), kThreads, 0, stream>>>(
        GpuData<const T>(args.x), GpuData<const int32_t>(args.pages.table), args.pages.page_rows, panel, row_size,
        args.block, args.stride, GpuData<T>(args.y));
  }
}

template <typename T>
void RunProducts(Stream& stream, cudaStream_t on, const CompressArgs& args, const std::vector<CompressPanelGpu>& panels,
                 GpuScratch* scratch, MatMulGpu* matmul) {
  const bool mlp = args.phi == Phi::kMlp;
  const int64_t groups = args.x.dim(1), width = args.x.dim(2), block_width = args.block * width;
  const int64_t hidden_width = mlp ? args.weights.weight1.dim(1) : 0;
  ScratchCut cut;
  const int64_t blocks_at = cut.Add(kPanelRows * block_width * sizeof(T));
  const int64_t products_at = cut.Add(kPanelRows * std::max(hidden_width, width) * sizeof(float));
  const int64_t hidden_at = cut.Add(kPanelRows * hidden_width * sizeof(T));
  char* const memory = static_cast<char*>(scratch->Get(stream, cut.bytes));
  T* const blocks = reinterpret_cast<T*>(memory + blocks_at);
  float* const products = reinterpret_cast<float*>(memory + products_at);
  T* const hidden = reinterpret_cast<T*>(memory + hidden_at);

  MatMulShape first = {.m = kPanelRows, .n = mlp ? hidden_width : width, .k = block_width, .operands = args.x.dtype};
  MatMulShape second = {.m = kPanelRows, .n = width, .k = hidden_width, .operands = args.x.dtype};
  for (const CompressPanelGpu& panel : panels) {
    GatherBlocksGpu(on, args.x.dtype, args, panel, blocks);
    if (mlp) {
      matmul->Run(stream, first, blocks, args.weights.weight1.data, products);
      const int64_t count = kPanelRows * hidden_width;
      GeluKernel<T><<<BlocksFor(count), kThreads, 0, on>>>(products, GpuData<const T>(args.weights.bias1), count,
                                                           hidden_width, hidden);
      matmul->Run(stream, second, hidden, args.weights.weight2.data, products);
    } else {
      const T* const weight = GpuData<const T>(args.weights.weight) + panel.group * block_width * width;
      matmul->Run(stream, first, blocks, weight, products);
    }
    FinishKernel<T><<<BlocksFor(panel.rows() * width), kThreads, 0, on>>>(
        products, GpuData<const T>(args.weights.bias2), panel, groups, width, GpuData<T>(args.y));
  }
}

template <typename T>
void Gather(cudaStream_t stream, const CompressArgs& args, const CompressPanelGpu& panel, void* blocks) {
  const int64_t groups = args.x.dim(1), width = args.x.dim(2);
  const T* const x = GpuData<const T>(args.x);
  // MLP shares one position encoding among the groups, LINEAR has one a group.
  const T* const position =
      GpuData<const T>(args.weights.position) + (args.phi == Phi::kLinear ? panel.group * args.block * width : 0);
  const bool whole =
      width % kVector<T> == 0 && (reinterpret_cast<uintptr_t>(x) | reinterpret_cast<uintptr_t>(position)) % 16 == 0;
  const auto kernel = whole ? GatherKernel<T, kVector<T>> : GatherKernel<T, 1>;
  kernel<<<kPanelRows, kThreads, args.block * sizeof(int64_t), stream>>>(
      x, GpuData<const int32_t>(args.pages.table), args.pages.page_rows, position, groups, width, args.block,
      args.stride, panel, static_cast<T*>(blocks));
}

}  // namespace

std::vector<CompressPanelGpu> CutCompressPanels(const char* operation, const CompressArgs& args) {
  const int64_t all_groups = args.x.dim(1), lead = args.block / args.stride - 1;
  LS_CHECK(args.block <= kMaxCompressBlock, "{}: block: expected up to {} on gpu, found {}", operation,
           kMaxCompressBlock, args.block);
  LS_CHECK(all_groups > 0 && all_groups <= kPanelRows, "{}: x: expected 1 to {} groups on gpu, found {}", operation,
           kPanelRows, all_groups);
  const int64_t groups = args.phi == Phi::kLinear ? 1 : all_groups;
  std::vector<CompressPanelGpu> panels;
  for (const Segment& segment : args.segments) {
    const int64_t begin = segment.begin / args.stride, end = (segment.begin + segment.length) / args.stride;
    const int64_t first = std::max(begin, lead);
    const int64_t step = args.phi == Phi::kMean ? std::max<int64_t>(1, end - first) : kPanelRows / groups;
    for (int64_t group = 0; group < all_groups; group += groups) {
      for (int64_t row = first; row < end; row += step) {
        panels.push_back(
            {row - lead, std::min(step, end - row), segment.row / args.stride + row - begin, group, groups});
      }
    }
  }
  return panels;
}

void GatherBlocksGpu(cudaStream_t stream, DType dtype, const CompressArgs& args, const CompressPanelGpu& panel,
                     void* blocks) {
  DispatchFloatGpu(dtype, [&]<typename T>() { Gather<T>(stream, args, panel, blocks); });
}

void GpuAttention::Compress(Stream& stream, const CompressArgs& args) {
  const char* const name = "attention.compress";
  const DType dtype = CheckCompress(OnGpu(name), args);
  const std::vector<CompressPanelGpu> panels = CutCompressPanels(name, args);
  LaunchGpu(stream, name, CompressCost(args), [&](cudaStream_t on) {
    ZeroLeadRows(on, args);
    DispatchFloatGpu(dtype, [&]<typename T>() {
      if (args.phi == Phi::kMean) {
        RunMean<T>(on, args, panels);
      } else {
        RunProducts<T>(stream, on, args, panels, &compress_scratch_, &compress_matmul_);
      }
    });
  });
}

}  // namespace longspan
