// Compressed tokens whose last token is new: few, one more every d tokens of a sequence. Two launches, in which blocks
// without work end at once: products of the blocks of tokens with phi's first weights, then the rest and the row.
//
// What training rounds to the call's type is rounded here too: x + position, the hidden layer, the row before its
// rotation. Sums have another order. Bound by the weights' way from L2.
#include <algorithm>

#include "kernels/attention/cost.h"
#include "kernels/attention/decode/gpu_decode.h"
#include "kernels/attention/decode/params.cuh"

namespace longspan {
namespace {

constexpr int kRows = 8;                                // of products that a block makes at once
constexpr int kColumns = 32, kSlices = 16, kParts = 8;  // of the depth: slices of a block, blocks
constexpr unsigned kRowBlocks = 4;                      // at most: mostly there are no rows
constexpr int kProductThreads = kColumns * kSlices;
constexpr int64_t kStaticBytes = 10 << 10;  // of the products' shared memory, at most
constexpr int kFinishThreads = 512;

struct SummarizeParams {
  StepView step;
  const void* x[2];  // keys, values
  void* y[2];
  int width[2];
  const void *position[2], *weight[2], *bias1[2], *weight2[2], *bias2[2];
  int hidden[2];       // columns of `weight`
  float* products[2];  // [kParts,items,G,hidden]
  const double* frequency;
  double factor;
  int ring_pages, page_rows, summary_page_rows;
  int groups, block, stride, lead;
  int item_rows;  // compressed rows of an entry, at most
  bool linear;

  __device__ int items() const { return step.entry_count * item_rows; }
  // The compressed row of an item; -1: none.
  __device__ int RowOf(int item) const {
    const int4 entry = step.entries[item / item_rows];
    const int row = entry.y / stride + item % item_rows;
    return row < (entry.y + entry.z) / stride && row >= lead ? row : -1;
  }
  __device__ PagesView From(int item) const {
    const int entry = item / item_rows;
    return {step.TableOf(entry), ring_pages, step.entries[entry].x, page_rows};
  }
};

// The items with work number first .. first+count-1, by a whole block; returns how many of them there are.
__device__ int FindItems(const SummarizeParams& p, int first, int count, int* found) {
  __shared__ int sums[kWarp];
  int before = 0;
  for (int begin = 0; begin < p.items() && before < first + count; begin += kProductThreads) {
    const int item = begin + static_cast<int>(threadIdx.x);
    const bool works = item < p.items() && p.RowOf(item) >= 0;
    const unsigned ballot = __ballot_sync(kAllLanes, works);
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    __syncthreads();
    if (lane == 0) sums[warp] = __popc(ballot);
    __syncthreads();
    int rank = before + __popc(ballot & ((1u << lane) - 1));
    for (int i = 0; i < kProductThreads / kWarp; ++i) {
      if (i < warp) rank += sums[i];
      before += sums[i];
    }
    if (works && rank >= first && rank < first + count) found[rank - first] = item;
  }
  __syncthreads();
  return max(0, min(before - first, count));
}

// products[part, item, group, column] = sum over a part of the block's tokens and channels of (x + position) * weight.
// A thread block takes 8 rows at once (of one group for LINEAR, which has weights of its own for each) and 32 columns.
template <typename T>
__global__ void __launch_bounds__(kProductThreads) ProductKernel(const __grid_constant__ SummarizeParams p) {
  extern __shared__ uint4 shared[];
  __shared__ int found[kRows];
  __shared__ float sums[kSlices / 2][kRows][kColumns];
  T* const blocks = reinterpret_cast<T*>(shared);  // [of this part's depth][kRows]
  const int of = blockIdx.z % 2, width = p.width[of], depth = p.block * width;
  // Parts are whole vectors, as rows are.
  const int part = blockIdx.y % kParts;
  const int part_depth = (depth / kVector<T> + kParts - 1) / kParts * kVector<T>;
  const int depth_begin = min(part * part_depth, depth), here = min(part_depth, depth - depth_begin);
  const int row_groups = p.linear ? 1 : p.groups;
  const int64_t group_weights = p.linear ? int64_t{blockIdx.z / 2} * depth : 0;
  const T* const position = static_cast<const T*>(p.position[of]) + group_weights;
  const int slice = threadIdx.x / kColumns, lane = threadIdx.x % kColumns, columns = p.hidden[of];
  const int first_column = blockIdx.y / kParts * kColumns, column = first_column + lane;
  const T* const weight = static_cast<const T*>(p.weight[of]) + (group_weights + depth_begin) * columns;
  const int slice_depth = (here + kSlices - 1) / kSlices, end = min(here, (slice + 1) * slice_depth);

  for (int first_row = blockIdx.x * kRows;; first_row += gridDim.x * kRows) {
    const int first_item = first_row / row_groups, last_item = (first_row + kRows - 1) / row_groups;
    const int items = FindItems(p, first_item, last_item - first_item + 1, found);
    const int rows = min(kRows, (first_item + items) * row_groups - first_row);
    if (rows <= 0) return;
    const auto item_of = [&](int row) { return found[(first_row + row) / row_groups - first_item]; };
    const auto group_of = [&](int row) {
      return p.linear ? static_cast<int>(blockIdx.z / 2) : (first_row + row) % row_groups;
    };
    // All rows at once, 16 bytes of a row a thread.
    for (int i = threadIdx.x; i < kRows * here / kVector<T>; i += kProductThreads) {
      const int row = i % kRows, first = i / kRows * kVector<T>, at = depth_begin + first;
      float x[kVector<T>] = {};
      if (row < rows) {
        const int item = item_of(row), token = (p.RowOf(item) - p.lead) * p.stride;
        const int64_t from = p.From(item).RowOf(token + at / width);
        LoadVector(static_cast<const T*>(p.x[of]) + (from * p.groups + group_of(row)) * width + at % width, x);
#pragma unroll
        for (int j = 0; j < kVector<T>; ++j) x[j] += ToFloat(position[at + j]);  // the caller's memory, anywhere
      }
#pragma unroll
      for (int j = 0; j < kVector<T>; ++j) blocks[(first + j) * kRows + row] = FromFloat<T>(x[j]);
    }
    __syncthreads();

    float sum[kRows] = {};
    if (column < columns) {
#pragma unroll 16
      for (int i = slice * slice_depth; i < end; ++i) {
        const float w = ToFloat(weight[static_cast<int64_t>(i) * columns + column]);
#pragma unroll
        for (int half = 0; half < kRows / kVector<T>; ++half) {
          float x[kVector<T>];
          LoadVector(blocks + i * kRows + half * kVector<T>, x);
#pragma unroll
          for (int row = 0; row < kVector<T>; ++row) sum[half * kVector<T> + row] += w * x[row];
        }
      }
    }
    // Slice by slice, in two halves of them.
    for (int half = 1; half >= 0; --half) {
      if (slice / (kSlices / 2) == half) {
        for (int row = 0; row < kRows; ++row) {
          float& to = sums[slice % (kSlices / 2)][row][lane];
          to = half == 1 ? sum[row] : to + sum[row];
        }
      }
      __syncthreads();
    }
    for (int i = threadIdx.x; i < rows * kColumns; i += kProductThreads) {
      const int row = i / kColumns, c = first_column + i % kColumns;
      if (c >= columns) continue;
      float total = 0;
      for (int s = 0; s < kSlices / 2; ++s) total += sums[s][row][i % kColumns];
      const int64_t to = (static_cast<int64_t>(part) * p.items() + item_of(row)) * p.groups + group_of(row);
      p.products[of][to * columns + c] = total;
    }
    __syncthreads();  // found and sums are the next rows'
  }
}

// The row: MLP second products, or LINEAR's, or the mean; then the rotation of keys.
template <typename T>
__global__ void __launch_bounds__(kFinishThreads) FinishKernel(const __grid_constant__ SummarizeParams p) {
  extern __shared__ float row_shared[];
  const int item = blockIdx.x, group = blockIdx.y, of = blockIdx.z, width = p.width[of];
  const int row = p.RowOf(item);
  if (row < 0) return;
  float* const y = row_shared;     // [width]
  float* const parts = y + width;  // [slices, width]
  const int slices = max(1, kFinishThreads / width), slice = threadIdx.x / width, channel = threadIdx.x % width;
  const bool active = slice < slices;
  const PagesView from = p.From(item);

  if (p.products[of] == nullptr) {
    float sum = 0;
    const int tokens = p.block, token = (row - p.lead) * p.stride;
    if (slice == 0) {
      const T* const x = static_cast<const T*>(p.x[of]);
#pragma unroll 8
      for (int i = 0; i < tokens; ++i) {
        const int64_t place = from.RowOf(token + i);
        sum += ToFloat(x[(place * p.groups + group) * width + channel]);
      }
      y[channel] = sum / static_cast<float>(tokens);
    }
  } else {
    const int columns = p.hidden[of];
    const auto product = [&](int column) {
      float sum = 0;
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        sum += p.products[of][((static_cast<int64_t>(part) * p.items() + item) * p.groups + group) * columns + column];
      }
      return sum;
    };
    if (p.linear) {
      if (slice == 0) y[channel] = product(channel);
    } else {
      float* const hidden = parts + slices * width;
      for (int i = threadIdx.x; i < columns; i += kFinishThreads) {
        const float x = product(i) + ToFloat(static_cast<const T*>(p.bias1[of])[i]);
        hidden[i] = ToFloat(FromFloat<T>(x * (0.5f * (1 + erff(x * 0.70710678f)))));
      }
      __syncthreads();
      const T* const weight = static_cast<const T*>(p.weight2[of]);
      const int slice_columns = (columns + slices - 1) / slices;
      float sum = 0;
      if (active) {
#pragma unroll 16
        for (int i = slice * slice_columns; i < min(columns, (slice + 1) * slice_columns); ++i) {
          sum += hidden[i] * ToFloat(weight[static_cast<int64_t>(i) * width + channel]);
        }
        parts[slice * width + channel] = sum;
      }
      __syncthreads();
      if (slice == 0) {
        float total = 0;
        for (int s = 0; s < slices; ++s) total += parts[s * width + channel];
        y[channel] = total + ToFloat(static_cast<const T*>(p.bias2[of])[channel]);
      }
    }
  }
  __syncthreads();
  if (slice != 0) return;
  float value = ToFloat(FromFloat<T>(y[channel]));
  if (of == 0 && p.frequency != nullptr) {
    const int half = width / 2, c = channel % half;
    double sine, cosine;
    sincos(static_cast<double>((row - p.lead) * p.stride) * p.frequency[c], &sine, &cosine);
    const float cosine_f = static_cast<float>(cosine * p.factor), sine_f = static_cast<float>(sine * p.factor);
    const float a = ToFloat(FromFloat<T>(y[c])), b = ToFloat(FromFloat<T>(y[c + half]));
    value = channel < half ? a * cosine_f - b * sine_f : b * cosine_f + a * sine_f;
  }
  const int entry = item / p.item_rows;
  const PagesView to = {p.step.TableOf(entry), 0, 0, p.summary_page_rows};
  const int64_t place = to.RowOf(row);
  static_cast<T*>(p.y[of])[(place * p.groups + group) * width + channel] = FromFloat<T>(value);
}

int64_t HiddenOf(const DecodeSizes& sizes, int64_t width) {
  if (sizes.nsa.phi == Phi::kMean) return 0;
  if (sizes.nsa.phi == Phi::kLinear) return width;
  return sizes.nsa.phi_hidden > 0 ? sizes.nsa.phi_hidden : 2 * width;
}

int64_t ItemRows(const DecodeSizes& sizes, int64_t max_count) { return CeilDiv(max_count, sizes.nsa.stride); }

}  // namespace

int64_t SummarizeBytes(const DecodeSizes& sizes) {
  if (sizes.nsa.phi == Phi::kMean) return 0;
  const int64_t depth = sizes.nsa.block * std::max(sizes.key_width, sizes.value_width);
  const int64_t vector = int64_t{sizeof(uint4)} / DTypeSize(sizes.dtype);
  return CeilDiv(depth / vector, kParts) * vector * kRows * DTypeSize(sizes.dtype) + kStaticBytes;
}

int64_t GpuDecode::SummarizeScratch(const DecodeSizes& sizes, int64_t entries, int64_t max_count) const {
  const int64_t columns = HiddenOf(sizes, sizes.key_width) + HiddenOf(sizes, sizes.value_width);
  return kParts * entries * ItemRows(sizes, max_count) * sizes.groups * columns * static_cast<int64_t>(sizeof(float));
}

void GpuDecode::Summarize(Stream& stream, const DecodeSummarizeArgs& args) {
  const DecodeSizes& sizes = args.sizes;
  const NsaConfig& nsa = sizes.nsa;
  SummarizeParams p = {};
  p.step = ViewOf(args.step);
  p.ring_pages = static_cast<int>(args.from.ring_pages);
  p.page_rows = static_cast<int>(nsa.select_block);
  p.summary_page_rows = static_cast<int>(nsa.select_block / nsa.stride);
  p.groups = static_cast<int>(sizes.groups);
  p.block = static_cast<int>(nsa.block);
  p.stride = static_cast<int>(nsa.stride);
  p.lead = static_cast<int>(nsa.lead());
  p.linear = nsa.phi == Phi::kLinear;
  p.frequency = GpuData<const double>(args.frequency);
  p.factor = args.factor;
  p.item_rows = static_cast<int>(ItemRows(sizes, args.step.max_count));
  const int64_t items = int64_t{p.item_rows} * p.step.entry_count;
  auto* products = GpuData<float>(args.scratch);
  int64_t width = 0, hidden = 0;
  for (const int of : {0, 1}) {
    const PhiWeights& phi = of == 0 ? args.phi_k : args.phi_v;
    p.x[of] = of == 0 ? args.from.k.data : args.from.v.data;
    p.y[of] = of == 0 ? args.to.k.data : args.to.v.data;
    p.width[of] = static_cast<int>(of == 0 ? sizes.key_width : sizes.value_width);
    p.position[of] = phi.position.data;
    p.weight[of] = p.linear ? phi.weight.data : phi.weight1.data;
    p.bias1[of] = phi.bias1.data;
    p.weight2[of] = phi.weight2.data;
    p.bias2[of] = phi.bias2.data;
    width = std::max<int64_t>(width, p.width[of]);
    if (nsa.phi == Phi::kMean) continue;
    p.hidden[of] = static_cast<int>(p.linear ? p.width[of] : phi.weight1.dim(1));
    p.products[of] = products;
    products += kParts * items * p.groups * p.hidden[of];
    hidden = std::max<int64_t>(hidden, p.hidden[of]);
  }
  LaunchGpu(stream, "decode.summarize", DecodeSummarizeCost(args), [&](cudaStream_t cuda) {
    DispatchFloatGpu(sizes.dtype, [&]<typename T>() {
      if (hidden > 0) {
        const int64_t bytes = SummarizeBytes(sizes) - kStaticBytes;
        CudaCheck(cudaFuncSetAttribute(ProductKernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(bytes)),
                  "decode.summarize");
        const unsigned row_blocks = GridFor(items * (p.linear ? 1 : p.groups), kRows);
        const dim3 grid(std::min(row_blocks, kRowBlocks), kParts * GridFor(hidden, kColumns),
                        p.linear ? 2 * p.groups : 2);
        ProductKernel<T><<<grid, kProductThreads, bytes, cuda>>>(p);
      }
      const int64_t slices = std::max<int64_t>(1, kFinishThreads / std::min(sizes.key_width, sizes.value_width));
      const int64_t floats = width * (1 + slices) + hidden;
      FinishKernel<T><<<dim3(GridFor(items, 1), p.groups, 2), kFinishThreads, floats * sizeof(float), cuda>>>(p);
    });
  });
}

}  // namespace longspan
