#include "model/attention/layer.h"

#include <algorithm>
#include <cmath>

#include "model/attention/single_branch.h"
#include "runtime/place.h"

namespace longspan {
namespace {

std::unique_ptr<AttentionCore> MakeCore(const Context& context, const ModelConfig& config, AttentionKind kind,
                                        SelectedExchange exchange) {
  const AttentionCore::Sizes sizes{config.heads, config.kv_heads, config.key_width, config.value_width};
  const double scale = 1 / std::sqrt(static_cast<double>(config.key_width));
  if (kind == AttentionKind::kNsa) return std::make_unique<NsaCore>(context, sizes, config.nsa, exchange, scale);
  const int64_t window = kind == AttentionKind::kWindow ? config.nsa.window : 0;
  return std::make_unique<SingleBranchCore>(context, sizes, window, scale);
}

PhiWeights Tensors(const PhiSet<Param*>& phi, Tensor Param::*member) {
  PhiWeights tensors;
  for (size_t i = 0; i < phi.kSize; ++i) {
    if (phi[i]) tensors[i] = phi[i]->*member;
  }
  return tensors;
}

// A projection of unit-variance inputs keeps unit variance.
Init FanIn(int64_t inputs) { return {0, 1 / std::sqrt(static_cast<double>(inputs))}; }

constexpr Init kSmall{0, 0.02};  // where the start should be near zero but symmetry must break
constexpr Init kZero{0, 0};
constexpr Init kOne{1, 0};

Tensor Flat(const Tensor& x) { return x.Reshape({x.dim(0), x.size() / x.dim(0)}); }

}  // namespace

AttentionLayer::AttentionLayer(const Context& context, const ModelConfig& config, SelectedExchange exchange,
                               int64_t layer, const std::string& prefix, ParamTable* params)
    : context_(context), config_(config), prefix_(prefix), kind_(config.AttentionOf(layer)) {
  core_ = MakeCore(context, config, kind_, exchange);
  if (kind_ == AttentionKind::kNsa) nsa_ = static_cast<NsaCore*>(core_.get());

  q_ = AddProjection("q", config.heads, config.key_width, config.qk_norm, params);
  const bool separate = nsa_ && config.nsa.kv_branches == KvBranches::kSeparate;
  for (const std::string& suffix :
       separate ? std::vector<std::string>{"_cmp", "_slc", "_win"} : std::vector<std::string>{""}) {
    k_.push_back(AddProjection("k" + suffix, config.kv_heads, config.key_width, config.qk_norm, params));
    v_.push_back(AddProjection("v" + suffix, config.kv_heads, config.value_width, false, params));
  }
  if (nsa_) {
    phi_k_ = AddPhi("phi_k", config.key_width, params);
    phi_v_ = AddPhi("phi_v", config.value_width, params);
    // Gates start near one half each: all branches learn from the first step on.
    gate_ = &params->Add(prefix + ".gate.weight", {config.hidden, 3 * config.heads}, kSmall, true);
    gate_bias_ = &params->Add(prefix + ".gate.bias", {3 * config.heads}, kZero, false);
  }
  // Residual branches start small, so that the variance of the stream does not grow with depth (GPT-2).
  const int64_t inputs = config.heads * config.value_width;
  const double stddev = FanIn(inputs).stddev / std::sqrt(2.0 * static_cast<double>(config.layers));
  o_ = &params->Add(prefix + ".o.weight", {inputs, config.hidden}, {0, stddev}, true);
}

AttentionLayer::Projection AttentionLayer::AddProjection(const std::string& name, int64_t heads, int64_t width,
                                                         bool norm, ParamTable* params) {
  Projection projection;
  projection.weight =
      &params->Add(prefix_ + "." + name + ".weight", {config_.hidden, heads * width}, FanIn(config_.hidden), true);
  if (norm) projection.norm = &params->Add(prefix_ + "." + name + "_norm.weight", {width}, kOne, false);
  return projection;
}

PhiSet<Param*> AttentionLayer::AddPhi(const std::string& name, int64_t width, ParamTable* params) {
  const NsaConfig& nsa = config_.nsa;
  const int64_t inputs = nsa.block * width, hidden = nsa.phi_hidden > 0 ? nsa.phi_hidden : 2 * width;
  const PhiSet<Init> init = {kSmall, FanIn(inputs), kZero, FanIn(hidden), kZero, FanIn(inputs)};
  const PhiSet<bool> decay = {false, true, false, true, false, true};
  PhiSet<Param*> phi;
  ForPhi({nsa.phi, config_.kv_heads, nsa.block, width, hidden}, [&](size_t i, const Shape& shape) {
    phi[i] = &params->Add(fmt::format("{}.{}.{}", prefix_, name, kPhiNames[i]), shape, init[i], decay[i]);
  });
  return phi;
}

void AttentionLayer::ReserveNormInput(Arena& arena, Projection* projection, int64_t heads) {
  if (!projection->norm) return;
  arena.Reserve(&projection->input, MemoryUse::kActivations, projection->weight->name + ".out", context_.dtype,
                {context_.tokens(), heads, config_.key_width});
}

void AttentionLayer::Reserve(Arena& arena, AttentionWorkspace* workspace, MemoryUse outputs) {
  const int64_t tokens = context_.tokens();
  core_->Reserve(arena, prefix_, outputs);
  ReserveNormInput(arena, &q_, config_.heads);
  for (Projection& k : k_) ReserveNormInput(arena, &k, config_.kv_heads);
  // The first layer reserves what all share, the first of a kind what all of that kind share.
  if (workspace->gradients.empty()) {
    arena.Reserve(&workspace->d_out, MemoryUse::kWorkspace, "backward.d_out", context_.dtype,
                  {tokens, config_.heads, config_.value_width});
    if (context_.gradient_dtype != context_.dtype) {
      arena.Reserve(&workspace->narrow, MemoryUse::kWorkspace, "backward.narrow", context_.dtype,
                    {tokens * config_.heads * std::max(config_.key_width, config_.value_width)});
    }
  }
  const auto [entry, first] = workspace->gradients.try_emplace(kind_);
  if (!first) return;
  core_->ReserveGradients(arena, &entry->second);
  if (gate_) {
    arena.Reserve(&workspace->gate_logits, MemoryUse::kWorkspace, "gate_logits", context_.dtype,
                  {tokens, 3 * config_.heads});
  }
}

void AttentionLayer::Start(const Rope& rope) {
  rope_ = rope;
  core_->Start();
  if (!nsa_) return;
  nsa_->SetPhi({Tensors(phi_k_, &Param::weight), Tensors(phi_v_, &Param::weight), Tensors(phi_k_, &Param::gradient),
                Tensors(phi_v_, &Param::gradient)});
  if (config_.nsa.compress_rope == CompressRope::kAfter) nsa_->SetSummaryRope({rope.frequency, rope.factor});
}

void AttentionLayer::MatMul(MatMulArgs args) {
  for (Tensor* x : {&args.a, &args.b, &args.c}) *x = Flat(*x);
  context_.ops.dense->MatMul(context_.compute, args);
}

void AttentionLayer::Project(const Projection& projection, const Tensor& x, const Tensor& y) {
  const Tensor& product = projection.norm ? projection.input : y;
  MatMul({.a = x, .b = projection.weight->weight, .c = product});
  if (projection.norm) {
    context_.ops.dense->RmsNorm(context_.compute, {product, projection.norm->weight, config_.norm_eps, y});
  }
}

void AttentionLayer::ProjectBackward(const Projection& projection, const Tensor& x, const Tensor& d_y,
                                     const Tensor& d_x, bool accumulate) {
  if (projection.norm) {
    context_.ops.dense->RmsNormBackward(context_.compute,
                                        {projection.input, projection.norm->weight, config_.norm_eps, {}},
                                        {d_y, d_y, projection.norm->gradient});
  }
  MatMul({.a = x, .b = d_y, .c = projection.weight->gradient, .transpose_a = true, .accumulate = true});
  MatMul({.a = d_y, .b = projection.weight->weight, .c = d_x, .transpose_b = true, .accumulate = accumulate});
}

void AttentionLayer::Rotate(const SequenceInputs& inputs, const Tensor& from, const Tensor& to, bool inverse) {
  context_.ops.dense->Rope(context_.compute, {from, to, inputs.positions, rope_.frequency, rope_.factor, inverse});
}

Tensor AttentionLayer::NarrowOf(const AttentionWorkspace& workspace, const Tensor& gradient) const {
  if (gradient.dtype == context_.dtype) return gradient;
  return workspace.narrow.Rows(0, gradient.size()).Reshape(gradient.shape);
}

Tensor AttentionLayer::Narrow(const AttentionWorkspace& workspace, const Tensor& gradient) {
  const Tensor narrow = NarrowOf(workspace, gradient);
  if (narrow.data != gradient.data) context_.ops.rows->Copy(context_.compute, gradient, narrow);
  return narrow;
}

Tensor AttentionLayer::Unrotate(const SequenceInputs& inputs, const AttentionWorkspace& workspace,
                                const Tensor& gradient) {
  const Tensor narrow = NarrowOf(workspace, gradient);
  Rotate(inputs, gradient, narrow, true);
  return narrow;
}

void AttentionLayer::Forward(const SequenceInputs& inputs, const AttentionWorkspace& workspace, const Tensor& x,
                             const Tensor& residual, const Tensor& y, bool restore) {
  const auto projections = InStage("projections");
  for (size_t i = 0; i < core_->rows().size(); ++i) {
    const KeyRows& rows = core_->rows()[i];
    Project(k_[i], x, rows.projected_k());
    if (rows.rotated_k) Rotate(inputs, rows.projected_k(), rows.rotated_k, false);
    Project(v_[i], x, rows.v);
  }
  core_->LendRows();
  Project(q_, x, core_->q());
  Rotate(inputs, core_->q(), core_->q(), false);
  if (gate_) {
    MatMul({.a = x, .b = gate_->weight, .c = workspace.gate_logits});
    context_.ops.dense->Gate(context_.compute, {workspace.gate_logits, gate_bias_->weight, Flat(core_->gates())});
  }
  if (restore) {
    core_->Restore(inputs);
  } else {
    core_->Forward(inputs);
  }
  const auto output = InStage("output");
  MatMul({.a = core_->out(), .b = o_->weight, .c = y, .add = residual});
}

void AttentionLayer::Backward(const SequenceInputs& inputs, const AttentionWorkspace& workspace, const Tensor& x,
                              const Tensor& d_y, const Tensor& d_x) {
  const AttentionGradients& gradients = workspace.gradients.at(kind_);
  {
    const auto output = InStage("output");
    MatMul({.a = d_y, .b = o_->weight, .c = workspace.d_out, .transpose_b = true});
  }
  const auto projections = InStage("projections");
  core_->Backward(inputs, workspace.d_out, gradients);
  ProjectBackward(q_, x, Unrotate(inputs, workspace, gradients.d_q), d_x, false);
  core_->ReturnRows(inputs, gradients);
  {
    const auto output = InStage("output");  // here it hides a transfer
    MatMul({.a = core_->out(), .b = d_y, .c = o_->gradient, .transpose_a = true, .accumulate = true});
  }
  core_->AwaitRows();
  for (size_t i = 0; i < core_->rows().size(); ++i) {
    const auto [d_k, d_rotated_k, d_v] = core_->OwnRows(static_cast<int>(i), gradients.rows[i]);
    if (d_k && d_rotated_k) {
      Rotate(inputs, d_rotated_k, d_rotated_k, true);
      context_.ops.dense->Add(context_.compute, d_rotated_k, d_k);
    }
    ProjectBackward(k_[i], x, d_k ? Narrow(workspace, d_k) : Unrotate(inputs, workspace, d_rotated_k), d_x, true);
    ProjectBackward(v_[i], x, Narrow(workspace, d_v), d_x, true);
  }
  if (gate_) {
    context_.ops.dense->GateBackward(context_.compute,
                                     {workspace.gate_logits, gate_bias_->weight, Flat(core_->gates())},
                                     {Flat(gradients.d_gates), workspace.gate_logits, gate_bias_->gradient});
    MatMul({.a = x, .b = workspace.gate_logits, .c = gate_->gradient, .transpose_a = true, .accumulate = true});
    MatMul({.a = workspace.gate_logits, .b = gate_->weight, .c = d_x, .transpose_b = true, .accumulate = true});
  }
}

}  // namespace longspan
