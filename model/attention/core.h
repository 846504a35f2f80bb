// AttentionCore: an attention operator of one layer under context parallelism, without its projections.
//
// The caller writes this rank's own key/value rows, q and gates into the tensors given here, in turn with the calls:
//
//   forward: own rows, LendRows, q and gates, Forward, read `out`
//   backward: Backward, read d_q and d_gates, ReturnRows, AwaitRows, read the own rows' gradients
//
// What it does between two calls hides the transfers that the first of them begins, and leaves their tensors alone: own
// rows between LendRows and Forward (of a Restore: and Backward), gradients of rows between Backward and AwaitRows,
// another layer's too where layers share them. NSA is one kind (model/attention/nsa.h); FULL and WINDOW another
// (model/attention/single_branch.h). The `attention` command drives a core directly, the transformer through
// model/attention/layer.h.
//
// A core keeps what its backward needs, or, when tensors of several cores take turns in the same memory, only the
// outputs of its attention (`kept`): Restore then makes the rest again. Gradients go to an AttentionGradients, which
// all layers of a model share.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "model/context.h"
#include "model/inputs.h"
#include "runtime/memory.h"

namespace longspan {

// Keys and values that one projection of each gives, for one branch or for several.
struct KeyRows {
  Tensor k;          // [.,G,K], for the branches that read it without rotation; null: none does
  Tensor rotated_k;  // [.,G,K], likewise with rotation
  Tensor v;          // [.,G,V]

  const Tensor& projected_k() const { return k ? k : rotated_k; }  // what the projection is written to
};

// Gradients of a core's inputs, and workspace of its backward. Those of rows have the geometry of the exchanges'
// buffers; after AwaitRows a core's OwnRows of them are complete.
struct AttentionGradients {
  Tensor d_q;                       // [T,H,K]
  std::array<KeyRows, 3> rows;      // as many as the core's rows(), [R,G,.]
  Tensor d_gates;                   // [T,H,3], NSA only
  Tensor d_summary_k, d_summary_v;  // [S/d,G,K], [S/d,G,V], NSA only
};

class AttentionCore {
 public:
  struct Sizes {
    int64_t heads, kv_heads, key_width, value_width;
  };

  virtual ~AttentionCore() = default;
  // Reserves activations and exchange buffers under `name`; what kept() lists as of the use `outputs`.
  virtual void Reserve(Arena& arena, const std::string& name, MemoryUse outputs) = 0;
  // Workspace; once for all equal layers.
  virtual void ReserveGradients(Arena& arena, AttentionGradients* gradients) = 0;
  virtual void Start() = 0;  // after Commit: uploads tables, cuts views
  // This rank's own rows ([T,..]) of all keys and values, for the caller to write.
  virtual const std::vector<KeyRows>& rows() const = 0;
  // The same part of buffers with the geometry of the exchanges of rows()[i].
  virtual KeyRows OwnRows(int i, const KeyRows& buffers) const = 0;
  virtual const Tensor& q() const = 0;      // [T,H,K], to be written rotated
  virtual const Tensor& gates() const = 0;  // [T,H,3] after the sigmoid; null when the kind has none
  virtual const Tensor& out() const = 0;    // [T,H,V]
  // The own rows are written: other ranks begin to borrow them. Before every Forward and Restore.
  virtual void LendRows() = 0;
  virtual void Forward(const SequenceInputs& inputs) = 0;
  // After a Forward of the same inputs of which only kept() is left, and with q, gates and own rows written again:
  // makes everything else that Backward needs, and `out`.
  virtual void Restore(const SequenceInputs& inputs) = 0;
  // Outputs, statistics and choice of the attention: what costs most to make again.
  virtual std::vector<Tensor> kept() const = 0;
  virtual int64_t borrowed_bytes() const = 0;  // that the last Forward brought from other ranks
  // d_out [T,H,V]. Overwrites `gradients`, of which d_q and d_gates are complete then.
  virtual void Backward(const SequenceInputs& inputs, const Tensor& d_out, const AttentionGradients& gradients) = 0;
  // The rest of the gradients of borrowed rows begins to go back to their owners. Accumulates into the core's own
  // parameters' gradients.
  virtual void ReturnRows(const SequenceInputs& inputs, const AttentionGradients& gradients) = 0;
  virtual void AwaitRows() = 0;  // until the own rows' gradients are complete
};

}  // namespace longspan
