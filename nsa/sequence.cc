#include "nsa/sequence.h"

#include <algorithm>
#include <vector>

#include "kernels/host_copy.h"
#include "model/inputs.h"
#include "nsa/status.h"

namespace longspan {
namespace {

void CheckTokens(const AttentionContext& context, int64_t tokens) {
  if (tokens < 1) Refuse(NSA_ERROR_INVALID_ARGUMENT, "tokens: expected 1 or more, found {}", tokens);
  if (tokens > context.config.max_length) {
    Refuse(NSA_ERROR_LENGTH, "tokens: expected at most max_length = {}, found {}", context.config.max_length, tokens);
  }
}

SavedSequence CutSaved(const AttentionContext& c, int64_t tokens, Cutter& cutter) {
  const int64_t rows = tokens / c.nsa.stride;
  SavedSequence saved;
  saved.out = CutOutputs(c, tokens, cutter);
  saved.k_cmp = cutter.Cut(c.dtype, {rows, c.groups, c.key_width});
  saved.v_cmp = cutter.Cut(c.dtype, {rows, c.groups, c.value_width});
  saved.gates = cutter.Cut(c.dtype, {tokens, c.heads, 3});
  saved.logits = cutter.Cut(c.dtype, {tokens * c.heads, 3});
  saved.doc_start = cutter.Cut(DType::kI32, {tokens});
  saved.positions = cutter.Cut(DType::kI32, {rows});
  return saved;
}

// What a backward needs besides the saved state.
struct Workspace {
  Tensor d_k_cmp, d_v_cmp;   // [S/d,G,.]
  Tensor d_gates, d_logits;  // [S,H,3], [S*H,3]
};

Workspace CutWorkspace(const AttentionContext& c, int64_t tokens, Cutter& cutter) {
  Workspace work;
  const int64_t rows = tokens / c.nsa.stride;
  work.d_k_cmp = cutter.Cut(c.gradient_dtype, {rows, c.groups, c.key_width});
  work.d_v_cmp = cutter.Cut(c.gradient_dtype, {rows, c.groups, c.value_width});
  work.d_gates = cutter.Cut(c.gradient_dtype, {tokens, c.heads, 3});
  work.d_logits = cutter.Cut(c.dtype, {tokens * c.heads, 3});
  return work;
}

}  // namespace

SequenceCall::SequenceCall(AttentionContext& context, const NSAInputs* inputs, const void* saved)
    : context_(context), tokens_(Required(inputs, "inputs", "an NSAInputs")->tokens) {
  CheckTokens(context, tokens_);
  const int64_t heads = context.heads, groups = context.groups;
  branches_.q = context.View(inputs->q, "q", {tokens_, heads, context.key_width});
  constexpr const char* kNames[] = {"k[0]", "k[1]", "k[2]", "v[0]", "v[1]", "v[2]"};
  for (int branch : {kCmp, kSlc, kWin}) {
    const int from = context.shared ? 0 : branch;
    k_[branch] = context.View(inputs->k[from], kNames[from], {tokens_, groups, context.key_width});
    v_[branch] = context.View(inputs->v[from], kNames[3 + from], {tokens_, groups, context.value_width});
  }
  context.weights().RequirePhi();
  given_gates_ = inputs->gates != nullptr;
  if (!given_gates_) context.weights().has_gates();
  if (inputs->doc_start != nullptr) {
    try {
      ValidateDocStart({inputs->doc_start, static_cast<size_t>(tokens_)}, context.nsa.select_block, "inputs");
    } catch (const Error& error) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}", error.what());
    }
    host_doc_start_ = inputs->doc_start;
  }
  Cutter cutter(AlignedMemory(saved, "saved", "nsa_saved_size bytes of device memory"), context.device().kind());
  saved_ = CutSaved(context, tokens_, cutter);
  const int64_t rows = saved_.k_cmp.dim(0);
  gates_ = given_gates_ ? context.View(inputs->gates, "gates", {tokens_, heads, 3}) : saved_.gates;
  positions_ = host_doc_start_ ? saved_.positions : context.SummaryPositions(0, rows);

  const Pages in_order = context.InOrder(tokens_);
  branches_.segments = branches_.window_segments = {{0, tokens_, 0}};
  branches_.doc_start = host_doc_start_ ? saved_.doc_start : Tensor();
  branches_.out = saved_.out;
  branches_.nsa = context.nsa;
  branches_.scale = context.scale;
  branches_.keys = {KeysValues{saved_.k_cmp, saved_.v_cmp, {in_order.table.Rows(0, 1), std::max<int64_t>(1, rows)}},
                    {k_[kSlc], v_[kSlc], in_order},
                    {k_[kWin], v_[kWin], in_order}};
}

int64_t SequenceCall::SavedBytes(const AttentionContext& context, int64_t tokens) {
  CheckTokens(context, tokens);
  Cutter cutter(nullptr, DeviceKind::kCpu);
  CutSaved(context, tokens, cutter);
  return cutter.bytes();
}

int64_t SequenceCall::WorkspaceBytes(const AttentionContext& context, int64_t tokens) {
  CheckTokens(context, tokens);
  Cutter cutter(nullptr, DeviceKind::kCpu);
  CutWorkspace(context, tokens, cutter);
  return cutter.bytes();
}

Tensor SequenceCall::OutView(const void* out, const char* name) const {
  return context_.View(out, name, {tokens_, context_.heads, context_.value_width});
}

void SequenceCall::UploadDocuments() {
  const auto copy = [this](const int32_t* values, const Tensor& to) {
    HostCopy(context_.device(), context_.stream(), HostView(values, to.shape), to);
  };
  const NsaConfig& nsa = context_.nsa;
  std::vector<int32_t> positions(positions_.size(), 0);
  for (int64_t row = nsa.lead(); row < positions_.size(); ++row) {
    const int64_t first = (row - nsa.lead()) * nsa.stride;
    positions[row] = static_cast<int32_t>(first) - host_doc_start_[first];
  }
  copy(host_doc_start_, saved_.doc_start);
  copy(positions.data(), positions_);
}

CompressArgs SequenceCall::Compression(bool keys) const {
  return {.segments = branches_.segments,
          .x = keys ? k_[kCmp] : v_[kCmp],
          .pages = context_.InOrder(tokens_),
          .phi = context_.nsa.phi,
          .block = context_.nsa.block,
          .stride = context_.nsa.stride,
          .weights = keys ? context_.weights().values().k : context_.weights().values().v,
          .y = keys ? saved_.k_cmp : saved_.v_cmp};
}

CombineArgs SequenceCall::Combination(const Tensor& out) const {
  return {gates_, saved_.out.o[kCmp], saved_.out.o[kSlc], saved_.out.o[kWin], out};
}

void SequenceCall::Forward(const Tensor& out, const Tensor& selected) {
  AttentionOps& attention = *context_.ops().attention;
  Stream& stream = context_.stream();
  if (host_doc_start_ != nullptr) UploadDocuments();
  attention.Compress(stream, Compression(true));
  attention.Compress(stream, Compression(false));
  context_.RotateSummaries(saved_.k_cmp, positions_, false);
  branches_.Forward(attention, stream);
  if (!given_gates_) context_.MakeGates(branches_.q, saved_.logits, gates_);
  attention.Combine(stream, Combination(out));
  if (selected) context_.ops().rows->Copy(stream, saved_.out.selected, selected);
}

SequenceCall::Gradients SequenceCall::Views(const NSAGradients& g) const {
  const auto view = [this](void* data, const char* name, const Shape& shape) {
    return data ? context_.View(data, name, context_.gradient_dtype, shape) : Tensor();
  };
  Gradients views;
  views.q = view(g.d_q, "d_q", branches_.q.shape);
  views.gates = view(g.d_gates, "d_gates", {tokens_, context_.heads, 3});
  for (int branch : {kCmp, kSlc, kWin}) {
    const int to = context_.shared ? 0 : branch;
    views.k[branch] = view(g.d_k[to], "d_k", k_[branch].shape);
    views.v[branch] = view(g.d_v[to], "d_v", v_[branch].shape);
  }
  return views;
}

void SequenceCall::Backward(const Tensor& d_out, const NSAGradients& wanted, const void* workspace) {
  AttentionOps& attention = *context_.ops().attention;
  RowOps& rows = *context_.ops().rows;
  Stream& stream = context_.stream();
  const Gradients d = Views(wanted);
  Cutter cutter(workspace, context_.device().kind());
  const Workspace work = CutWorkspace(context_, tokens_, cutter);
  const Tensor d_gates = given_gates_ && d.gates ? d.gates : work.d_gates;

  attention.CombineBackward(stream, Combination({}), {d_out, d_gates});
  std::vector<Tensor> sums = {work.d_k_cmp, work.d_v_cmp};
  for (int branch = 0; branch < (context_.shared ? 1 : 3); ++branch) {
    sums.push_back(d.k[branch]);
    sums.push_back(d.v[branch]);
  }
  for (const Tensor& sum : sums) {
    if (sum) rows.Zero(stream, sum);
  }
  // The window's comes first and overwrites d_q.
  const auto of = [&](int branch, const Tensor& d_k, const Tensor& d_v) {
    return BranchGradient{d_out, d.q, d_k, d_v, {gates_, d_gates, branch}, branch == kWin};
  };
  attention.WindowBackward(stream, branches_.Window(), of(kWin, d.k[kWin], d.v[kWin]));
  attention.SelectedBackward(stream, branches_.Selected(), of(kSlc, d.k[kSlc], d.v[kSlc]));
  attention.CompressedBackward(stream, branches_.Compressed(), of(kCmp, work.d_k_cmp, work.d_v_cmp));
  context_.RotateSummaries(work.d_k_cmp, positions_, true);
  const Weights::Phis d_phi = context_.weights().gradients();
  attention.CompressBackward(stream, Compression(true), {work.d_k_cmp, d.k[kCmp], d_phi.k});
  attention.CompressBackward(stream, Compression(false), {work.d_v_cmp, d.v[kCmp], d_phi.v});
  if (!given_gates_ && context_.weights().has_gates()) GatesBackward(d_gates, work.d_logits, d.q);
}

void SequenceCall::GatesBackward(const Tensor& d_gates, const Tensor& d_logits, const Tensor& d_q) {
  DenseOps& dense = *context_.ops().dense;
  Stream& stream = context_.stream();
  const Weights::Weight &weight = context_.weights().gate_weight(), &bias = context_.weights().gate_bias();
  const auto flat = [&](const Tensor& x, int64_t width) { return x.Reshape({tokens_ * context_.heads, width}); };
  dense.GateBackward(stream, {saved_.logits, bias.value, flat(gates_, 3)}, {flat(d_gates, 3), d_logits, bias.gradient});
  if (weight.gradient) {
    dense.MatMul(stream, {.a = flat(branches_.q, context_.key_width),
                          .b = d_logits,
                          .c = weight.gradient,
                          .transpose_a = true,
                          .accumulate = true});
  }
  if (d_q) {
    dense.MatMul(stream, {.a = d_logits,
                          .b = weight.value,
                          .c = flat(d_q, context_.key_width),
                          .transpose_b = true,
                          .accumulate = true});
  }
}

}  // namespace longspan
