#include "nsa/single_query.h"

#include <algorithm>

#include "nsa/status.h"

namespace longspan {

SingleQuery::SingleQuery(AttentionContext& context, Arena& arena) : context_(context), nsa_(context.nsa) {
  const int64_t width = context.key_width;
  const auto reserve = [&](Tensor* slot, const char* name, DType dtype, const Shape& shape) {
    arena.Reserve(slot, MemoryUse::kWorkspace, std::string("query.") + name, dtype, shape);
  };
  const int64_t rows = context.config.max_length / nsa_.stride;
  reserve(&k_cmp_, "compressed_k", DType::kF32, {rows, 1, width});
  reserve(&v_cmp_, "compressed_v", DType::kF32, {rows, 1, width});
  reserve(&window_k_, "window_k", DType::kF32, {nsa_.window, 1, width});
  reserve(&window_v_, "window_v", DType::kF32, {nsa_.window, 1, width});
  for (int branch : {kCmp, kSlc, kWin}) {
    reserve(&out_.o[branch], "o", DType::kF32, {1, 1, width});
    reserve(&out_.lse[branch], "lse", DType::kF32, {1, 1});
  }
  reserve(&out_.selected, "selected", DType::kI32, {1, 1, nsa_.select});
  reserve(&gates_, "gates", DType::kF32, {1, 1, 3});
  reserve(&logits_, "logits", DType::kF32, {1, 3});
}

CompressArgs SingleQuery::Compression(const Tensor& x, const Tensor& y, bool keys) const {
  const Weights& weights = context_.weights();
  const bool mean = !weights.any_phi();
  const Weights::Phis phis = mean ? Weights::Phis() : weights.values();
  return {.segments = {{0, x.dim(0), 0}},
          .x = x,
          .pages = context_.InOrder(x.dim(0)),
          .phi = mean ? Phi::kMean : nsa_.phi,
          .block = nsa_.block,
          .stride = nsa_.stride,
          .weights = keys ? phis.k : phis.v,
          .y = y};
}

void SingleQuery::Compute(const float* query, const float* keys, const float* values, int64_t length, float* output) {
  const int64_t width = context_.key_width;
  const Weights& weights = context_.weights();
  if (weights.any_phi()) {
    weights.RequirePhi();
    if (nsa_.phi == Phi::kLinear && context_.groups != 1) {
      Refuse(NSA_ERROR_UNSUPPORTED,
             "phi: one query has one group: expected num_groups 1 for the weights of LINEAR, found {}",
             context_.groups);
    }
  }
  const Tensor q = context_.View(query, "query", {1, 1, width}), k = context_.View(keys, "keys", {length, 1, width}),
               v = context_.View(values, "values", {length, 1, width}),
               out = context_.View(output, "output", {1, 1, width});
  const int64_t rows = length / nsa_.stride;
  const Tensor k_cmp = k_cmp_.Rows(0, rows), v_cmp = v_cmp_.Rows(0, rows);

  Branches branches;
  branches.segments = branches.window_segments = {{length - 1, 1, 0}};
  branches.q = q;
  branches.out = out_;
  branches.nsa = nsa_;
  branches.scale = context_.scale;
  const Pages in_order = context_.InOrder(length);
  branches.keys = {KeysValues{k_cmp, v_cmp, {in_order.table.Rows(0, 1), std::max<int64_t>(1, rows)}},
                   {k, v, in_order},
                   {k, v, in_order}};
  if (appended_ > 0) {
    // A softmax does not ask for the order of its keys: all rows of the ring are seen from the last.
    const int64_t held = std::min(appended_, nsa_.window);
    branches.window_segments = {{held - 1, 1, 0}};
    branches.keys[kWin] = {window_k_, window_v_, {in_order.table.Rows(0, 1), nsa_.window}};
  }

  AttentionOps& attention = *context_.ops().attention;
  Stream& stream = context_.stream();
  attention.Compress(stream, Compression(k, k_cmp, true));
  attention.Compress(stream, Compression(v, v_cmp, false));
  context_.RotateSummaries(k_cmp, context_.SummaryPositions(0, rows), false);
  branches.Forward(attention, stream);
  context_.MakeGates(q, logits_, gates_);
  attention.Combine(stream, {gates_, out_.o[kCmp], out_.o[kSlc], out_.o[kWin], out});
}

void SingleQuery::Append(const float* keys, const float* values, int64_t count) {
  const int64_t width = context_.key_width, window = nsa_.window;
  const Tensor k = context_.View(keys, "new_keys", {count, 1, width}),
               v = context_.View(values, "new_values", {count, 1, width});
  for (int64_t i = std::max<int64_t>(0, count - window), run = 0; i < count; i += run) {
    const int64_t row = (appended_ + i) % window;
    run = std::min(count - i, window - row);
    context_.device().Copy(context_.stream(), window_k_.Rows(row, run), k.Rows(i, run));
    context_.device().Copy(context_.stream(), window_v_.Rows(row, run), v.Rows(i, run));
  }
  appended_ += count;
}

}  // namespace longspan
