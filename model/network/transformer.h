// The decoder: embedding, pre-norm blocks of attention and SwiGLU feed-forward, final norm, fused linear cross entropy.
//
//   x0 = E[tokens];  x' = x + attention(norm(x));  x = x' + (silu(n Wg) * (n Wu)) Wd, n = norm(x');  loss = CE(norm(x)
//   Head^T)
//
// Every rank of the cp group calls the same functions with its part of the same sequence.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "model/attention/layer.h"
#include "model/context.h"
#include "model/network/feed_forward.h"
#include "model/network/offload.h"
#include "model/params.h"

namespace longspan {

class Transformer {
 public:
  Transformer(const Context& context, const ModelConfig& config, SelectedExchange exchange, const KeepConfig& keep);

  void Reserve(Arena& arena);
  void Start(uint64_t seed);  // after Commit: binds and initialises the parameters

  // Fills token_loss().
  void Forward(const SequenceInputs& inputs);
  // logits [n,X] of n rows of the last Forward, from `first` on.
  void Logits(const Tensor& logits, int64_t first = 0);
  // Forward, then adds loss_scale * d(sum of token losses)/d(weight) to every gradient (zero at the start). `ready` is
  // called for one part of the flat gradient buffer after another, once the compute stream has all of its kernels.
  using GradientsReady = std::function<void(int64_t begin, int64_t end)>;  // elements
  void ForwardBackward(const SequenceInputs& inputs, const GradientsReady& ready = {});

  // Called after each layer's forward of later calls, for what is chosen in it: the memory of another layer may lie
  // over it afterwards. Not when it is made again for the backward. Empty: no longer.
  using LayerDone = std::function<void(int64_t layer)>;
  void Observe(LayerDone done) { layer_done_ = std::move(done); }

  // Of a model that was made as AUTO: how selected rows travel from the next call on, in all layers. The streams are
  // idle.
  void SetExchange(SelectedExchange exchange);
  bool fetches() const;  // a layer does: the host waits in a pass

  ParamTable& params() { return params_; }
  const Tensor& token_loss() const { return loss_; }  // [T] F32 at least, 0 where there is no label
  const Tensor& selection_hashes() const {
    return hashes_;
  }  // [layers] I64 of the last forward, this rank's part; other kinds 0
  AttentionLayer& attention(int64_t layer) { return blocks_[layer]->attention; }
  double coverage() const;                                      // mean over NSA layers of the last forward
  int64_t borrowed_bytes() const;                               // of all layers in the last forward
  int64_t offloaded_bytes() const { return offloaded_bytes_; }  // of host memory, taken by Start

 private:
  struct Block {
    AttentionLayer attention;
    FeedForward ffn;
    Param *attention_norm, *ffn_norm;
    int64_t end;                   // of the block's part of the flat buffers
    Tensor x, normed_x;            // [T,D] the block's input and its norm
    Tensor middle, normed_middle;  // [T,D] after attention
  };
  void RunBlocks(const SequenceInputs& inputs, bool backward);  // whether one follows
  // Up to normed_middle; `restore`: from what the first time kept.
  void BlockForward(const SequenceInputs& inputs, Block& block, bool restore);
  void BlockBackward(const SequenceInputs& inputs, Block& block);
  void Norm(const Tensor& x, const Param& weight, const Tensor& y);

  const Context& context_;
  ModelConfig config_;
  const Recompute recompute_;
  std::unique_ptr<Offload> offload_;  // null: none
  int64_t offloaded_bytes_ = 0;
  LayerDone layer_done_;
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
