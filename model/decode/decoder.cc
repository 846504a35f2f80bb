#include "model/decode/decoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/host_copy.h"
#include "parallel/comm/local_comm.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

Tensor Flat(const Tensor& x) { return x.Reshape({x.dim(0), x.size() / x.dim(0)}); }

}  // namespace

Decoder::Decoder(Device& device, const Args& args)
    : device_(device),
      args_(args),
      step_(device.kind() == DeviceKind::kGpu ? std::clamp(args.length / 16, kMostTakenBack, kGpuStep)
                                              : kMostTakenBack),
      pages_(CeilDiv(args.length, args.model.nsa.select_block)),
      logit_rows_(std::max<int64_t>(args.sequences, 64)),
      ops_(MakeOps(device.kind())),
      compute_(device.MakeStream("compute")),
      alone_(MakeLocalCommunicator(device)),
      layout_(LayoutKind::kContiguous, args.model.nsa.select_block, 1, args.model.nsa.select_block),
      kernels_(ops_.decode.get(), {.sizes = {args.dtype, args.model.heads, args.model.kv_heads, args.model.key_width,
                                             args.model.value_width, args.model.nsa},
                                   .entries = args.sequences,
                                   .queries = step_,
                                   .max_tokens = args.length}),
      lengths_(args.sequences, 0),
      written_(args.sequences, 0) {
  context_.emplace(Context{device, ops_, *compute_, *compute_, *alone_, layout_, args.dtype, args.dtype});
  network_ = std::make_unique<Transformer>(*context_, args.model, SelectedExchange::kGather, KeepConfig{});
  network_->params().ReserveWeights(arena_, args.dtype);
  const ModelConfig& model = args_.model;
  const bool shared = model.nsa.kv_branches == KvBranches::kShared;
  for (int64_t i = 0; i < model.layers; ++i) {
    Layer& layer = layers_.emplace_back();
    layer.kind = model.AttentionOf(i);
    layer.cache = std::make_unique<KvCache>(
        KvCache::Args{.kind = layer.kind,
                      .nsa = model.nsa,
                      .own_compression = !shared || model.nsa.compress_rope == CompressRope::kAfter,
                      .own_window = !shared,
                      .groups = model.kv_heads,
                      .key_width = model.key_width,
                      .value_width = model.value_width,
                      .dtype = args.dtype,
                      .sequences = args.sequences,
                      .pages = args.sequences * pages_,
                      .sequence_pages = pages_,
                      .step = step_});
    layer.cache->Reserve(arena_, fmt::format("layers.{}", i));
  }
  ReserveStep();
}

void Decoder::ReserveStep() {
  const ModelConfig& m = args_.model;
  const auto reserve = [&](Tensor* slot, const char* name, DType dtype, const Shape& shape) {
    arena_.Reserve(slot, MemoryUse::kWorkspace, name, dtype, shape);
  };
  const auto rows = [&](Tensor* slot, const char* name, std::initializer_list<int64_t> row) {
    std::vector<int64_t> shape = {step_};
    shape.insert(shape.end(), row.begin(), row.end());
    reserve(slot, name, args_.dtype, Shape(shape));
  };
  reserve(&rope_.frequency, "rope.frequency", DType::kF64, {m.key_width / 2});
  reserve(&summary_positions_, "summary_positions", DType::kI32, {pages_ * (m.nsa.select_block / m.nsa.stride)});
  reserve(&table_, "table", DType::kI32, {args_.sequences, pages_});
  reserve(&whole_, "whole", DType::kI32, {args_.sequences});
  reserve(&tokens_, "tokens", DType::kI32, {step_});
  reserve(&positions_, "positions", DType::kI32, {step_});
  reserve(&last_, "last", DType::kI32, {logit_rows_});
  for (auto [slot, name] : {std::pair{&x_, "x"}, {&middle_, "middle"}, {&normed_, "normed"}}) {
    rows(slot, name, {m.hidden});
  }
  rows(&q_, "q", {m.heads, m.key_width});
  rows(&k_, "k", {m.kv_heads, m.key_width});
  rows(&rotated_k_, "rotated_k", {m.kv_heads, m.key_width});
  rows(&v_, "v", {m.kv_heads, m.value_width});
  rows(&out_, "out", {m.heads, m.value_width});
  rows(&gate_logits_, "gate_logits", {3 * m.heads});
  rows(&gates_, "gates", {m.heads, 3});
  const DType statistics = args_.dtype == DType::kBf16 ? DType::kF32 : args_.dtype;
  for (const int branch : {kCmp, kSlc, kWin}) {
    rows(&branch_.o[branch], "branch.o", {m.heads, m.value_width});
    reserve(&branch_.lse[branch], "branch.lse", statistics, {step_, m.heads});
  }
  reserve(&branch_.selected, "selected", DType::kI32, {step_, m.kv_heads, m.nsa.select});
  for (auto [slot, name] : {std::pair{&ffn_gate_, "ffn.gate"}, {&ffn_up_, "ffn.up"}, {&ffn_act_, "ffn.act"}}) {
    rows(slot, name, {m.ffn});
  }
  kernels_.Reserve(arena_);
  reserve(&last_x_, "last_x", args_.dtype, {logit_rows_, m.hidden});
  reserve(&logits_, "logits", args_.dtype, {logit_rows_, m.vocab});
}

void Decoder::Start() {
  arena_.Commit(device_);
  network_->params().Bind();
  BindLayers();
  const ModelConfig& model = args_.model;
  const RopeTable rope = MakeRopeTable(model.rope, model.key_width);
  rope_.factor = rope.factor;
  std::vector<int32_t> table(table_.size()), positions(summary_positions_.size());
  std::iota(table.begin(), table.end(), 0);
  const std::span whole(table.data(), whole_.size());  // a sequence is a page, too: longer ones are read faster
  for (int64_t row = model.nsa.lead(); row < std::ssize(positions); ++row) {
    positions[row] = static_cast<int32_t>((row - model.nsa.lead()) * model.nsa.stride);
  }
  HostCopy(device_, *compute_, HostView(rope.frequency.data(), rope_.frequency.shape), rope_.frequency);
  HostCopy(device_, *compute_, HostView(table.data(), table_.shape), table_);
  HostCopy(device_, *compute_, HostView(whole.data(), whole_.shape), whole_);
  HostCopy(device_, *compute_, HostView(positions.data(), summary_positions_.shape), summary_positions_);
  for (Layer& layer : layers_) layer.cache->Start(device_, *ops_.rows, *compute_);
}

void Decoder::BindLayers() {
  const ModelConfig& model = args_.model;
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    const auto weight = [&](const std::string& name) {
      return network_->params().Find(fmt::format("layers.{}.{}.weight", i, name)).weight;
    };
    const auto projection = [&](const std::string& name, bool norm) {
      return Projection{weight("attention." + name), norm ? weight("attention." + name + "_norm") : Tensor()};
    };
    layer.attention_norm = weight("attention_norm");
    layer.ffn_norm = weight("ffn_norm");
    layer.q = projection("q", model.qk_norm);
    layer.o = weight("attention.o");
    const bool sparse = layer.kind == AttentionKind::kNsa;
    const bool separate = sparse && model.nsa.kv_branches == KvBranches::kSeparate;
    for (const char* suffix : separate ? std::vector{"_cmp", "_slc", "_win"} : std::vector{""}) {
      layer.k.push_back(projection(std::string("k") + suffix, model.qk_norm));
      layer.v.push_back(projection(std::string("v") + suffix, false));
    }
    layer.ffn_gate = weight("ffn.gate");
    layer.ffn_up = weight("ffn.up");
    layer.ffn_down = weight("ffn.down");
    if (!sparse) continue;
    const auto of_attention = [&](const std::string& name) {
      return network_->params().Find(fmt::format("layers.{}.attention.{}", i, name)).weight;
    };
    layer.gate = of_attention("gate.weight");
    layer.gate_bias = of_attention("gate.bias");
    const auto bind = [&](const char* name, int64_t width, PhiWeights* phi) {
      ForPhi({model.nsa.phi, model.kv_heads, model.nsa.block, width, 1},
             [&](size_t j, const Shape&) { (*phi)[j] = of_attention(fmt::format("{}.{}", name, kPhiNames[j])); });
    };
    bind("phi_k", model.key_width, &layer.phi_k);
    bind("phi_v", model.value_width, &layer.phi_v);
  }
}

std::vector<std::vector<float>> Decoder::Append(std::span<const Entry> entries) {
  std::vector<std::vector<float>> logits(entries.size());
  std::vector<int64_t> taken(entries.size(), 0);
  for (const Entry& entry : entries) {
    LS_CHECK(!entry.tokens.empty() && lengths_[entry.sequence] + std::ssize(entry.tokens) <= args_.length,
             "decoder: sequence {} has {} tokens, {} more of at most {}", entry.sequence, lengths_[entry.sequence],
             entry.tokens.size(), args_.length);
  }
  for (size_t first = 0; first < entries.size();) {
    std::vector<NewTokens> round;
    std::vector<int32_t> tokens, positions, wanted;  // rows whose logits are
    std::vector<size_t> wanted_by;                   // which entry
    for (size_t i = first; i < entries.size() && std::ssize(tokens) < step_; ++i) {
      const auto& [sequence, all, every] = entries[i];
      const int64_t count = std::min(step_ - std::ssize(tokens), std::ssize(all) - taken[i]);
      NewTokens next{sequence, lengths_[sequence], count, std::ssize(tokens), {}};
      next.table = whole_.Rows(sequence, 1);
      next.page_blocks = pages_;
      for (int64_t t = 0; t < count; ++t) {
        if (every || taken[i] + t == std::ssize(all) - 1) {
          wanted.push_back(static_cast<int32_t>(tokens.size()));
          wanted_by.push_back(i);
        }
        tokens.push_back(all[taken[i] + t]);
        positions.push_back(static_cast<int32_t>(next.length + t));
      }
      round.push_back(next);
      lengths_[sequence] += count;
      written_[sequence] = std::max(written_[sequence], lengths_[sequence]);
      taken[i] += count;
      if (taken[i] < std::ssize(all)) break;
      first = i + 1;
    }
    const auto rows = std::ssize(tokens);
    HostCopy(device_, *compute_, HostView(tokens.data(), {rows}), tokens_.Rows(0, rows));
    HostCopy(device_, *compute_, HostView(positions.data(), {rows}), positions_.Rows(0, rows));
    together_ = kernels_.Serves(round);
    if (together_) kernels_.Begin(*compute_, round, table_, false);
    const bool sparse = std::ranges::all_of(layers_, [](const Layer& x) { return x.kind == AttentionKind::kNsa; });
    std::vector<float> found;
    if (together_ && sparse && std::ssize(wanted) <= logit_rows_) {
      found = RunInGraph(round, rows, wanted);
    } else {
      Run(round, rows);
      found = Logits(wanted);
    }
    const int64_t vocab = args_.model.vocab;
    for (size_t i = 0; i < wanted.size(); ++i) {
      const auto row = found.begin() + static_cast<int64_t>(i) * vocab;
      logits[wanted_by[i]].insert(logits[wanted_by[i]].end(), row, row + vocab);
    }
  }
  return logits;
}

void Decoder::TakeBack(int64_t sequence, int64_t length) {
  LS_CHECK(length >= least(sequence) && length <= lengths_[sequence],
           "decoder: sequence {} has {} tokens: expected {} to so many, found {}", sequence, lengths_[sequence],
           least(sequence), length);
  lengths_[sequence] = length;
}

void Decoder::MatMul(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& add) {
  ops_.dense->MatMul(*compute_, {.a = Flat(a), .b = b, .c = Flat(c), .add = add});
}

void Decoder::Project(const Projection& projection, const Tensor& y) {
  MatMul(normed_.Rows(0, y.dim(0)), projection.weight, y);
  if (projection.norm) ops_.dense->RmsNorm(*compute_, {y, projection.norm, args_.model.norm_eps, y});
}

void Decoder::Rotate(const Tensor& from, const Tensor& to, const Tensor& positions) {
  ops_.dense->Rope(*compute_, {from, to, positions, rope_.frequency, rope_.factor});
}

void Decoder::Run(const std::vector<NewTokens>& round, int64_t rows) {
  DenseOps& dense = *ops_.dense;
  const Tensor x = x_.Rows(0, rows), middle = middle_.Rows(0, rows), normed = normed_.Rows(0, rows);
  const Tensor gate = ffn_gate_.Rows(0, rows), up = ffn_up_.Rows(0, rows), act = ffn_act_.Rows(0, rows);
  const double eps = args_.model.norm_eps;
  dense.Embedding(*compute_, {tokens_.Rows(0, rows), params().Find("embedding.weight").weight, x});
  for (Layer& layer : layers_) {
    dense.RmsNorm(*compute_, {x, layer.attention_norm, eps, normed});
    Attend(layer, round, rows);
    MatMul(out_.Rows(0, rows), layer.o, middle, x);
    dense.RmsNorm(*compute_, {middle, layer.ffn_norm, eps, normed});
    MatMul(normed, layer.ffn_gate, gate);
    MatMul(normed, layer.ffn_up, up);
    dense.SwiGlu(*compute_, {gate, up, act});
    MatMul(act, layer.ffn_down, x, middle);
  }
}

void Decoder::Attend(Layer& layer, const std::vector<NewTokens>& round, int64_t rows) {
  const ModelConfig& model = args_.model;
  AttentionOps& attention = *ops_.attention;
  const Tensor q = q_.Rows(0, rows), k = k_.Rows(0, rows), rotated_k = rotated_k_.Rows(0, rows), v = v_.Rows(0, rows),
               positions = positions_.Rows(0, rows);
  const bool sparse = layer.kind == AttentionKind::kNsa;
  const bool plain = model.nsa.compress_rope == CompressRope::kAfter;  // compression reads keys before their rotation
  Project(layer.q, q);
  Rotate(q, q, positions);
  for (size_t i = 0; i < layer.k.size(); ++i) {
    const int branch = static_cast<int>(i);
    Project(layer.k[i], k);
    Project(layer.v[i], v);
    Rotate(k, rotated_k, positions);
    if (!sparse) {
      AppendKeys(layer, round, kWin, rotated_k, v);
    } else if (layer.k.size() > 1) {
      AppendKeys(layer, round, branch, branch == kCmp && plain ? k : rotated_k, v);
    } else {
      AppendKeys(layer, round, kSlc, rotated_k, v);
      if (plain) AppendKeys(layer, round, kCmp, k, v);
    }
  }

  const double scale = 1 / std::sqrt(static_cast<double>(model.key_width));
  if (!sparse) {
    for (const NewTokens& tokens : round) {
      WindowArgs args;
      args.segments = {tokens.segment()};
      args.q = q;
      args.kv = layer.cache->Raw(kWin, tokens);
      args.scale = scale;
      args.o = out_.Rows(0, rows);
      args.lse = branch_.lse[kWin].Rows(0, rows);
      args.window = layer.kind == AttentionKind::kFull ? args_.length : model.nsa.window;
      attention.Window(*compute_, args);
    }
    return;
  }
  const Tensor gates = gates_.Rows(0, rows), gate_logits = gate_logits_.Rows(0, rows);
  MatMul(normed_.Rows(0, rows), layer.gate, gate_logits);
  ops_.dense->Gate(*compute_, {gate_logits, layer.gate_bias, Flat(gates)});
  if (together_) {
    kernels_.Attend(*compute_, *layer.cache,
                    {.phi_k = layer.phi_k,
                     .phi_v = layer.phi_v,
                     .frequency = plain ? rope_.frequency : Tensor(),
                     .factor = rope_.factor,
                     .scale = scale,
                     .q = q,
                     .gates = gates,
                     .selected = branch_.selected.Rows(0, rows),
                     .o = out_.Rows(0, rows)});
    return;
  }
  Branches branches;
  branches.q = q;
  for (const int branch : {kCmp, kSlc, kWin}) {
    branches.out.o[branch] = branch_.o[branch].Rows(0, rows);
    branches.out.lse[branch] = branch_.lse[branch].Rows(0, rows);
  }
  branches.out.selected = branch_.selected.Rows(0, rows);
  branches.nsa = model.nsa;
  branches.scale = scale;
  for (const NewTokens& tokens : round) {
    layer.cache->Summarize(attention, *compute_, tokens, layer.phi_k, layer.phi_v,
                           [&](const Tensor& keys, int64_t begin) {
                             if (plain) Rotate(keys, keys, summary_positions_.Rows(begin, keys.dim(0)));
                           });
    branches.segments = branches.window_segments = {tokens.segment()};
    branches.keys = {layer.cache->Summaries(tokens), layer.cache->Raw(kSlc, tokens), layer.cache->Raw(kWin, tokens)};
    branches.Forward(attention, *compute_);
  }
  attention.Combine(*compute_,
                    {gates, branches.out.o[kCmp], branches.out.o[kSlc], branches.out.o[kWin], out_.Rows(0, rows)});
}

void Decoder::AppendKeys(Layer& layer, const std::vector<NewTokens>& round, int branch, const Tensor& k,
                         const Tensor& v) {
  if (together_ && layer.kind == AttentionKind::kNsa) {
    const DecodeKernels::Rows rows = {branch, k, v};
    kernels_.Append(*compute_, *layer.cache, {&rows, 1});
    return;
  }
  for (const NewTokens& tokens : round) layer.cache->Append(*ops_.attention, *compute_, tokens, branch, k, v);
}

std::vector<float> Decoder::RunInGraph(const std::vector<NewTokens>& round, int64_t rows,
                                       std::span<const int32_t> wanted) {
  const auto count = std::ssize(wanted);
  if (count > 0) HostCopy(device_, *compute_, HostView(wanted.data(), {count}), last_.Rows(0, count));
  const auto enqueue = [&] {
    Run(round, rows);
    if (count > 0) MakeLogits(count);
  };
  // What differs between rounds of one shape lies in device memory. The first of them finds the scratch that the others
  // take.
  const RoundShape shape = {std::ssize(round), rows, count, std::ranges::max(round, {}, &NewTokens::count).count};
  if (shape != shape_) {
    shape_ = shape;
    graph_.reset();
    enqueue();
  } else {
    if (!graph_) graph_ = device_.Capture(*compute_, enqueue);
    graph_->Launch();
  }
  return count > 0 ? HostValues<float>(device_, *compute_, logits_.Rows(0, count)) : std::vector<float>();
}

void Decoder::MakeLogits(int64_t count) {
  const Tensor x = last_x_.Rows(0, count);
  ops_.rows->Gather(*compute_, x_, last_.Rows(0, count), x);
  ops_.dense->RmsNorm(*compute_, {x, params().Find("norm.weight").weight, args_.model.norm_eps, x});
  const char* const head = args_.model.tied_head ? "embedding.weight" : "head.weight";
  ops_.dense->MatMul(*compute_,
                     {.a = x, .b = params().Find(head).weight, .c = logits_.Rows(0, count), .transpose_b = true});
}

std::vector<float> Decoder::Logits(std::span<const int32_t> rows) {
  std::vector<float> values;
  for (; !rows.empty(); rows = rows.subspan(std::min<size_t>(rows.size(), logit_rows_))) {
    const int64_t count = std::min(std::ssize(rows), logit_rows_);
    HostCopy(device_, *compute_, HostView(rows.data(), {count}), last_.Rows(0, count));
    MakeLogits(count);
    const std::vector<float> found = HostValues<float>(device_, *compute_, logits_.Rows(0, count));
    values.insert(values.end(), found.begin(), found.end());
  }
  return values;
}

}  // namespace longspan
