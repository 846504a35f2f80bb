#include "model/transformer.h"

#include <cmath>

namespace longspan {

Transformer::Transformer(const Context& context, const ModelConfig& config, SelectedExchange exchange)
    : context_(context), config_(config) {
  const int64_t width = config.hidden, ffn = config.ffn;
  const Init one{1, 0};
  // A projection of unit-variance inputs keeps unit variance; what is added to the stream starts smaller by depth
  // (GPT-2).
  const Init from_width{0, 1 / std::sqrt(static_cast<double>(width))};
  const Init to_stream{0, 1 / std::sqrt(2.0 * static_cast<double>(config.layers * ffn))};
  // As head, 0.02 gives logits near zero: the first loss is ln X. As input, the first norm lifts it to unit variance.
  const Init table{0, 0.02};
  embedding_ = &params_.Add("embedding.weight", {config.vocab, width}, table, true);
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string prefix = fmt::format("layers.{}.", i);
    Param* attention_norm = &params_.Add(prefix + "attention_norm.weight", {width}, one, false);
    AttentionLayer attention(context, config_, exchange, i, prefix + "attention", &params_);
    Param* ffn_norm = &params_.Add(prefix + "ffn_norm.weight", {width}, one, false);
    Param* gate = &params_.Add(prefix + "ffn.gate.weight", {width, ffn}, from_width, true);
    Param* up = &params_.Add(prefix + "ffn.up.weight", {width, ffn}, from_width, true);
    Param* down = &params_.Add(prefix + "ffn.down.weight", {ffn, width}, to_stream, true);
    blocks_.push_back(std::make_unique<Block>(
        Block{std::move(attention), attention_norm, ffn_norm, gate, up, down, {}, {}, {}, {}, {}, {}, {}}));
  }
  final_norm_ = &params_.Add("norm.weight", {width}, one, false);
  head_ = config.tied_head ? embedding_ : &params_.Add("head.weight", {config.vocab, width}, table, true);
}

void Transformer::Reserve(Arena& arena) {
  const Shape stream{context_.tokens(), config_.hidden}, wide{context_.tokens(), config_.ffn};
  params_.Reserve(arena, context_.dtype, context_.gradient_dtype);
  const auto activation = [&](Tensor* slot, const std::string& name, const Shape& shape) {
    arena.Reserve(slot, MemoryUse::kActivations, name, context_.dtype, shape);
  };
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Block& block = *blocks_[i];
    const std::string prefix = fmt::format("layers.{}.", i);
    activation(&block.x, prefix + "x", stream);
    activation(&block.normed_x, prefix + "normed_x", stream);
    block.attention.Reserve(arena, &workspace_);
    activation(&block.middle, prefix + "middle", stream);
    activation(&block.normed_middle, prefix + "normed_middle", stream);
    activation(&block.gate_out, prefix + "ffn.gate", wide);
    activation(&block.up_out, prefix + "ffn.up", wide);
    activation(&block.act, prefix + "ffn.act", wide);
  }
  activation(&last_, "last", stream);
  activation(&normed_last_, "normed_last", stream);
  activation(&loss_, "loss", {context_.tokens()});
  arena.Reserve(&hashes_, MemoryUse::kWorkspace, "selection_hashes", DType::kI64, {config_.layers});
  arena.Reserve(&rope_.frequency, MemoryUse::kWorkspace, "rope.frequency", DType::kF64, {config_.key_width / 2});
  const auto workspace = [&](Tensor* slot, const char* name, const Shape& shape) {
    arena.Reserve(slot, MemoryUse::kWorkspace, name, context_.gradient_dtype, shape);
  };
  workspace(&d_stream_, "backward.d_stream", stream);
  workspace(&d_normed_, "backward.d_normed", stream);
  workspace(&d_gate_, "backward.d_gate", wide);
  workspace(&d_up_, "backward.d_up", wide);
  workspace(&d_act_, "backward.d_act", wide);
}

void Transformer::Start(uint64_t seed) {
  params_.Bind();
  params_.Initialise(context_.device, context_.compute, seed);
  const RopeTable table = MakeRopeTable(config_.rope, config_.key_width);
  context_.device.Copy(context_.compute, rope_.frequency, HostView(table.frequency.data(), rope_.frequency.shape));
  context_.device.FillBytes(context_.compute, hashes_, 0);
  context_.compute.Synchronize();
  rope_.factor = table.factor;
  for (auto& block : blocks_) block->attention.Start(rope_);
}

void Transformer::MatMul(const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b,
                         bool accumulate) {
  context_.ops.dense->MatMul(context_.compute, {a, b, c, transpose_a, transpose_b, accumulate});
}

void Transformer::Norm(const Tensor& x, const Param& weight, const Tensor& y) {
  context_.ops.dense->RmsNorm(context_.compute, {x, weight.weight, config_.norm_eps, y});
}

void Transformer::BlockForward(const SequenceInputs& inputs, Block& block, const Tensor& y) {
  TrainOps& train = *context_.ops.train;
  Norm(block.x, *block.attention_norm, block.normed_x);
  train.Copy(context_.compute, block.x, block.middle);
  block.attention.Forward(inputs, workspace_, block.normed_x, block.middle);

  Norm(block.middle, *block.ffn_norm, block.normed_middle);
  MatMul(block.normed_middle, block.gate->weight, block.gate_out, false, false, false);
  MatMul(block.normed_middle, block.up->weight, block.up_out, false, false, false);
  context_.ops.dense->SwiGlu(context_.compute, {block.gate_out, block.up_out, block.act});
  train.Copy(context_.compute, block.middle, y);
  MatMul(block.act, block.down->weight, y, false, false, true);
}

// d_stream_ holds the gradient of the block's output, then that of its input.
void Transformer::BlockBackward(const SequenceInputs& inputs, Block& block) {
  DenseOps& dense = *context_.ops.dense;
  Stream& compute = context_.compute;
  MatMul(block.act, d_stream_, block.down->gradient, true, false, true);
  MatMul(d_stream_, block.down->weight, d_act_, false, true, false);
  dense.SwiGluBackward(compute, {block.gate_out, block.up_out, block.act}, {d_act_, d_gate_, d_up_});
  MatMul(block.normed_middle, d_gate_, block.gate->gradient, true, false, true);
  MatMul(block.normed_middle, d_up_, block.up->gradient, true, false, true);
  MatMul(d_gate_, block.gate->weight, d_normed_, false, true, false);
  MatMul(d_up_, block.up->weight, d_normed_, false, true, true);
  dense.RmsNormBackward(compute, {block.middle, block.ffn_norm->weight, config_.norm_eps, block.normed_middle},
                        {d_normed_, d_stream_, block.ffn_norm->gradient, true});

  block.attention.Backward(inputs, workspace_, block.normed_x, d_stream_, d_normed_);
  dense.RmsNormBackward(compute, {block.x, block.attention_norm->weight, config_.norm_eps, block.normed_x},
                        {d_normed_, d_stream_, block.attention_norm->gradient, true});
}

void Transformer::RunBlocks(const SequenceInputs& inputs) {
  context_.ops.dense->Embedding(context_.compute, {inputs.tokens, embedding_->weight, blocks_[0]->x});
  for (size_t i = 0; i < blocks_.size(); ++i) {
    BlockForward(inputs, *blocks_[i], i + 1 < blocks_.size() ? blocks_[i + 1]->x : last_);
    if (const NsaCore* nsa = blocks_[i]->attention.nsa()) {
      context_.ops.attention->HashSelection(
          context_.compute, {context_.segments(), nsa->selected(), hashes_.Rows(static_cast<int64_t>(i), 1)});
    }
  }
  Norm(last_, *final_norm_, normed_last_);
}

void Transformer::Forward(const SequenceInputs& inputs) {
  RunBlocks(inputs);
  context_.ops.train->LinearCrossEntropy(context_.compute, {.x = normed_last_,
                                                            .weight = head_->weight,
                                                            .targets = inputs.targets,
                                                            .loss = loss_,
                                                            .d_x = {},
                                                            .d_weight = {}});
}

void Transformer::ForwardBackward(const SequenceInputs& inputs, double scale) {
  RunBlocks(inputs);
  context_.ops.train->LinearCrossEntropy(context_.compute, {.x = normed_last_,
                                                            .weight = head_->weight,
                                                            .targets = inputs.targets,
                                                            .loss = loss_,
                                                            .scale = scale,
                                                            .d_x = d_normed_,
                                                            .d_weight = head_->gradient});
  context_.ops.dense->RmsNormBackward(context_.compute, {last_, final_norm_->weight, config_.norm_eps, normed_last_},
                                      {d_normed_, d_stream_, final_norm_->gradient});
  for (size_t i = blocks_.size(); i-- > 0;) BlockBackward(inputs, *blocks_[i]);
  context_.ops.dense->EmbeddingBackward(context_.compute, {inputs.tokens, embedding_->weight, blocks_[0]->x},
                                        {d_stream_, embedding_->gradient});
}

double Transformer::coverage() const {
  double sum = 0;
  int64_t layers = 0;
  for (const auto& block : blocks_) {
    if (!block->attention.nsa()) continue;
    sum += block->attention.nsa()->coverage();
    ++layers;
  }
  return layers > 0 ? sum / static_cast<double>(layers) : 0;
}

}  // namespace longspan
