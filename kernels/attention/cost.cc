#include "kernels/attention/cost.h"

#include <algorithm>
#include <utility>

namespace longspan {
namespace {

// 1 + 2 + .. + n.
int64_t Triangle(int64_t n) { return n * (n + 1) / 2; }

// pairs(n) are those of the sequence's first n queries.
template <typename Pairs>
double OfSegments(const std::vector<Segment>& segments, const Pairs& pairs) {
  int64_t sum = 0;
  for (const Segment& segment : segments) sum += pairs(segment.begin + segment.length) - pairs(segment.begin);
  return static_cast<double>(sum);
}

// Multiply-adds of one compressed row of `width`: with the weights of the first layer, and of the second (or only one).
struct PhiProducts {
  double first = 0, second = 0;
};

PhiProducts ProductsOf(Phi phi, const PhiWeights& weights, double block, double width) {
  const double block_width = block * width;
  if (phi == Phi::kMlp) {
    const double hidden = weights.weight1.dim(1);
    return {block_width * hidden, hidden * width};
  }
  return {0, phi == Phi::kLinear ? block_width * width : block_width / 2};  // the mean: additions only
}

Cost ProductsCost(const CompressArgs& args, double firsts, double seconds, double bytes) {
  const PhiProducts one = ProductsOf(args.phi, args.weights, args.block, args.x.dim(2));
  double tokens = 0;
  for (const Segment& segment : args.segments) tokens += segment.length / args.stride;
  return {2 * tokens * args.x.dim(1) * (firsts * one.first + seconds * one.second), bytes};
}

double WeightBytes(const PhiWeights& weights) {
  double bytes = 0;
  for (size_t i = 0; i < weights.kSize; ++i) bytes += BytesOf({weights[i]});
  return bytes;
}

}  // namespace

// The first query that sees a compressed token is number block - 1; every `stride` queries see one more.
double CompressedPairs(const std::vector<Segment>& segments, int64_t block, int64_t stride) {
  return OfSegments(segments, [=](int64_t n) {
    const int64_t seeing = std::max<int64_t>(0, n - block + 1);
    const int64_t whole = seeing / stride, rest = seeing % stride;
    return stride * Triangle(whole) + rest * (whole + 1);
  });
}

// The queries of the first `select` blocks see all tokens up to their own; later ones select - 1 whole blocks, and of
// their own block as much.
double SelectedPairs(const std::vector<Segment>& segments, int64_t select_block, int64_t select) {
  return OfSegments(segments, [=](int64_t n) {
    const int64_t early = std::min(n, select * select_block), late = n - early;
    const int64_t whole = late / select_block, rest = late % select_block;
    return Triangle(early) + late * (select - 1) * select_block + whole * Triangle(select_block) + Triangle(rest);
  });
}

double WindowPairs(const std::vector<Segment>& segments, int64_t window) {
  return OfSegments(segments, [=](int64_t n) {
    const int64_t early = std::min(n, window);
    return Triangle(early) + (n - early) * window;
  });
}

Cost BranchCost(const BranchArgs& args, double pairs) {
  return {2.0 * pairs * args.q.dim(1) * (args.q.dim(2) + args.kv.v.dim(2)),
          BytesOf({args.q, args.kv.k, args.kv.v, args.o, args.lse})};
}

Cost BranchBackwardCost(const BranchArgs& args, const BranchGradient& gradient, double pairs) {
  const double flops = 2.0 * pairs * args.q.dim(1) * (3 * args.q.dim(2) + 2 * args.kv.v.dim(2));
  return {flops, BytesOf({args.q, args.kv.k, args.kv.v, args.o, args.lse, gradient.d_o, gradient.d_q, gradient.d_k,
                          gradient.d_v, gradient.gate.gates, gradient.gate.d_gates})};
}

Cost SelectCost(const SelectArgs& args) {
  const double pairs = CompressedPairs(args.segments, args.nsa.block, args.nsa.stride);
  return {2.0 * pairs * args.q.dim(1) * args.q.dim(2), BytesOf({args.q, args.k, args.lse, args.selected, args.scores})};
}

Cost CompressCost(const CompressArgs& args) {
  return ProductsCost(args, 1, 1, BytesOf({args.x, args.y}) + WeightBytes(args.weights));
}

// The first product is made again.
Cost CompressBackwardCost(const CompressArgs& args, const CompressGradient& gradient) {
  const double weights = WeightBytes(args.weights) + WeightBytes(gradient.d_weights);
  return ProductsCost(args, 3, 2, BytesOf({args.x, gradient.d_y, gradient.d_x}) + weights);
}

Cost CombineCost(const CombineArgs& args) {
  return {5.0 * args.o.size(), BytesOf({args.gates, args.o_cmp, args.o_slc, args.o_win, args.o})};
}

Cost CombineBackwardCost(const CombineArgs& args, const CombineGradient& gradient) {
  return {6.0 * gradient.d_o.size(), BytesOf({args.o_cmp, args.o_slc, args.o_win, gradient.d_o, gradient.d_gates})};
}

Cost StoreCost(const StoreArgs& args) {
  int64_t rows = 0;
  for (const Segment& segment : args.segments) rows += segment.length;
  return {0, 2.0 * rows * args.x.dim(1) * args.x.dim(2) * DTypeSize(args.x.dtype)};
}

// A compressed row is new where its last token is.
Cost DecodeSummarizeCost(const DecodeSummarizeArgs& args) {
  const DecodeSizes& sizes = args.sizes;
  const NsaConfig& nsa = sizes.nsa;
  if (args.step.segments == nullptr) return {};
  int64_t rows = 0;
  for (const Segment& segment : *args.step.segments) {
    const int64_t end = (segment.begin + segment.length) / nsa.stride;
    rows += std::max<int64_t>(0, end - std::max(segment.begin / nsa.stride, nsa.lead()));
  }
  if (rows == 0) return {};
  const auto of_group = static_cast<double>(rows * sizes.groups);
  Cost cost;
  for (const auto& [phi, width] : {std::pair(&args.phi_k, sizes.key_width), {&args.phi_v, sizes.value_width}}) {
    const PhiProducts one = ProductsOf(nsa.phi, *phi, static_cast<double>(nsa.block), static_cast<double>(width));
    cost.flops += 2 * of_group * (one.first + one.second);
    cost.bytes += of_group * static_cast<double>((nsa.block + 1) * width * DTypeSize(sizes.dtype)) + WeightBytes(*phi);
  }
  return cost;
}

Cost DecodeAttendCost(const DecodeAttendArgs& args) {
  if (args.step.segments == nullptr) return {};
  const NsaConfig& nsa = args.sizes.nsa;
  const std::vector<Segment>& segments = *args.step.segments;
  const double pairs = CompressedPairs(segments, nsa.block, nsa.stride) +
                       SelectedPairs(segments, nsa.select_block, nsa.select) + WindowPairs(segments, nsa.window);
  const auto widths = static_cast<double>(args.sizes.key_width + args.sizes.value_width);
  const auto row_bytes = static_cast<double>(args.sizes.groups * DTypeSize(args.sizes.dtype)) * widths;
  return {2 * pairs * static_cast<double>(args.sizes.heads) * widths,
          pairs * row_bytes + BytesOf({args.q, args.gates, args.selected, args.o})};
}

double BytesOf(std::initializer_list<Tensor> tensors) {
  double bytes = 0;
  for (const Tensor& tensor : tensors) bytes += tensor ? static_cast<double>(tensor.bytes()) : 0;
  return bytes;
}

}  // namespace longspan
