#include "model/transformer.h"

namespace longspan {

Transformer::Transformer(const Context& context, const ModelConfig& config, SelectedExchange exchange,
                         Recompute recompute)
    : context_(context), config_(config), keep_(recompute == Recompute::kNone) {
  const int64_t width = config.hidden;
  const Init one{1, 0};
  // As head, 0.02 gives logits near zero: the first loss is ln X. As input, the first norm lifts it to unit variance.
  const Init table{0, 0.02};
  embedding_ = &params_.Add("embedding.weight", {config.vocab, width}, table, true);
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string prefix = fmt::format("layers.{}.", i);
    Param* attention_norm = &params_.Add(prefix + "attention_norm.weight", {width}, one, false);
    AttentionLayer attention(context, config_, exchange, i, prefix + "attention", &params_);
    Param* ffn_norm = &params_.Add(prefix + "ffn_norm.weight", {width}, one, false);
    FeedForward ffn(context, config_, keep_, prefix + "ffn", &params_);
    blocks_.push_back(
        std::make_unique<Block>(Block{std::move(attention), std::move(ffn), attention_norm, ffn_norm, {}, {}, {}, {}}));
  }
  final_norm_ = &params_.Add("norm.weight", {width}, one, false);
  head_ = config.tied_head ? embedding_ : &params_.Add("head.weight", {config.vocab, width}, table, true);
}

void Transformer::Reserve(Arena& arena) {
  const Shape stream{context_.tokens(), config_.hidden};
  params_.Reserve(arena, context_.dtype, context_.gradient_dtype);
  const auto activation = [&](Tensor* slot, const std::string& name) {
    arena.Reserve(slot, MemoryUse::kActivations, name, context_.dtype, stream);
  };
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Block& block = *blocks_[i];
    const std::string prefix = fmt::format("layers.{}.", i);
    activation(&block.x, prefix + "x");
    if (!keep_) arena.Overlay();
    activation(&block.normed_x, prefix + "normed_x");
    block.attention.Reserve(arena, &attention_workspace_);
    activation(&block.middle, prefix + "middle");
    activation(&block.normed_middle, prefix + "normed_middle");
    block.ffn.Reserve(arena, i == 0 ? &ffn_workspace_ : nullptr);
    arena.EndOverlay();
  }
  activation(&last_, "last");
  activation(&normed_last_, "normed_last");
  arena.Reserve(&loss_, MemoryUse::kActivations, "loss", context_.gradient_dtype, {context_.tokens()});
  arena.Reserve(&hashes_, MemoryUse::kWorkspace, "selection_hashes", DType::kI64, {config_.layers});
  arena.Reserve(&rope_.frequency, MemoryUse::kWorkspace, "rope.frequency", DType::kF64, {config_.key_width / 2});
  arena.Reserve(&d_stream_, MemoryUse::kWorkspace, "backward.d_stream", context_.dtype, stream);
  arena.Reserve(&d_normed_, MemoryUse::kWorkspace, "backward.d_normed", context_.dtype, stream);
}

void Transformer::Start(uint64_t seed) {
  params_.Bind();
  params_.Initialise(context_.device, context_.ops, context_.compute, seed);
  const RopeTable table = MakeRopeTable(config_.rope, config_.key_width);
  context_.device.Copy(context_.compute, rope_.frequency, HostView(table.frequency.data(), rope_.frequency.shape));
  context_.device.FillBytes(context_.compute, hashes_, 0);
  context_.compute.Synchronize();
  rope_.factor = table.factor;
  for (auto& block : blocks_) block->attention.Start(rope_);
}

void Transformer::Norm(const Tensor& x, const Param& weight, const Tensor& y) {
  context_.ops.dense->RmsNorm(context_.compute, {x, weight.weight, config_.norm_eps, y});
}

void Transformer::BlockForward(const SequenceInputs& inputs, Block& block) {
  Norm(block.x, *block.attention_norm, block.normed_x);
  context_.ops.train->Copy(context_.compute, block.x, block.middle);
  block.attention.Forward(inputs, attention_workspace_, block.normed_x, block.middle);
  Norm(block.middle, *block.ffn_norm, block.normed_middle);
}

// d_stream_ holds the gradient of the block's output, then that of its input.
void Transformer::BlockBackward(const SequenceInputs& inputs, Block& block) {
  DenseOps& dense = *context_.ops.dense;
  Stream& compute = context_.compute;
  block.ffn.Backward(ffn_workspace_, block.normed_middle, d_stream_, d_normed_);
  dense.RmsNormBackward(compute, {block.middle, block.ffn_norm->weight, config_.norm_eps, block.normed_middle},
                        {d_normed_, d_stream_, block.ffn_norm->gradient, true});

  block.attention.Backward(inputs, attention_workspace_, block.normed_x, d_stream_, d_normed_);
  dense.RmsNormBackward(compute, {block.x, block.attention_norm->weight, config_.norm_eps, block.normed_x},
                        {d_normed_, d_stream_, block.attention_norm->gradient, true});
}

void Transformer::RunBlocks(const SequenceInputs& inputs) {
  context_.ops.dense->Embedding(context_.compute, {inputs.tokens, embedding_->weight, blocks_[0]->x});
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Block& block = *blocks_[i];
    const Tensor& y = i + 1 < blocks_.size() ? blocks_[i + 1]->x : last_;
    BlockForward(inputs, block);
    context_.ops.train->Copy(context_.compute, block.middle, y);
    block.ffn.Forward(block.normed_middle, y);
    if (const NsaCore* nsa = block.attention.nsa()) {
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
  for (size_t i = blocks_.size(); i-- > 0;) {
    // The last block's activations are still there.
    if (!keep_ && i + 1 < blocks_.size()) BlockForward(inputs, *blocks_[i]);
    BlockBackward(inputs, *blocks_[i]);
  }
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
