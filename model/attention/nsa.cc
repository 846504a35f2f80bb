#include "model/attention/nsa.h"

namespace longspan {
namespace {

std::unique_ptr<Exchange> SelectedRowsExchange(const Context& context, SelectedExchange kind) {
  if (kind == SelectedExchange::kFetch) return MakeFetchExchange(context.layout, context.cp, *context.ops.rows);
  return MakeGatherExchange(context.layout, context.cp, 1, context.layout.unit());
}

}  // namespace

NsaCore::NsaCore(const Context& context, const Sizes& sizes, const NsaConfig& nsa, SelectedExchange exchange,
                 double scale)
    : context_(context), sizes_(sizes), nsa_(nsa), scale_(scale) {
  const Layout& layout = context.layout;
  exchange_[kCmp] = MakeHaloExchange(layout, context.cp, *context.ops.dense, nsa.halo());
  exchange_[kSlc] = SelectedRowsExchange(context, exchange);
  exchange_[kWin] = MakeHaloExchange(layout, context.cp, *context.ops.dense, nsa.window - 1);
  if (exchange == SelectedExchange::kFetch) fetch_ = static_cast<FetchExchange*>(exchange_[kSlc].get());
  summaries_ = MakeGatherExchange(layout, context.cp, nsa.stride, layout.chunk());
  ready_ = context.device.MakeEvent();
  summaries_done_ = context.device.MakeEvent();
  for (auto& event : done_) event = context.device.MakeEvent();
}

void NsaCore::Reserve(Arena& arena, const std::string& name, MemoryUse outputs) {
  const auto [heads, groups, key_width, value_width] = sizes_;
  const int64_t tokens = context_.tokens();
  const std::vector<Shape> shapes = {{groups, key_width}, {groups, value_width}};
  const char* branch_names[] = {"cmp", "slc", "win"};
  for (int b = 0; b < 3; ++b) {
    const std::string label = name + "." + branch_names[b];
    const int64_t rows = exchange_[b]->rows();
    exchange_[b]->Reserve(arena, label + ".exchange", context_.dtype, context_.gradient_dtype, shapes);
    arena.Reserve(&k_[b], MemoryUse::kActivations, label + ".k", context_.dtype, {rows, groups, key_width});
    arena.Reserve(&v_[b], MemoryUse::kActivations, label + ".v", context_.dtype, {rows, groups, value_width});
    arena.Reserve(&o_[b], outputs, label + ".o", context_.dtype, {tokens, heads, value_width});
    arena.Reserve(&lse_[b], outputs, label + ".lse", context_.gradient_dtype, {tokens, heads});
  }
  const int64_t rows = summaries_->rows();
  summaries_->Reserve(arena, name + ".summaries.exchange", context_.dtype, context_.gradient_dtype, shapes);
  arena.Reserve(&summary_k_, MemoryUse::kActivations, name + ".summaries.k", context_.dtype, {rows, groups, key_width});
  arena.Reserve(&summary_v_, MemoryUse::kActivations, name + ".summaries.v", context_.dtype,
                {rows, groups, value_width});
  arena.Reserve(&q_, MemoryUse::kActivations, name + ".q", context_.dtype, {tokens, heads, key_width});
  arena.Reserve(&gates_, MemoryUse::kActivations, name + ".gates", context_.dtype, {tokens, heads, 3});
  arena.Reserve(&out_, MemoryUse::kActivations, name + ".out", context_.dtype, {tokens, heads, value_width});
  arena.Reserve(&selected_, outputs, name + ".selected", DType::kI32, {tokens, groups, nsa_.select});
}

void NsaCore::ReserveGradients(Arena& arena, AttentionGradients* gradients) {
  const auto [heads, groups, key_width, value_width] = sizes_;
  const int64_t tokens = context_.tokens();
  const auto reserve = [&](Tensor* slot, const char* name, const Shape& shape) {
    arena.Reserve(slot, MemoryUse::kWorkspace, std::string("backward.") + name, context_.gradient_dtype, shape);
  };
  reserve(&gradients->d_q, "d_q", {tokens, heads, key_width});
  reserve(&gradients->d_gates, "d_gates", {tokens, heads, 3});
  for (int b = 0; b < 3; ++b) {
    reserve(&gradients->d_k[b], "d_k", {exchange_[b]->rows(), groups, key_width});
    reserve(&gradients->d_v[b], "d_v", {exchange_[b]->rows(), groups, value_width});
    arena.Reserve(&gradients->d_o[b], MemoryUse::kWorkspace, "backward.d_o", context_.dtype,
                  {tokens, heads, value_width});
  }
  reserve(&gradients->d_summary_k, "d_summary_k", {summaries_->rows(), groups, key_width});
  reserve(&gradients->d_summary_v, "d_summary_v", {summaries_->rows(), groups, value_width});
}

void NsaCore::Start() {
  for (auto& exchange : exchange_) exchange->Start(context_.device, context_.comm);
  summaries_->Start(context_.device, context_.comm);
  context_.comm.Synchronize();
  const bool rotated = nsa_.compress_rope == CompressRope::kBefore;
  rows_ = {{"cmp", rotated, OwnRows(kCmp, k_[kCmp]), OwnRows(kCmp, v_[kCmp])},
           {"slc", true, OwnRows(kSlc, k_[kSlc]), OwnRows(kSlc, v_[kSlc])},
           {"win", true, OwnRows(kWin, k_[kWin]), OwnRows(kWin, v_[kWin])}};
}

Tensor NsaCore::OwnRows(int branch, const Tensor& rows) const {
  return rows.Rows(exchange_[branch]->own_row(), context_.tokens());
}

Tensor NsaCore::OwnSummaries(const Tensor& rows) const {
  return rows.Rows(summaries_->own_row(), context_.tokens() / nsa_.stride);
}

void NsaCore::CommFollowsCompute() {
  context_.compute.Record(*ready_);
  context_.comm.Wait(*ready_);
}

void NsaCore::Begin(Direction direction, Exchange& exchange, const std::vector<Tensor>& tensors, Event& done) {
  CommFollowsCompute();
  if (direction == Direction::kForward) {
    exchange.Forward(context_.comm, tensors);
  } else {
    exchange.Backward(context_.comm, tensors);
  }
  context_.comm.Record(done);
}

CompressArgs NsaCore::CompressionOf(const Tensor& rows, const PhiWeights& weights, const Tensor& summaries) const {
  return {.segments = context_.segments(),
          .x = rows,
          .pages = exchange_[kCmp]->pages(),
          .phi = nsa_.phi,
          .block = nsa_.block,
          .stride = nsa_.stride,
          .weights = weights,
          .y = OwnSummaries(summaries)};
}

void NsaCore::RotateSummaries(const SequenceInputs& inputs, const Tensor& own, bool inverse) {
  if (!rope_.frequency) return;
  context_.ops.dense->Rope(context_.compute,
                           {own, own, inputs.summary_positions, rope_.frequency, rope_.factor, inverse});
}

void NsaCore::Fill(const SequenceInputs& inputs, int branch, BranchArgs* args) const {
  args->segments = context_.segments();
  args->doc_start = inputs.doc_start;
  args->q = q_;
  args->scale = scale_;
  args->o = o_[branch];
  args->lse = lse_[branch];
  if (branch == kCmp) {
    args->kv = {summary_k_, summary_v_, summaries_->pages()};
  } else {
    args->kv = {k_[branch], v_[branch], exchange_[branch]->pages()};
  }
}

CompressedArgs NsaCore::CompressedBranch(const SequenceInputs& inputs) const {
  CompressedArgs args;
  Fill(inputs, kCmp, &args);
  args.block = nsa_.block;
  args.stride = nsa_.stride;
  return args;
}

SelectedArgs NsaCore::SelectedBranch(const SequenceInputs& inputs) const {
  SelectedArgs args;
  Fill(inputs, kSlc, &args);
  args.select_block = nsa_.select_block;
  args.selected = selected_;
  return args;
}

WindowArgs NsaCore::WindowBranch(const SequenceInputs& inputs) const {
  WindowArgs args;
  Fill(inputs, kWin, &args);
  args.window = nsa_.window;
  return args;
}

void NsaCore::Select(const SequenceInputs& inputs) {
  if (frozen_) {
    context_.ops.rows->Copy(context_.compute, frozen_, selected_);
    return;
  }
  context_.ops.attention->Select(context_.compute, {.segments = context_.segments(),
                                                    .doc_start = inputs.doc_start,
                                                    .q = q_,
                                                    .k = summary_k_,
                                                    .pages = summaries_->pages(),
                                                    .lse = lse_[kCmp],
                                                    .scale = scale_,
                                                    .nsa = nsa_,
                                                    .selected = selected_,
                                                    .scores = {}});
}

// Own summaries, and the exchanges that need nothing else to begin.
void NsaCore::Summarize(const SequenceInputs& inputs) {
  AttentionOps& attention = *context_.ops.attention;
  Begin(Direction::kForward, *exchange_[kCmp], {k_[kCmp], v_[kCmp]}, *done_[kCmp]);
  Begin(Direction::kForward, *exchange_[kWin], {k_[kWin], v_[kWin]}, *done_[kWin]);
  context_.compute.Wait(*done_[kCmp], "stall.compression_halo");
  attention.Compress(context_.compute, CompressionOf(k_[kCmp], phi_.k, summary_k_));
  attention.Compress(context_.compute, CompressionOf(v_[kCmp], phi_.v, summary_v_));
  RotateSummaries(inputs, OwnSummaries(summary_k_), false);
  Begin(Direction::kForward, *summaries_, {summary_k_, summary_v_}, *summaries_done_);
}

void NsaCore::Forward(const SequenceInputs& inputs) {
  restored_ = false;
  AttentionOps& attention = *context_.ops.attention;
  Stream& compute = context_.compute;

  Summarize(inputs);
  if (!fetch_) Begin(Direction::kForward, *exchange_[kSlc], {k_[kSlc], v_[kSlc]}, *done_[kSlc]);

  // The window branch needs only the halo: it hides the gathers, or the fetch when there is one.
  compute.Wait(*done_[kWin], "stall.window_halo");
  if (!fetch_) attention.Window(compute, WindowBranch(inputs));
  compute.Wait(*summaries_done_, "stall.summaries");
  attention.Compressed(compute, CompressedBranch(inputs));
  Select(inputs);
  if (fetch_) {
    // The host waits for the choice, on the communication stream; the device has the window branch meanwhile.
    CommFollowsCompute();
    attention.Window(compute, WindowBranch(inputs));
    fetch_->Choose(context_.comm, selected_);
    fetch_->Forward(context_.comm, {k_[kSlc], v_[kSlc]});
    context_.comm.Record(*done_[kSlc]);
  }
  compute.Wait(*done_[kSlc], "stall.selected");
  attention.Selected(compute, SelectedBranch(inputs));
  attention.Combine(compute, {gates_, o_[kCmp], o_[kSlc], o_[kWin], out_});
}

void NsaCore::Restore(const SequenceInputs& inputs) {
  restored_ = true;
  Summarize(inputs);
  // Who sends what is still what the choice made it. Nothing waits for the rows before the backward.
  Begin(Direction::kForward, *exchange_[kSlc], {k_[kSlc], v_[kSlc]}, *done_[kSlc]);
  context_.ops.attention->Combine(context_.compute, {gates_, o_[kCmp], o_[kSlc], o_[kWin], out_});
}

std::vector<Tensor> NsaCore::kept() const {
  return {o_[kCmp], o_[kSlc], o_[kWin], lse_[kCmp], lse_[kSlc], lse_[kWin], selected_};
}

void NsaCore::Backward(const SequenceInputs& inputs, const Tensor& d_out, const AttentionGradients& gradients) {
  AttentionOps& attention = *context_.ops.attention;
  RowOps& rows = *context_.ops.rows;
  Stream& compute = context_.compute;
  const auto& [d_q, d_k, d_v, d_gates, d_o, d_summary_k, d_summary_v] = gradients;

  attention.CombineBackward(compute, {gates_, o_[kCmp], o_[kSlc], o_[kWin], out_},
                            {d_out, d_gates, d_o[kCmp], d_o[kSlc], d_o[kWin]});
  rows.Zero(compute, d_q);
  for (int b = 0; b < 3; ++b) {
    rows.Zero(compute, d_k[b]);
    rows.Zero(compute, d_v[b]);
  }
  rows.Zero(compute, d_summary_k);
  rows.Zero(compute, d_summary_v);

  for (const Event* done : {done_[kWin].get(), summaries_done_.get(), done_[kSlc].get()}) {
    if (restored_) compute.Wait(*done, "stall.restored_rows");
  }
  // The largest transfer first, hidden by the other two branches.
  attention.SelectedBackward(compute, SelectedBranch(inputs), {d_o[kSlc], d_q, d_k[kSlc], d_v[kSlc]});
  Begin(Direction::kBackward, *exchange_[kSlc], {d_k[kSlc], d_v[kSlc]}, *done_[kSlc]);
  attention.CompressedBackward(compute, CompressedBranch(inputs), {d_o[kCmp], d_q, d_summary_k, d_summary_v});
  Begin(Direction::kBackward, *summaries_, {d_summary_k, d_summary_v}, *summaries_done_);
  attention.WindowBackward(compute, WindowBranch(inputs), {d_o[kWin], d_q, d_k[kWin], d_v[kWin]});
  Begin(Direction::kBackward, *exchange_[kWin], {d_k[kWin], d_v[kWin]}, *done_[kWin]);

  compute.Wait(*summaries_done_, "stall.summary_gradients");
  RotateSummaries(inputs, OwnSummaries(d_summary_k), true);
  attention.CompressBackward(compute, CompressionOf(k_[kCmp], phi_.k, summary_k_),
                             {OwnSummaries(d_summary_k), d_k[kCmp], phi_.d_k});
  attention.CompressBackward(compute, CompressionOf(v_[kCmp], phi_.v, summary_v_),
                             {OwnSummaries(d_summary_v), d_v[kCmp], phi_.d_v});
  Begin(Direction::kBackward, *exchange_[kCmp], {d_k[kCmp], d_v[kCmp]}, *done_[kCmp]);
  for (const auto& done : done_) compute.Wait(*done, "stall.row_gradients");
}

double NsaCore::coverage() const { return fetch_ ? fetch_->coverage() : 1.0; }

}  // namespace longspan
