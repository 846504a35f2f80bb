// The decoder: embedding, pre-norm blocks of attention and SwiGLU feed-forward, final norm, fused linear cross entropy.
//
//   x0 = E[tokens];  x' = x + attention(norm(x));  x = x' + (silu(n Wg) * (n Wu)) Wd, n = norm(x');  loss = CE(norm(x)
//   Head^T)
//
// Every rank of the cp group calls the same functions with its part of the same sequence.
#pragma once

#include <memory>
#include <vector>

#include "model/attention.h"
#include "model/context.h"
#include "model/feed_forward.h"
#include "model/params.h"

namespace longspan {

class Transformer {
 public:
  Transformer(const Context& context, const ModelConfig& config, SelectedExchange exchange, Recompute recompute);

  void Reserve(Arena& arena);
  void Start(uint64_t seed);  // after Commit: binds and initialises the parameters

  // Fills token_loss().
  void Forward(const SequenceInputs& inputs);
  // Forward, then adds scale * d(sum of token losses)/d(weight) to every gradient (zero at the start). `scale` is 1 /
  // the number of valid tokens of the whole step, over all ranks and accumulated sequences.
  void ForwardBackward(const SequenceInputs& inputs, double scale);

  ParamTable& params() { return params_; }
  const Tensor& token_loss() const { return loss_; }  // [T] F32 at least, 0 where there is no label
  const Tensor& selection_hashes() const {
    return hashes_;
  }  // [layers] I64 of the last forward, this rank's part; other kinds 0
  AttentionLayer& attention(int64_t layer) { return blocks_[layer]->attention; }
  double coverage() const;  // mean over NSA layers of the last forward

 private:
  struct Block {
    AttentionLayer attention;
    FeedForward ffn;
    Param *attention_norm, *ffn_norm;
    Tensor x, normed_x;            // [T,D] the block's input and its norm
    Tensor middle, normed_middle;  // [T,D] after attention
  };
  void RunBlocks(const SequenceInputs& inputs);
  void BlockForward(const SequenceInputs& inputs, Block& block);  // up to normed_middle
  void BlockBackward(const SequenceInputs& inputs, Block& block);
  void Norm(const Tensor& x, const Param& weight, const Tensor& y);

  const Context& context_;
  ModelConfig config_;
  const bool keep_;  // all activations; else only the blocks' inputs
  ParamTable params_;
  Param *embedding_, *final_norm_, *head_;
  std::vector<std::unique_ptr<Block>> blocks_;
  AttentionWorkspace attention_workspace_;
  FeedForwardWorkspace ffn_workspace_;
  Rope rope_;
  Tensor last_, normed_last_;   // [T,D] the stream after the last block
  Tensor d_stream_, d_normed_;  // [T,D]
  Tensor loss_;                 // [T]
  Tensor hashes_;               // [layers] I64
};

}  // namespace longspan
