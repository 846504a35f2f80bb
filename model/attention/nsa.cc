#include "model/attention/nsa.h"

#include <algorithm>
#include <string>

#include "runtime/place.h"

namespace longspan {
namespace {

std::unique_ptr<Exchange> SelectedRowsExchange(const Context& context, SelectedExchange kind) {
  if (kind == SelectedExchange::kGather) {
    return MakeGatherExchange(context.layout, context.cp, 1, context.layout.unit());
  }
  return MakeFetchExchange(context.layout, context.cp, *context.ops.rows);
}

}  // namespace

NsaCore::NsaCore(const Context& context, const Sizes& sizes, const NsaConfig& nsa, SelectedExchange exchange,
                 double scale)
    : context_(context),
      sizes_(sizes),
      nsa_(nsa),
      scale_(scale),
      shared_(nsa.kv_branches == KvBranches::kShared),
      plain_keys_(nsa.compress_rope == CompressRope::kAfter) {
  const Layout& layout = context.layout;
  exchange_[kSlc] = SelectedRowsExchange(context, exchange);
  if (!shared_ || plain_keys_) exchange_[kCmp] = MakeHaloExchange(layout, context.cp, *context.ops.dense, nsa.halo());
  if (shared_) {
    exchange_[kWin] =
        MakeHaloExchange(layout, context.cp, *context.ops.dense, std::max(nsa.window - 1, nsa.halo()),
                         {.own_row = exchange_[kSlc]->own_row(), .borrowed_row = exchange_[kSlc]->rows()});
  } else {
    exchange_[kWin] = MakeHaloExchange(layout, context.cp, *context.ops.dense, nsa.window - 1);
  }
  if (exchange != SelectedExchange::kGather) fetch_ = static_cast<FetchExchange*>(exchange_[kSlc].get());
  gathers_ = exchange == SelectedExchange::kAuto;
  summaries_ = MakeGatherExchange(layout, context.cp, nsa.stride, layout.chunk());
  ready_ = context.device.MakeEvent();
  summaries_done_ = context.device.MakeEvent();
  for (auto& event : done_) event = context.device.MakeEvent();
}

void NsaCore::Reserve(Arena& arena, const std::string& name, MemoryUse outputs) {
  const auto [heads, groups, key_width, value_width] = sizes_;
  const int64_t tokens = context_.tokens();
  const std::vector<Shape> shapes = {{groups, key_width}, {groups, value_width}};
  for (int b = 0; b < 3; ++b) {
    const std::string label = name + "." + kBranchNames[b];
    const bool keys_alone = shared_ && b == kCmp;
    if (exchange_[b]) {
      exchange_[b]->Reserve(arena, label + ".exchange", context_.dtype, context_.gradient_dtype,
                            keys_alone ? std::vector<Shape>{shapes[0]} : shapes);
    }
    arena.Reserve(&o_[b], outputs, label + ".o", context_.dtype, {tokens, heads, value_width});
    arena.Reserve(&lse_[b], outputs, label + ".lse", context_.gradient_dtype, {tokens, heads});
  }
  ReserveRows(buffers_.data(), [&](const std::string& row_name, Tensor* slot, const Shape& shape) {
    arena.Reserve(slot, MemoryUse::kActivations, name + "." + row_name, context_.dtype, shape);
  });
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
  const auto reserve = [&](const std::string& name, Tensor* slot, const Shape& shape) {
    arena.Reserve(slot, MemoryUse::kWorkspace, "backward.d_" + name, context_.gradient_dtype, shape);
  };
  reserve("q", &gradients->d_q, {tokens, heads, key_width});
  reserve("gates", &gradients->d_gates, {tokens, heads, 3});
  ReserveRows(gradients->rows.data(), reserve);
  reserve("summary_k", &gradients->d_summary_k, {summaries_->rows(), groups, key_width});
  reserve("summary_v", &gradients->d_summary_v, {summaries_->rows(), groups, value_width});
}

void NsaCore::ReserveRows(KeyRows* rows, const Reserver& reserve) const {
  const Shape keys{0, sizes_.kv_heads, sizes_.key_width}, values{0, sizes_.kv_heads, sizes_.value_width};
  const auto of = [](Shape shape, const Exchange& exchange) {
    shape[0] = exchange.rows();
    return shape;
  };
  for (int i = 0; i < projections(); ++i) {
    const std::string name = shared_ ? "" : kBranchNames[i] + std::string(".");
    const Exchange& exchange = *exchange_[shared_ ? kWin : i];
    const bool plain = plain_keys_ && i == kCmp;
    if (plain) reserve(name + "k", &rows[i].k, of(keys, *exchange_[kCmp]));
    if (!plain || shared_) reserve(name + "rotated_k", &rows[i].rotated_k, of(keys, exchange));
    reserve(name + "v", &rows[i].v, of(values, exchange));
  }
}

void NsaCore::Start() {
  for (auto& exchange : exchange_) {
    if (exchange) exchange->Start(context_.device, context_.comm);
  }
  if (gathers_) fetch_->GatherAll(context_.comm, true);
  summaries_->Start(context_.device, context_.comm);
  context_.comm.Synchronize();
  for (int i = 0; i < projections(); ++i) own_.push_back(OwnRows(i, buffers_[i]));
}

void NsaCore::SetExchange(SelectedExchange exchange) {
  LS_CHECK(fetch_ && exchange != SelectedExchange::kAuto, "nsa: GATHER or FETCH is set where it was left open");
  gathers_ = exchange == SelectedExchange::kGather;
  fetch_->GatherAll(context_.comm, gathers_);
}

KeyRows NsaCore::OwnRows(int i, const KeyRows& buffers) const {
  const auto own = [this](int branch, const Tensor& x) {
    return x ? x.Rows(exchange_[branch]->own_row(), context_.tokens()) : Tensor();
  };
  const int branch = shared_ ? kWin : i;
  return {own(kCmp, buffers.k), own(branch, buffers.rotated_k), own(branch, buffers.v)};
}

std::vector<Tensor> NsaCore::Travelling(int branch, const KeyRows* rows) const {
  if (!shared_) return {rows[branch].projected_k(), rows[branch].v};
  if (branch == kCmp) return {rows[0].k};
  const int64_t count = exchange_[branch]->rows();
  return {rows[0].rotated_k.Rows(0, count), rows[0].v.Rows(0, count)};
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

void NsaCore::BeginRows(Direction direction, int branch, const KeyRows* rows) {
  const auto stage = InStage(branch == kSlc ? "selected_transfer" : "halo");
  if (exchange_[branch]) Begin(direction, *exchange_[branch], Travelling(branch, rows), *done_[branch]);
}

CompressArgs NsaCore::CompressionOfK() const {
  return {.segments = context_.segments(),
          .x = buffers_[0].projected_k(),
          .pages = exchange_[exchange_[kCmp] ? kCmp : kWin]->pages(),
          .phi = nsa_.phi,
          .block = nsa_.block,
          .stride = nsa_.stride,
          .weights = phi_.k,
          .y = OwnSummaries(summary_k_)};
}

CompressArgs NsaCore::CompressionOfV() const {
  CompressArgs args = CompressionOfK();
  args.x = buffers_[0].v;
  args.pages = exchange_[shared_ ? kWin : kCmp]->pages();
  args.weights = phi_.v;
  args.y = OwnSummaries(summary_v_);
  return args;
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
    const KeyRows& rows = buffers_[shared_ ? 0 : branch];
    args->kv = {rows.rotated_k, rows.v, exchange_[branch]->pages()};
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
  const auto stage = InStage("scoring");
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

void NsaCore::Await(const Event& done, const char* stage, const char* stall) {
  const auto waiting = InStage(stage);
  context_.compute.Wait(done, stall);
}

void NsaCore::LendRows() {
  BeginRows(Direction::kForward, kCmp, buffers_.data());
  BeginRows(Direction::kForward, kWin, buffers_.data());
}

void NsaCore::Summarize(const SequenceInputs& inputs) {
  AttentionOps& attention = *context_.ops.attention;
  Await(*done_[shared_ ? kWin : kCmp], "halo", "stall.compression_halo");  // the last that began of the two
  {
    const auto stage = InStage("compress");
    attention.Compress(context_.compute, CompressionOfK());
    attention.Compress(context_.compute, CompressionOfV());
    RotateSummaries(inputs, OwnSummaries(summary_k_), false);
  }
  const auto stage = InStage("summaries");
  Begin(Direction::kForward, *summaries_, {summary_k_, summary_v_}, *summaries_done_);
}

void NsaCore::Forward(const SequenceInputs& inputs) {
  restored_ = false;
  AttentionOps& attention = *context_.ops.attention;
  Stream& compute = context_.compute;

  Summarize(inputs);
  if (!fetches()) BeginRows(Direction::kForward, kSlc, buffers_.data());

  // The window branch needs only the halo: it hides the gathers, or the fetch when there is one.
  Await(*done_[kWin], "halo", "stall.window_halo");
  const auto window = [&] {
    const auto stage = InStage("window");
    attention.Window(compute, WindowBranch(inputs));
  };
  if (!fetches()) window();
  Await(*summaries_done_, "summaries", "stall.summaries");
  {
    const auto stage = InStage("compressed");
    attention.Compressed(compute, CompressedBranch(inputs));
  }
  Select(inputs);
  if (fetches()) {
    // The host waits for the choice, on the communication stream; the device has the window branch meanwhile.
    CommFollowsCompute();
    window();
    const auto stage = InStage("selected_transfer");
    fetch_->Choose(context_.comm, selected_);
    fetch_->Forward(context_.comm, Travelling(kSlc, buffers_.data()));
    context_.comm.Record(*done_[kSlc]);
  }
  Await(*done_[kSlc], "selected_transfer", "stall.selected");
  {
    const auto stage = InStage("selected");
    attention.Selected(compute, SelectedBranch(inputs));
  }
  Combine();
}

void NsaCore::Combine() {
  const auto stage = InStage("output");
  context_.ops.attention->Combine(context_.compute, {gates_, o_[kCmp], o_[kSlc], o_[kWin], out_});
}

void NsaCore::Restore(const SequenceInputs& inputs) {
  restored_ = true;
  Summarize(inputs);
  // Who sends what is still what the choice made it. Nothing waits for the rows before the backward.
  BeginRows(Direction::kForward, kSlc, buffers_.data());
  Combine();
}

std::vector<Tensor> NsaCore::kept() const {
  return {o_[kCmp], o_[kSlc], o_[kWin], lse_[kCmp], lse_[kSlc], lse_[kWin], selected_};
}

void NsaCore::Backward(const SequenceInputs& inputs, const Tensor& d_out, const AttentionGradients& gradients) {
  AttentionOps& attention = *context_.ops.attention;
  RowOps& row_ops = *context_.ops.rows;
  Stream& compute = context_.compute;
  const auto& [d_q, rows, d_gates, d_summary_k, d_summary_v] = gradients;

  {
    const auto stage = InStage("output");
    attention.CombineBackward(compute, {gates_, o_[kCmp], o_[kSlc], o_[kWin], out_}, {d_out, d_gates});
    for (const auto& [k, rotated_k, v] : rows) {
      for (const Tensor& x : {k, rotated_k, v}) {
        if (x) row_ops.Zero(compute, x);
      }
    }
    row_ops.Zero(compute, d_summary_k);
    row_ops.Zero(compute, d_summary_v);
  }

  if (restored_) {
    Await(*done_[kWin], "halo", "stall.restored_rows");
    Await(*summaries_done_, "summaries", "stall.restored_rows");
    Await(*done_[kSlc], "selected_transfer", "stall.restored_rows");
  }
  const int first = shared_ ? kWin : kSlc;  // of the branches that add to d_q
  const auto of = [&, d_q = d_q, d_gates = d_gates](int branch, const Tensor& d_k, const Tensor& d_v) {
    return BranchGradient{d_out, d_q, d_k, d_v, {gates_, d_gates, branch}, branch == first};
  };
  const auto window = [&, &d_rows = rows[shared_ ? 0 : kWin]] {
    const auto stage = InStage("window");
    attention.WindowBackward(compute, WindowBranch(inputs), of(kWin, d_rows.rotated_k, d_rows.v));
  };
  // The largest transfer as early as may be, hidden by the other branches: SHARED, once the window has added to its
  // rows.
  if (shared_) window();
  {
    const auto stage = InStage("selected");
    const KeyRows& d_selected = rows[shared_ ? 0 : kSlc];
    attention.SelectedBackward(compute, SelectedBranch(inputs), of(kSlc, d_selected.rotated_k, d_selected.v));
  }
  BeginRows(Direction::kBackward, kSlc, rows.data());
  {
    const auto stage = InStage("compressed");
    attention.CompressedBackward(compute, CompressedBranch(inputs), of(kCmp, d_summary_k, d_summary_v));
  }
  {
    const auto stage = InStage("summaries");
    Begin(Direction::kBackward, *summaries_, {d_summary_k, d_summary_v}, *summaries_done_);
  }
  if (!shared_) {
    window();
    BeginRows(Direction::kBackward, kWin, rows.data());
  }
}

void NsaCore::ReturnRows(const SequenceInputs& inputs, const AttentionGradients& gradients) {
  AttentionOps& attention = *context_.ops.attention;
  const auto& rows = gradients.rows;
  // SHARED: and so for those of selected rows, begun before.
  Await(*summaries_done_, "summaries", "stall.summary_gradients");
  {
    const auto stage = InStage("compress");
    const Tensor d_k = OwnSummaries(gradients.d_summary_k), d_v = OwnSummaries(gradients.d_summary_v);
    RotateSummaries(inputs, d_k, true);
    attention.CompressBackward(context_.compute, CompressionOfK(), {d_k, rows[0].projected_k(), phi_.d_k});
    attention.CompressBackward(context_.compute, CompressionOfV(), {d_v, rows[0].v, phi_.d_v});
  }
  BeginRows(Direction::kBackward, kCmp, rows.data());
  if (shared_) BeginRows(Direction::kBackward, kWin, rows.data());
}

void NsaCore::AwaitRows() {
  for (const int branch : {kCmp, kSlc, kWin}) {
    Await(*done_[branch], branch == kSlc ? "selected_transfer" : "halo", "stall.row_gradients");
  }
}

int64_t NsaCore::borrowed_bytes() const {
  int64_t bytes = summaries_->borrowed_bytes();
  for (const auto& exchange : exchange_) bytes += exchange ? exchange->borrowed_bytes() : 0;
  return bytes;
}

}  // namespace longspan
