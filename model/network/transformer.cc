#include "model/network/transformer.h"

#include <algorithm>

#include "runtime/place.h"

namespace longspan {

Transformer::Transformer(const Context& context, const ModelConfig& config, SelectedExchange exchange,
                         const KeepConfig& keep)
    : context_(context), config_(config), recompute_(keep.recompute) {
  if (keep.offload) offload_ = std::make_unique<Offload>(context);
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
    FeedForward ffn(context, config_, recompute_ == Recompute::kNone, prefix + "ffn", &params_);
    blocks_.push_back(std::make_unique<Block>(
        Block{std::move(attention), std::move(ffn), attention_norm, ffn_norm, params_.size(), {}, {}, {}, {}}));
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
    if (recompute_ != Recompute::kNone) {
      arena.BeginTurn(MemoryUse::kActivations);
      arena.BeginTurn(MemoryUse::kExchange);
    }
    if (offload_) arena.BeginTurn(MemoryUse::kKept, static_cast<int>(i % Offload::kSets));
    arena.Reserve(&block.x, MemoryUse::kKept, prefix + "x", context_.dtype, stream);
    activation(&block.normed_x, prefix + "normed_x");
    block.attention.Reserve(arena, &attention_workspace_,
                            recompute_ == Recompute::kSelective ? MemoryUse::kKept : MemoryUse::kActivations);
    activation(&block.middle, prefix + "middle");
    activation(&block.normed_middle, prefix + "normed_middle");
    block.ffn.Reserve(arena, i == 0 ? &ffn_workspace_ : nullptr);
    if (offload_ && i + Offload::kSets < blocks_.size()) offloaded_bytes_ = arena.ReservedBytes(MemoryUse::kKept);
  }
  arena.EndTurns();
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
  std::vector<std::vector<Tensor>> kept;
  for (auto& block : blocks_) {
    block->attention.Start(rope_);
    kept.push_back({block->x});
    if (recompute_ != Recompute::kSelective) continue;
    for (const Tensor& tensor : block->attention.core().kept()) kept.back().push_back(tensor);
  }
  if (offload_) offload_->Start(kept);
}

void Transformer::Norm(const Tensor& x, const Param& weight, const Tensor& y) {
  context_.ops.dense->RmsNorm(context_.compute, {x, weight.weight, config_.norm_eps, y});
}

void Transformer::BlockForward(const SequenceInputs& inputs, Block& block, bool restore) {
  {
    const auto stage = InStage("projections");
    Norm(block.x, *block.attention_norm, block.normed_x);
  }
  block.attention.Forward(inputs, attention_workspace_, block.normed_x, block.x, block.middle, restore);
  const auto stage = InStage("feed_forward");
  Norm(block.middle, *block.ffn_norm, block.normed_middle);
}

// d_stream_ holds the gradient of the block's output, then that of its input.
void Transformer::BlockBackward(const SequenceInputs& inputs, Block& block) {
  DenseOps& dense = *context_.ops.dense;
  Stream& compute = context_.compute;
  {
    const auto stage = InStage("feed_forward");
    block.ffn.Backward(ffn_workspace_, block.normed_middle, d_stream_, d_normed_);
    dense.RmsNormBackward(compute, {block.middle, block.ffn_norm->weight, config_.norm_eps, block.normed_middle},
                          {d_normed_, d_stream_, block.ffn_norm->gradient, true});
  }
  block.attention.Backward(inputs, attention_workspace_, block.normed_x, d_stream_, d_normed_);
  const auto stage = InStage("projections");
  dense.RmsNormBackward(compute, {block.x, block.attention_norm->weight, config_.norm_eps, block.normed_x},
                        {d_normed_, d_stream_, block.attention_norm->gradient, true});
}

void Transformer::RunBlocks(const SequenceInputs& inputs, bool backward) {
  const auto pass = InPass(Pass::kForward);
  {
    const auto stage = InStage("embedding");
    context_.ops.dense->Embedding(context_.compute, {inputs.tokens, embedding_->weight, blocks_[0]->x});
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const auto layer = InLayer(static_cast<int64_t>(i));
    Block& block = *blocks_[i];
    const Tensor& y = i + 1 < blocks_.size() ? blocks_[i + 1]->x : last_;
    BlockForward(inputs, block, false);
    if (offload_ && backward && i + 1 < blocks_.size()) offload_->Claim(i + 1);
    {
      const auto stage = InStage("feed_forward");
      block.ffn.Forward(block.normed_middle, block.middle, y);
    }
    const auto stage = InStage("metrics");
    if (const NsaCore* nsa = block.attention.nsa()) {
      context_.ops.attention->HashSelection(
          context_.compute, {context_.segments(), nsa->selected(), hashes_.Rows(static_cast<int64_t>(i), 1)});
    }
    if (layer_done_) layer_done_(static_cast<int64_t>(i));
    if (offload_ && backward) offload_->Store(i);
  }
  const auto stage = InStage("loss");
  Norm(last_, *final_norm_, normed_last_);
}

void Transformer::Forward(const SequenceInputs& inputs) {
  RunBlocks(inputs, false);
  const auto pass = InPass(Pass::kForward);
  const auto stage = InStage("loss");
  context_.ops.train->LinearCrossEntropy(context_.compute, {.x = normed_last_,
                                                            .weight = head_->weight,
                                                            .targets = inputs.targets,
                                                            .loss = loss_,
                                                            .scale = {},
                                                            .d_x = {},
                                                            .d_weight = {}});
}

void Transformer::Logits(const Tensor& logits, int64_t first) {
  context_.ops.dense->MatMul(
      context_.compute,
      {.a = normed_last_.Rows(first, logits.dim(0)), .b = head_->weight, .c = logits, .transpose_b = true});
}

void Transformer::ForwardBackward(const SequenceInputs& inputs, const GradientsReady& ready) {
  const auto done = [&](int64_t begin, int64_t end) {
    if (ready) ready(begin, end);
  };
  RunBlocks(inputs, true);
  const auto pass = InPass(Pass::kBackward);
  {
    const auto stage = InStage("loss");
    context_.ops.train->LinearCrossEntropy(context_.compute, {.x = normed_last_,
                                                              .weight = head_->weight,
                                                              .targets = inputs.targets,
                                                              .loss = loss_,
                                                              .scale = inputs.loss_scale,
                                                              .d_x = d_normed_,
                                                              .d_weight = head_->gradient});
    context_.ops.dense->RmsNormBackward(context_.compute, {last_, final_norm_->weight, config_.norm_eps, normed_last_},
                                        {d_normed_, d_stream_, final_norm_->gradient});
  }
  done(blocks_.back()->end, params_.size());
  const auto block_done = [&](size_t i) {
    done(i > 0 ? blocks_[i - 1]->end : blocks_[0]->attention_norm->offset, blocks_[i]->end);
  };
  for (size_t i = blocks_.size(); i-- > 0;) {
    const auto layer = InLayer(static_cast<int64_t>(i));
    if (offload_) offload_->Await(i);
    // The last block's activations are still there.
    if (recompute_ != Recompute::kNone && i + 1 < blocks_.size()) {
      BlockForward(inputs, *blocks_[i], recompute_ == Recompute::kSelective);
    }
    // Not before: what is made again has transfers that the kernels wait for, a reduction would be in their way.
    if (i + 1 < blocks_.size()) block_done(i + 1);
    BlockBackward(inputs, *blocks_[i]);
    if (offload_) offload_->Release(i);
  }
  block_done(0);
  const auto stage = InStage("embedding");
  context_.ops.dense->EmbeddingBackward(context_.compute, {inputs.tokens, embedding_->weight, blocks_[0]->x},
                                        {d_stream_, embedding_->gradient});
  done(0, blocks_[0]->attention_norm->offset);
}

void Transformer::SetExchange(SelectedExchange exchange) {
  for (auto& block : blocks_) {
    if (NsaCore* const nsa = block->attention.nsa()) nsa->SetExchange(exchange);
  }
}

bool Transformer::fetches() const {
  return std::any_of(blocks_.begin(), blocks_.end(),
                     [](const auto& block) { return block->attention.nsa() && block->attention.nsa()->fetches(); });
}

int64_t Transformer::borrowed_bytes() const {
  int64_t bytes = 0;
  for (const auto& block : blocks_) bytes += block->attention.core().borrowed_bytes();
  return bytes;
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
