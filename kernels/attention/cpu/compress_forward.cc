// Compression forward: overwrites y. A panel of about 128 rows (compressed tokens x groups) is gathered, block by
// block, into a matrix that meets the weights in MatMulCpu, whose rows do not depend on their neighbours. Panels run in
// parallel. Bound by the matrix products.
#include <algorithm>
#include <cmath>

#include "kernels/attention/cpu/compress.h"
#include "kernels/attention/cpu/pages.h"
#include "kernels/base/scratch_cpu.h"
#include "kernels/matmul/matmul_cpu.h"

namespace longspan {
namespace {

constexpr int64_t kPanelRows = 128;

// One thread's memory.
template <typename T>
struct Workspace {
  Scratch<T> blocks, hidden, y;
};

template <typename T>
void CompressOne(const CompressArgs& args, const CompressPanel& panel, const CompressPlan& plan) {
  static thread_local Workspace<T> work;
  const int64_t width = args.x.dim(2), block_width = args.block * width, rows = panel.rows();
  T* const blocks = work.blocks.Get(rows * block_width);
  T* const y = work.y.Get(rows * width);
  GatherBlocks(args, panel, plan, blocks);
  switch (args.phi) {
    case Phi::kMlp: {
      const int64_t hidden_width = args.weights.weight1.dim(1);
      T* const hidden = work.hidden.Get(rows * hidden_width);
      MatMulCpu<T>({.a = blocks,
                    .b = args.weights.weight1.As<const T>(),
                    .c = hidden,
                    .m = rows,
                    .n = hidden_width,
                    .k = block_width});
      AddBias(args.weights.bias1, rows, hidden);
      for (int64_t i = 0; i < rows * hidden_width; ++i) {
        hidden[i] *= T(0.5) * (1 + std::erf(hidden[i] * T(0.70710678118654752440)));
      }
      MatMulCpu<T>(
          {.a = hidden, .b = args.weights.weight2.As<const T>(), .c = y, .m = rows, .n = width, .k = hidden_width});
      AddBias(args.weights.bias2, rows, y);
      break;
    }
    case Phi::kLinear:
      MatMulCpu<T>({.a = blocks,
                    .b = args.weights.weight.As<const T>() + panel.group * block_width * width,
                    .c = y,
                    .m = rows,
                    .n = width,
                    .k = block_width});
      break;
    case Phi::kMean:
      std::fill_n(y, rows * width, T(0));
      for (int64_t i = 0; i < rows * args.block; ++i) {
        for (int64_t c = 0; c < width; ++c) y[i / args.block * width + c] += blocks[i * width + c];
      }
      for (int64_t i = 0; i < rows * width; ++i) y[i] /= T(args.block);
      break;
  }
  for (int64_t i = 0; i < panel.count; ++i) {
    const int64_t row = plan.y_rows[panel.first + i] * args.x.dim(1) + panel.group;
    std::copy_n(y + i * panel.groups * width, panel.groups * width, args.y.As<T>() + row * width);
  }
}

}  // namespace

CompressPlan::CompressPlan(const CompressArgs& args) {
  const int64_t lead = args.block / args.stride - 1;
  for (const Segment& segment : args.segments) {
    const int64_t begin = segment.begin / args.stride, end = (segment.begin + segment.length) / args.stride;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t y_row = segment.row / args.stride + row - begin;
      if (row < lead) {
        lead_rows.push_back(y_row);
        continue;
      }
      y_rows.push_back(y_row);
      for (int64_t i = 0; i < args.block; ++i) {
        x_rows.push_back(BufferRow(args.pages, (row - lead) * args.stride + i, args.x.dim(0)));
      }
    }
  }
}

std::vector<CompressPanel> CutPanels(const CompressArgs& args, int64_t tokens, int64_t rows) {
  const int64_t groups = args.phi == Phi::kMlp ? args.x.dim(1) : 1;
  const int64_t step = std::max<int64_t>(1, rows / groups);
  std::vector<CompressPanel> panels;
  for (int64_t group = 0; group < args.x.dim(1); group += groups) {
    for (int64_t first = 0; first < tokens; first += step) {
      panels.push_back({first, std::min(step, tokens - first), group, groups});
    }
  }
  return panels;
}

template <typename T>
void GatherBlocks(const CompressArgs& args, const CompressPanel& panel, const CompressPlan& plan, T* blocks) {
  const int64_t width = args.x.dim(2);
  const T* const x = args.x.As<const T>();
  // MLP shares one position encoding among the groups, LINEAR has one a group, MEAN none.
  const T* position = args.weights.position ? args.weights.position.As<const T>() : nullptr;
  if (args.phi == Phi::kLinear) position += panel.group * args.block * width;
#pragma omp parallel for
  for (int64_t i = 0; i < panel.rows(); ++i) {
    const int64_t* const x_rows = plan.x_rows.data() + (panel.first + i / panel.groups) * args.block;
    const int64_t group = panel.group + i % panel.groups;
    for (int64_t j = 0; j < args.block; ++j) {
      const T* const from = x + (x_rows[j] * args.x.dim(1) + group) * width;
      T* const to = blocks + (i * args.block + j) * width;
      if (args.phi == Phi::kMean) {
        std::copy_n(from, width, to);
      } else {
        for (int64_t c = 0; c < width; ++c) to[c] = from[c] + position[j * width + c];
      }
    }
  }
}

template <typename T>
void AddBias(const Tensor& bias, int64_t rows, T* x) {
  const int64_t width = bias.size();
  const T* const added = bias.As<const T>();
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < width; ++c) x[i * width + c] += added[c];
  }
}

template <typename T>
void CompressTokens(const CompressArgs& args) {
  const CompressPlan plan(args);
  const int64_t y_width = args.y.dim(1) * args.y.dim(2);
  for (const int64_t row : plan.lead_rows) std::fill_n(args.y.As<T>() + row * y_width, y_width, T(0));
  const std::vector<CompressPanel> panels = CutPanels(args, plan.tokens(), kPanelRows);
#pragma omp parallel for schedule(dynamic)
  for (const CompressPanel& panel : panels) CompressOne<T>(args, panel, plan);
}

template void GatherBlocks(const CompressArgs&, const CompressPanel&, const CompressPlan&, float*);
template void GatherBlocks(const CompressArgs&, const CompressPanel&, const CompressPlan&, double*);
template void AddBias(const Tensor&, int64_t, float*);
template void AddBias(const Tensor&, int64_t, double*);
template void CompressTokens<float>(const CompressArgs&);
template void CompressTokens<double>(const CompressArgs&);

}  // namespace longspan
