#include "kernels/attention/check.h"

#include <string>

#include "kernels/base/arguments.h"

namespace longspan {
namespace {

void CheckSegments(const Operation& operation, const std::vector<Segment>& segments, int64_t tokens,
                   const Tensor& doc_start) {
  if (doc_start) {
    RequireRank(operation, "doc_start", doc_start, 1);
    RequireTensor(operation, "doc_start", doc_start, DType::kI32, doc_start.shape);
  }
  for (const Segment& segment : segments) {
    LS_CHECK(segment.begin >= 0 && segment.length >= 0 && segment.row >= 0 && segment.row + segment.length <= tokens,
             "{}: segments: expected local rows in [0,{}), found {} from row {} on", operation.name, tokens,
             segment.length, segment.row);
    LS_CHECK(!doc_start || segment.begin + segment.length <= doc_start.dim(0),
             "{}: doc_start: expected the start of every token up to {}, found {}", operation.name,
             segment.begin + segment.length, doc_start.dim(0));
  }
}

void CheckPages(const Operation& operation, const Pages& pages) {
  RequireRank(operation, "pages.table", pages.table, 1);
  RequireTensor(operation, "pages.table", pages.table, DType::kI32, pages.table.shape);
  LS_CHECK(pages.page_rows > 0, "{}: pages.page_rows: expected 1 or more, found {}", operation.name, pages.page_rows);
}

// q [T,H,K] against k [R,G,K].
void CheckHeads(const Operation& operation, const Tensor& q, const Tensor& k) {
  RequireRank(operation, "q", q, 3);
  RequireRank(operation, "k", k, 3);
  LS_CHECK(k.dim(1) > 0 && q.dim(1) > 0 && q.dim(1) % k.dim(1) == 0,
           "{}: q: expected heads in multiples of the {} groups of k, found {}", operation.name, k.dim(1), q.dim(1));
  LS_CHECK(q.dim(2) > 0, "{}: q: expected a width above 0, found {}", operation.name, q.shape.ToString());
  RequireTensor(operation, "k", k, q.dtype, {k.dim(0), k.dim(1), q.dim(2)});
}

// A gradient; it may be null.
void CheckGradient(const Operation& operation, const char* name, const Tensor& gradient, const Tensor& of) {
  if (gradient) RequireTensor(operation, name, gradient, SumType(operation, of.dtype), of.shape);
}

}  // namespace

DType CheckBranch(const Operation& operation, const BranchArgs& args) {
  const DType dtype = RequireFloat(operation, "q", args.q);
  CheckHeads(operation, args.q, args.kv.k);
  RequireRank(operation, "v", args.kv.v, 3);
  const int64_t tokens = args.q.dim(0), heads = args.q.dim(1), value_width = args.kv.v.dim(2);
  LS_CHECK(value_width > 0, "{}: v: expected a width above 0, found {}", operation.name, args.kv.v.shape.ToString());
  RequireTensor(operation, "v", args.kv.v, dtype, {args.kv.k.dim(0), args.kv.k.dim(1), value_width});
  RequireTensor(operation, "o", args.o, dtype, {tokens, heads, value_width});
  RequireTensor(operation, "lse", args.lse, SumType(operation, dtype), {tokens, heads});
  CheckSegments(operation, args.segments, tokens, args.doc_start);
  CheckPages(operation, args.kv.pages);
  return dtype;
}

DType CheckBranchGradient(const Operation& operation, const BranchArgs& args, const BranchGradient& gradient) {
  const DType dtype = CheckBranch(operation, args);
  RequireTensor(operation, "d_o", gradient.d_o, dtype, args.o.shape);
  CheckGradient(operation, "d_q", gradient.d_q, args.q);
  CheckGradient(operation, "d_k", gradient.d_k, args.kv.k);
  CheckGradient(operation, "d_v", gradient.d_v, args.kv.v);
  if (const BranchGate& gate = gradient.gate; gate.gates) {
    const Shape shape = {args.o.dim(0), args.o.dim(1), 3};
    RequireTensor(operation, "gates", gate.gates, dtype, shape);
    RequireTensor(operation, "d_gates", gate.d_gates, SumType(operation, dtype), shape);
    LS_CHECK(gate.branch >= 0 && gate.branch < 3, "{}: gate.branch: expected 0, 1 or 2, found {}", operation.name,
             gate.branch);
  }
  return dtype;
}

DType CheckSelect(const Operation& operation, const SelectArgs& args) {
  const std::vector<std::string> problems = Problems(args.nsa, "nsa.");
  LS_CHECK(problems.empty(), "{}: {}", operation.name, problems.front());
  const DType dtype = RequireFloat(operation, "q", args.q);
  CheckHeads(operation, args.q, args.k);
  const int64_t tokens = args.q.dim(0);
  const Shape chosen = {tokens, args.k.dim(1), args.nsa.select};
  RequireTensor(operation, "lse", args.lse, SumType(operation, dtype), {tokens, args.q.dim(1)});
  RequireTensor(operation, "selected", args.selected, DType::kI32, chosen);
  if (args.scores) RequireTensor(operation, "scores", args.scores, SumType(operation, dtype), chosen);
  CheckSegments(operation, args.segments, tokens, args.doc_start);
  CheckPages(operation, args.pages);
  return dtype;
}

void CheckSelected(const Operation& operation, const SelectedArgs& args) {
  LS_CHECK(args.select_block > 0, "{}: select_block: expected 1 or more, found {}", operation.name, args.select_block);
  RequireRank(operation, "selected", args.selected, 3);
  RequireTensor(operation, "selected", args.selected, DType::kI32,
                {args.q.dim(0), args.kv.k.dim(1), args.selected.dim(2)});
}

void CheckBlockAndStride(const Operation& operation, int64_t block, int64_t stride) {
  LS_CHECK(stride > 0 && block > 0 && block % stride == 0,
           "{}: block, stride: expected a stride that divides the block, found {} and {}", operation.name, block,
           stride);
}

DType CheckCompress(const Operation& operation, const CompressArgs& args) {
  CheckBlockAndStride(operation, args.block, args.stride);
  const DType dtype = RequireFloat(operation, "x", args.x);
  RequireRank(operation, "x", args.x, 3);
  RequireRank(operation, "y", args.y, 3);
  const int64_t groups = args.x.dim(1), width = args.x.dim(2);
  LS_CHECK(width > 0, "{}: x: expected a width above 0, found {}", operation.name, args.x.shape.ToString());
  RequireTensor(operation, "y", args.y, dtype, {args.y.dim(0), groups, width});
  CheckPages(operation, args.pages);
  for (const Segment& segment : args.segments) {
    LS_CHECK(segment.begin >= 0 && segment.begin % args.stride == 0 && segment.row % args.stride == 0,
             "{}: segments: expected multiples of the stride {}, found begin {} in row {}", operation.name, args.stride,
             segment.begin, segment.row);
    LS_CHECK(segment.length >= 0 && segment.row >= 0 && (segment.row + segment.length) / args.stride <= args.y.dim(0),
             "{}: segments: expected rows within the {} of y, found {} tokens from row {} on", operation.name,
             args.y.dim(0), segment.length, segment.row);
  }
  const PhiWeights& weights = args.weights;
  if (args.phi == Phi::kMlp) RequireRank(operation, "weight1", weights.weight1, 2);
  ForPhi({args.phi, groups, args.block, width, weights.weight1.dim(1)},
         [&](size_t i, const Shape& shape) { RequireTensor(operation, kPhiNames[i], weights[i], dtype, shape); });
  return dtype;
}

DType CheckCompressGradient(const Operation& operation, const CompressArgs& args, const CompressGradient& gradient) {
  const DType dtype = CheckCompress(operation, args);
  RequireTensor(operation, "d_y", gradient.d_y, SumType(operation, dtype), args.y.shape);
  CheckGradient(operation, "d_x", gradient.d_x, args.x);
  for (size_t i = 0; i < kPhiNames.kSize; ++i) {
    const std::string name = std::string("d_") + kPhiNames[i];
    CheckGradient(operation, name.c_str(), gradient.d_weights[i], args.weights[i]);
  }
  return dtype;
}

DType CheckCombine(const Operation& operation, const CombineArgs& args) {
  const DType dtype = RequireFloat(operation, "o_cmp", args.o_cmp);
  RequireRank(operation, "o_cmp", args.o_cmp, 3);
  const Shape& shape = args.o_cmp.shape;
  RequireTensor(operation, "gates", args.gates, dtype, {shape[0], shape[1], 3});
  RequireTensor(operation, "o_slc", args.o_slc, dtype, shape);
  RequireTensor(operation, "o_win", args.o_win, dtype, shape);
  return dtype;
}

DType CheckCombineGradient(const Operation& operation, const CombineArgs& args, const CombineGradient& gradient) {
  const DType dtype = CheckCombine(operation, args);
  RequireTensor(operation, "d_o", gradient.d_o, dtype, args.o_cmp.shape);
  RequireTensor(operation, "d_gates", gradient.d_gates, SumType(operation, dtype), args.gates.shape);
  return dtype;
}

void CheckStore(const Operation& operation, const StoreArgs& args) {
  const DType dtype = RequireFloat(operation, "x", args.x);
  RequireRank(operation, "x", args.x, 3);
  RequireRank(operation, "y", args.y, 3);
  RequireTensor(operation, "y", args.y, dtype, {args.y.dim(0), args.x.dim(1), args.x.dim(2)});
  CheckSegments(operation, args.segments, args.x.dim(0), Tensor());
  CheckPages(operation, args.pages);
  for (const Segment& segment : args.segments) {
    LS_CHECK(segment.begin + segment.length <= args.pages.table.size() * args.pages.page_rows,
             "{}: segments: expected positions within the {} rows of the page table, found {} from {} on",
             operation.name, args.pages.table.size() * args.pages.page_rows, segment.length, segment.begin);
  }
}

void CheckHashSelection(const Operation& operation, const HashSelectionArgs& args) {
  RequireRank(operation, "selected", args.selected, 3);
  RequireTensor(operation, "selected", args.selected, DType::kI32, args.selected.shape);
  RequireTensor(operation, "hash", args.hash, DType::kI64, {1});
  CheckSegments(operation, args.segments, args.selected.dim(0), Tensor());
}

}  // namespace longspan
