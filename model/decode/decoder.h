// Decoder: a model's forward pass token by token, for generation: what came before lies in caches (KvCache).
//
// One device, a batch of sequences of different lengths. Every token's logits are those of the training forward at its
// position; on a CPU bit for bit.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/attention/branches.h"
#include "model/attention/layer.h"
#include "model/config.h"
#include "model/context.h"
#include "model/decode/decode_kernels.h"
#include "model/network/transformer.h"

namespace longspan {

class Decoder {
 public:
  struct Args {
    ModelConfig model;
    DType dtype = DType::kF32;
    int64_t sequences = 1;
    int64_t length = 0;  // tokens of a sequence, at most
  };
  // Plans the memory. The device outlives this.
  Decoder(Device& device, const Args& args);
  int64_t bytes() const { return arena_.bytes(); }  // that Start takes
  // Allocates. All sequences are empty; the weights, params(), are the caller's to load.
  void Start();

  const ParamTable& params() const { return network_->params(); }
  Stream& stream() { return *compute_; }

  struct Entry {
    int64_t sequence = 0;
    std::span<const int32_t> tokens;  // one or more, in [0,X)
    bool every = false;               // logits after every token are wanted
  };
  // Appends the tokens of each entry to its sequence, each of which has one entry at most, and returns of each entry
  // the logits after its last token [X], or after every one [tokens,X], on the host.
  std::vector<std::vector<float>> Append(std::span<const Entry> entries);
  int64_t length(int64_t sequence) const { return lengths_[sequence]; }
  // The first `length` tokens are the sequence's again; least() is the fewest of them.
  void TakeBack(int64_t sequence, int64_t length);
  int64_t least(int64_t sequence) const { return std::max<int64_t>(0, written_[sequence] - kMostTakenBack); }
  void Clear(int64_t sequence) { lengths_[sequence] = written_[sequence] = 0; }

  int64_t step() const { return step_; }
  static constexpr int64_t kMostTakenBack = 256;

 private:
  struct Projection {
    Tensor weight, norm;  // [D,.]; [K] or null
  };
  struct Layer {
    AttentionKind kind;
    Tensor attention_norm, ffn_norm;  // [D]
    Projection q;
    std::vector<Projection> k, v;  // by branch, or one
    Tensor gate, gate_bias, o;     // [D,3H], [3H], [H*V,D]
    PhiWeights phi_k, phi_v;
    Tensor ffn_gate, ffn_up, ffn_down;  // [D,F], [D,F], [F,D]
    std::unique_ptr<KvCache> cache;
  };

  void ReserveStep();
  void BindLayers();
  // The tokens of `round`, `rows` in all, through all layers; the stream after the last lies in x_.
  void Run(const std::vector<NewTokens>& round, int64_t rows);
  void Attend(Layer& layer, const std::vector<NewTokens>& round, int64_t rows);
  void AppendKeys(Layer& layer, const std::vector<NewTokens>& round, int branch, const Tensor& k, const Tensor& v);
  void Project(const Projection& projection, const Tensor& y);  // of normed_
  void Rotate(const Tensor& from, const Tensor& to, const Tensor& positions);
  void MatMul(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& add = {});
  // Logits of these rows of x_, one after another.
  std::vector<float> Logits(std::span<const int32_t> rows);
  void MakeLogits(int64_t count);  // logits_ of the rows that last_ names
  // Run and Logits of a round that goes through kernels_ in every layer: in a graph once rounds are alike.
  std::vector<float> RunInGraph(const std::vector<NewTokens>& round, int64_t rows, std::span<const int32_t> wanted);

  Device& device_;
  const Args args_;
  static constexpr int64_t kGpuStep = 2048;  // fills a GPU; rings hold a step more: no more than 1/16 of a sequence
  const int64_t step_;                       // tokens, of all sequences, that go through the layers together
  const int64_t pages_;                      // of a sequence
  const int64_t logit_rows_;                 // that are computed together
  Ops ops_;
  std::unique_ptr<Stream> compute_;
  std::unique_ptr<Communicator> alone_;
  const Layout layout_;  // of nothing: the network's names and shapes of weights are used, not its forward
  std::optional<Context> context_;
  std::unique_ptr<Transformer> network_;
  std::vector<Layer> layers_;
  DecodeKernels kernels_;
  bool together_ = false;  // the round's sequences go through NSA with kernels_
  // Of a round of so many sequences, tokens, logits, and tokens of a sequence at most; null until a second one is
  // alike.
  using RoundShape = std::array<int64_t, 4>;
  RoundShape shape_ = {};
  std::unique_ptr<Graph> graph_;
  Arena arena_;
  Rope rope_;
  Tensor summary_positions_;  // [pages*b/d] I32 of compressed rows
  Tensor table_;              // [sequences,pages] I32: sequence i has pages i*pages ..
  Tensor whole_;              // [sequences] I32: i, the page of all of these
  // Of a step, [step(),..].
  Tensor tokens_, positions_;           // I32
  Tensor x_, middle_, normed_;          // [.,D]
  Tensor q_, k_, rotated_k_, v_, out_;  // [.,H,K], [.,G,K] twice, [.,G,V], [.,H,V]
  Tensor gate_logits_, gates_;          // [.,3H], [.,H,3]
  BranchOutputs branch_;
  Tensor ffn_gate_, ffn_up_, ffn_act_;  // [.,F]
  Tensor last_, last_x_, logits_;       // [logit_rows_] I32, [logit_rows_,D], [logit_rows_,X]
  std::vector<int64_t> lengths_;        // of each sequence
  std::vector<int64_t> written_;        // the longest that it was since it was empty
};

}  // namespace longspan
