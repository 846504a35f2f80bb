// Native Sparse Attention of one layer under context parallelism (arXiv 2502.11089; DESIGN.md sections 2 and 3).
//
//   compute stream                          communication stream
//   -------------------------------------   ------------------------------------------
//   (the caller's: q and gates)             halo of the compression inputs, of the window
//   compress own rows -> summaries
//   window branch                           all-gather of summaries; of selected rows (GATHER)
//   compressed branch, selection
//   (FETCH: the window branch here)         what was chosen, agreement on who sends what, the chosen blocks (FETCH)
//   selected branch, combination
//
// Backward walks the other way and gives every borrowed row's gradient back to its owner:
//
//   selected branch (SHARED: the window branch first)
//   compressed branch                       reduce-scatter of selected rows
//   (SEPARATE: the window branch here)      reduce-scatter of summaries
//   (the caller's: what needs d_q)
//   compression of own rows                 (SEPARATE: halo of the window)
//   (the caller's: what needs no rows)      halo of the compression inputs; SHARED: of the window
//
// Branches that SHARE keys and values read the same rows: one buffer, in which the window's halo lies behind what the
// selected branch borrows, and one transfer of each kind. Only keys that are compressed before their rotation
// (compress_rope AFTER) have a buffer and a halo of their own.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/attention/core.h"
#include "parallel/exchange/exchange.h"

namespace longspan {

// The compression weights of K and V and where their gradients go (accumulated). All null for MEAN.
struct PhiPair {
  PhiWeights k, v;
  PhiWeights d_k, d_v;
};

// Rotation of the compressed keys (compress_rope AFTER). Null frequency: none.
struct SummaryRope {
  Tensor frequency;  // [K/2] F64
  double factor = 1;
};

class NsaCore : public AttentionCore {
 public:
  // `scale` multiplies the scores (1/sqrt(K)). `exchange` says how selected rows travel: AUTO as GATHER, until
  // SetExchange.
  NsaCore(const Context& context, const Sizes& sizes, const NsaConfig& nsa, SelectedExchange exchange, double scale);

  void Reserve(Arena& arena, const std::string& name, MemoryUse outputs) override;
  void ReserveGradients(Arena& arena, AttentionGradients* gradients) override;
  void Start() override;
  void SetPhi(const PhiPair& phi) { phi_ = phi; }  // before Forward; the tensors outlive the core's use
  void SetSummaryRope(const SummaryRope& rope) { rope_ = rope; }
  // Of a core that was made as AUTO: GATHER or FETCH from the next Forward on. The streams are idle.
  void SetExchange(SelectedExchange exchange);
  bool fetches() const { return fetch_ && !gathers_; }
  // From now on Forward takes this choice, [T,G,N] I32, on its device, instead of its own; null: free again.
  void FreezeSelection(const Tensor& selected) { frozen_ = selected; }

  // By branch; SHARED: one for all.
  const std::vector<KeyRows>& rows() const override { return own_; }
  KeyRows OwnRows(int i, const KeyRows& buffers) const override;
  const Tensor& q() const override { return q_; }
  const Tensor& gates() const override { return gates_; }
  const Tensor& out() const override { return out_; }
  const Tensor& selected() const { return selected_; }                 // [T,G,N] I32, of the last Forward
  const Tensor& branch_out(int branch) const { return o_[branch]; }    // [T,H,V]
  const Tensor& branch_lse(int branch) const { return lse_[branch]; }  // [T,H]

  void LendRows() override;
  void Forward(const SequenceInputs& inputs) override;
  void Restore(const SequenceInputs& inputs) override;
  std::vector<Tensor> kept() const override;
  void Backward(const SequenceInputs& inputs, const Tensor& d_out, const AttentionGradients& gradients) override;
  void ReturnRows(const SequenceInputs& inputs, const AttentionGradients& gradients) override;
  void AwaitRows() override;

  int64_t borrowed_bytes() const override;
  // Of the last Forward. FETCH: fetched / remote blocks; GATHER: 1.
  double coverage() const { return fetch_ ? fetch_->coverage() : 1.0; }

  static constexpr int kCmp = 0, kSlc = 1, kWin = 2;  // order of branches everywhere
  static constexpr const char* kBranchNames[] = {"cmp", "slc", "win"};

 private:
  enum class Direction { kForward, kBackward };
  int projections() const { return shared_ ? 1 : 3; }  // of keys and of values
  using Reserver = std::function<void(const std::string& name, Tensor* slot, const Shape& shape)>;
  // Calls `reserve` for each buffer of keys and values that there is.
  void ReserveRows(KeyRows* rows, const Reserver& reserve) const;
  // Of rows with the geometry of buffers_, what travels with a branch's exchange, as that knows it.
  std::vector<Tensor> Travelling(int branch, const KeyRows* rows) const;
  // Starts an exchange once the compute stream has come this far; `done` follows it on the communication stream.
  void Begin(Direction direction, Exchange& exchange, const std::vector<Tensor>& tensors, Event& done);
  void BeginRows(Direction direction, int branch, const KeyRows* rows);
  void CommFollowsCompute();
  void Summarize(const SequenceInputs& inputs);
  Tensor OwnSummaries(const Tensor& rows) const;
  void RotateSummaries(const SequenceInputs& inputs, const Tensor& own, bool inverse);
  void Fill(const SequenceInputs& inputs, int branch, BranchArgs* args) const;
  CompressArgs CompressionOfK() const;
  CompressArgs CompressionOfV() const;
  CompressedArgs CompressedBranch(const SequenceInputs& inputs) const;
  SelectedArgs SelectedBranch(const SequenceInputs& inputs) const;
  WindowArgs WindowBranch(const SequenceInputs& inputs) const;
  void Select(const SequenceInputs& inputs);
  void Combine();
  // The compute stream waits for a transfer, in its stage, as the span `stall`.
  void Await(const Event& done, const char* stage, const char* stall);

  const Context& context_;
  Sizes sizes_;
  NsaConfig nsa_;
  double scale_;
  PhiPair phi_;
  SummaryRope rope_;
  Tensor frozen_;

  bool shared_;      // all branches read the rows of one projection
  bool plain_keys_;  // compression reads keys before their rotation
  // Of raw rows, by branch. SHARED: the selected branch's and the window's for one buffer, the window's halo for
  // compression, too; kCmp only of keys without rotation, or null.
  std::array<std::unique_ptr<Exchange>, 3> exchange_;
  FetchExchange* fetch_ = nullptr;  // exchange_[kSlc] when it is one
  bool gathers_ = false;            // and that gathers all
  std::unique_ptr<Exchange> summaries_;

  Tensor q_, gates_, out_, selected_;
  std::array<KeyRows, 3> buffers_;  // [R,G,.] by branch; SHARED: only the first
  Tensor summary_k_, summary_v_;    // [S/d,G,K], [S/d,G,V]
  std::array<Tensor, 3> o_, lse_;
  std::vector<KeyRows> own_;  // this rank's rows of buffers_

  std::unique_ptr<Event> ready_, summaries_done_;
  std::array<std::unique_ptr<Event>, 3> done_;  // of exchange_, by branch
  bool restored_ = false;                       // the backward waits for rows, not the forward
};

}  // namespace longspan
