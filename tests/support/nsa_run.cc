#include "tests/support/nsa_run.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace longspan::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

NsaOperator::NsaOperator(const Machine& machine, const NsaCase& c, const Placement& placement)
    : machine_(machine), case_(c) {
  PlaceRows(placement);
  const int64_t T = queries_.count, H = c.heads, G = c.groups, V = c.value_width, N = c.nsa.select;
  in_ = UploadInputs();
  d_out_ = Scatter("d_out", c.d_out, queries_, H, V);
  if (!c.doc_start.empty()) doc_start_ = Upload(machine_, "doc_start", c.doc_start, {c.tokens});
  if (c.rotates()) {
    std::vector<int32_t> positions(summaries_.count, 0);
    for (int64_t j = 0; j < c.compressed(); ++j) {
      const int64_t start = j * c.nsa.stride;
      positions[summaries_.at[j + c.nsa.lead()]] = static_cast<int32_t>(start - c.DocStart(start));
    }
    positions_ = Upload(machine_, "positions", positions, {summaries_.count});
    frequency_ = UploadF64(machine_, "frequency", MakeRopeTable({.theta = c.rope_theta}, c.key_width).frequency,
                           {c.key_width / 2});
  }
  k_cmp_ = Make("k_cmp", {summaries_.count, G, c.key_width});
  v_cmp_ = Make("v_cmp", {summaries_.count, G, V});
  selected_ = OwnedTensor(machine_, "selected", DType::kI32, {T, G, N});
  scores_ = Make("scores", {T, G, N});
  out_ = Make("out", {T, H, V});
  for (int branch : {kCmp, kSlc, kWin}) {
    o_[branch] = Make("o", {T, H, V});
    lse_[branch] = Make("lse", {T, H});
  }
}

void NsaOperator::PlaceRows(const Placement& placement) {
  const int64_t S = case_.tokens, d = case_.nsa.stride;
  query_segments_ = placement.segments.empty() ? std::vector<Segment>{{0, S, 0}} : placement.segments;
  queries_.at.assign(S, -1);
  for (const Segment& segment : query_segments_) {
    for (int64_t i = 0; i < segment.length; ++i) queries_.at[segment.begin + i] = segment.row + i;
    queries_.count = std::max(queries_.count, segment.row + segment.length);
  }
  page_tokens_ = placement.page_tokens == 0 ? S : placement.page_tokens;
  // One page need not be a whole number of summaries: the rest of the tokens are in none.
  page_summaries_ = std::max<int64_t>(1, page_tokens_ / d);
  std::vector<int32_t> table = placement.table.empty() ? std::vector<int32_t>{0} : placement.table;
  for (int64_t begin = 0; begin < S; begin += page_tokens_) {
    const int64_t slot = table[begin / page_tokens_], length = std::min(page_tokens_, S - begin);
    key_segments_.push_back({begin, length, slot * page_tokens_});
    for (int64_t i = 0; i < length; ++i) keys_.at.push_back(slot * page_tokens_ + i);
    for (int64_t i = 0; i < length / d; ++i) summaries_.at.push_back(slot * page_summaries_ + i);
  }
  for (RowMap* rows : {&keys_, &summaries_}) {
    for (int64_t row : rows->at) rows->count = std::max(rows->count, row + 1);
  }
  const auto pages = static_cast<int64_t>(table.size());
  table_ = Upload(machine_, "page table", table, {pages});
}

NsaOperator::Tensors NsaOperator::UploadInputs() {
  const NsaCase& c = case_;
  Tensors in;
  in.q = Scatter("q", c.in.q, queries_, c.heads, c.key_width);
  in.gates = Scatter("gates", c.in.gates, queries_, c.heads, 3);
  for (int branch = 0; branch <= Slot(kWin); ++branch) {
    in.k[branch] = Scatter("k", c.in.k[branch], keys_, c.groups, c.key_width);
    in.v[branch] = Scatter("v", c.in.v[branch], keys_, c.groups, c.value_width);
  }
  auto upload_phi = [&](const PhiArrays& phi, int64_t width) {
    PhiTensors tensors;
    ForPhi(c.SizesOfPhi(width),
           [&](size_t i, const Shape& shape) { tensors[i] = Upload(machine_, kPhiNames[i], phi[i], shape); });
    return tensors;
  };
  in.phi_k = upload_phi(c.in.phi_k, c.key_width);
  in.phi_v = upload_phi(c.in.phi_v, c.value_width);
  return in;
}

void NsaOperator::StartGradients(double value) {
  auto like = [&](const OwnedTensor& input) {
    return input.view() ? Filled("gradient", input.view().shape, value) : OwnedTensor();
  };
  auto like_phi = [&](const PhiTensors& phi) {
    PhiTensors gradients;
    for (size_t i = 0; i < phi.kSize; ++i) gradients[i] = like(phi[i]);
    return gradients;
  };
  gradient_.q = like(in_.q);
  gradient_.gates = Make("d_gates", in_.gates.view().shape);  // overwritten, not accumulated
  for (int branch : {kCmp, kSlc, kWin}) {
    gradient_.k[branch] = like(in_.k[branch]);
    gradient_.v[branch] = like(in_.v[branch]);
  }
  gradient_.phi_k = like_phi(in_.phi_k);
  gradient_.phi_v = like_phi(in_.phi_v);
  d_k_cmp_ = Filled("d_k_cmp", k_cmp_.view().shape, 0);
  d_v_cmp_ = Filled("d_v_cmp", v_cmp_.view().shape, 0);
}

void NsaOperator::Forward(const std::vector<int32_t>* selected) {
  AttentionOps& attention = *machine_.ops->attention;
  Stream& stream = *machine_.stream;
  const int64_t G = case_.groups, N = case_.nsa.select;
  attention.Compress(stream, Compression(true));
  attention.Compress(stream, Compression(false));
  if (case_.rotates()) RotateSummaries(k_cmp_.view(), false);
  attention.Compressed(stream, CompressedBranch());
  frozen_ = selected != nullptr;
  if (frozen_) {
    std::vector<int32_t> local(queries_.count * G * N, -1);
    for (int64_t t = 0; t < case_.tokens; ++t) {
      if (queries_.at[t] < 0) continue;
      std::copy_n(selected->begin() + t * G * N, G * N, local.begin() + queries_.at[t] * G * N);
    }
    selected_ = Upload(machine_, "selected", local, {queries_.count, G, N});
  } else {
    SelectArgs args;
    args.segments = query_segments_;
    args.doc_start = doc_start_.view();
    args.q = in_.q.view();
    args.k = k_cmp_.view();
    args.pages = {table_.view(), page_summaries_};
    args.lse = lse_[kCmp].view();
    args.scale = case_.scale;
    args.nsa = case_.nsa;
    args.selected = selected_.view();
    args.scores = scores_.view();
    attention.Select(stream, args);
  }
  attention.Selected(stream, SelectedBranch());
  attention.Window(stream, WindowBranch());
  attention.Combine(stream, Combination());
  stream.Synchronize();
}

void NsaOperator::Backward() {
  AttentionOps& attention = *machine_.ops->attention;
  Stream& stream = *machine_.stream;
  auto gate_of = [&](int branch) { return BranchGate{in_.gates.view(), gradient_.gates.view(), branch}; };
  auto gradient_of = [&](int branch) {
    const int slot = Slot(branch);
    return BranchGradient{d_out_.view(), gradient_.q.view(), gradient_.k[slot].view(), gradient_.v[slot].view(),
                          gate_of(branch)};
  };
  attention.CombineBackward(stream, Combination(), {d_out_.view(), gradient_.gates.view()});
  attention.WindowBackward(stream, WindowBranch(), gradient_of(kWin));
  attention.SelectedBackward(stream, SelectedBranch(), gradient_of(kSlc));
  attention.CompressedBackward(stream, CompressedBranch(),
                               {d_out_.view(), gradient_.q.view(), d_k_cmp_.view(), d_v_cmp_.view(), gate_of(kCmp)});
  if (case_.rotates()) RotateSummaries(d_k_cmp_.view(), true);
  attention.CompressBackward(stream, Compression(true),
                             {d_k_cmp_.view(), gradient_.k[kCmp].view(), Views(gradient_.phi_k)});
  attention.CompressBackward(stream, Compression(false),
                             {d_v_cmp_.view(), gradient_.v[kCmp].view(), Views(gradient_.phi_v)});
  stream.Synchronize();
}

NsaOutputs NsaOperator::Outputs() const {
  NsaOutputs y;
  y.out = Gather(out_, queries_, kNan);
  for (int branch : {kCmp, kSlc, kWin}) {
    y.o[branch] = Gather(o_[branch], queries_, kNan);
    y.lse[branch] = Gather(lse_[branch], queries_, kNan);
  }
  y.k_cmp = Gather(k_cmp_, summaries_, kNan);
  y.v_cmp = Gather(v_cmp_, summaries_, kNan);
  if (!frozen_) y.scores = Gather(scores_, queries_, kNan);
  const std::vector<int32_t> local = DownloadInts(machine_, selected_.view());
  const int64_t width = case_.groups * case_.nsa.select;
  y.selected.assign(case_.tokens * width, -2);
  for (int64_t t = 0; t < case_.tokens; ++t) {
    if (queries_.at[t] < 0) continue;
    std::copy_n(local.begin() + queries_.at[t] * width, width, y.selected.begin() + t * width);
  }
  return y;
}

NsaArrays NsaOperator::Gradients() const {
  NsaArrays y;
  y.q = Gather(gradient_.q, queries_, 0);
  y.gates = Gather(gradient_.gates, queries_, 0);
  for (int branch = 0; branch <= Slot(kWin); ++branch) {
    y.k[branch] = Gather(gradient_.k[branch], keys_, 0);
    y.v[branch] = Gather(gradient_.v[branch], keys_, 0);
  }
  auto download = [&](const OwnedTensor& x) { return x.view() ? Download(machine_, x.view()) : Array(); };
  auto download_phi = [&](const PhiTensors& phi) {
    PhiArrays arrays;
    for (size_t i = 0; i < phi.kSize; ++i) arrays[i] = download(phi[i]);
    return arrays;
  };
  y.phi_k = download_phi(gradient_.phi_k);
  y.phi_v = download_phi(gradient_.phi_v);
  return y;
}

CompressArgs NsaOperator::Compression(bool key) const {
  CompressArgs args;
  args.segments = key_segments_;
  args.x = (key ? in_.k : in_.v)[kCmp].view();
  args.pages = {table_.view(), page_tokens_};
  args.phi = case_.nsa.phi;
  args.block = case_.nsa.block;
  args.stride = case_.nsa.stride;
  args.weights = Views(key ? in_.phi_k : in_.phi_v);
  args.y = (key ? k_cmp_ : v_cmp_).view();
  return args;
}

BranchArgs NsaOperator::BranchOf(int branch) const {
  BranchArgs args;
  args.segments = query_segments_;
  args.doc_start = doc_start_.view();
  args.q = in_.q.view();
  args.kv = {in_.k[Slot(branch)].view(), in_.v[Slot(branch)].view(), {table_.view(), page_tokens_}};
  args.scale = case_.scale;
  args.o = o_[branch].view();
  args.lse = lse_[branch].view();
  return args;
}

CompressedArgs NsaOperator::CompressedBranch() const {
  CompressedArgs args{BranchOf(kCmp), case_.nsa.block, case_.nsa.stride};
  args.kv = {k_cmp_.view(), v_cmp_.view(), {table_.view(), page_summaries_}};
  return args;
}

SelectedArgs NsaOperator::SelectedBranch() const { return {BranchOf(kSlc), case_.nsa.select_block, selected_.view()}; }

WindowArgs NsaOperator::WindowBranch() const { return {BranchOf(kWin), case_.nsa.window}; }

CombineArgs NsaOperator::Combination() const {
  return {in_.gates.view(), o_[kCmp].view(), o_[kSlc].view(), o_[kWin].view(), out_.view()};
}

void NsaOperator::RotateSummaries(const Tensor& x, bool inverse) const {
  machine_.ops->dense->Rope(*machine_.stream, {x, x, positions_.view(), frequency_.view(), 1, inverse});
}

OwnedTensor NsaOperator::Make(const std::string& name, const Shape& shape) const {
  return OwnedTensor(machine_, name, machine_.dtype, shape);
}

OwnedTensor NsaOperator::Filled(const std::string& name, const Shape& shape, double value) const {
  return Upload(machine_, name, Array(shape.count(), value), shape);
}

OwnedTensor NsaOperator::Scatter(const std::string& name, const Array& values, const RowMap& rows, int64_t heads,
                                 int64_t width) const {
  const int64_t row = heads * width;
  Array local(rows.count * row, kNan);
  for (size_t i = 0; i < rows.at.size(); ++i) {
    if (rows.at[i] >= 0) std::copy_n(values.begin() + i * row, row, local.begin() + rows.at[i] * row);
  }
  return Upload(machine_, name, local, {rows.count, heads, width});
}

Array NsaOperator::Gather(const OwnedTensor& tensor, const RowMap& rows, double missing) const {
  const Array local = Download(machine_, tensor.view());
  const int64_t row = rows.count == 0 ? 0 : tensor.view().size() / rows.count;
  Array values(rows.at.size() * row, missing);
  for (size_t i = 0; i < rows.at.size(); ++i) {
    if (rows.at[i] >= 0) std::copy_n(local.begin() + rows.at[i] * row, row, values.begin() + i * row);
  }
  return values;
}

NsaOutputs RunForward(const Machine& machine, const NsaCase& c, const std::vector<int32_t>* selected) {
  NsaOperator nsa(machine, c);
  nsa.Forward(selected);
  return nsa.Outputs();
}

NsaResult RunBoth(const Machine& machine, const NsaCase& c, const std::vector<int32_t>* selected,
                  const Placement& placement) {
  NsaOperator nsa(machine, c, placement);
  nsa.Forward(selected);
  nsa.StartGradients();
  nsa.Backward();
  return {nsa.Outputs(), nsa.Gradients()};
}

}  // namespace longspan::test
