// Attention of one branch under context parallelism: FULL (dense causal, keys and values all-gathered) and WINDOW (the
// window branch alone, with its halo). For comparison runs and hybrid stacks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/attention/core.h"
#include "parallel/exchange/exchange.h"

namespace longspan {

class SingleBranchCore : public AttentionCore {
 public:
  // window = 0: FULL.
  SingleBranchCore(const Context& context, const Sizes& sizes, int64_t window, double scale);

  void Reserve(Arena& arena, const std::string& name, MemoryUse outputs) override;
  void ReserveGradients(Arena& arena, AttentionGradients* gradients) override;
  void Start() override;
  const std::vector<KeyRows>& rows() const override { return own_; }
  KeyRows OwnRows(int i, const KeyRows& buffers) const override;
  const Tensor& q() const override { return q_; }
  const Tensor& gates() const override { return no_gates_; }
  const Tensor& out() const override { return out_; }
  void LendRows() override;
  void Forward(const SequenceInputs& inputs) override;
  void Restore(const SequenceInputs&) override { restored_ = true; }
  std::vector<Tensor> kept() const override { return {out_, lse_}; }
  int64_t borrowed_bytes() const override { return exchange_->borrowed_bytes(); }
  void Backward(const SequenceInputs& inputs, const Tensor& d_out, const AttentionGradients& gradients) override;
  void ReturnRows(const SequenceInputs&, const AttentionGradients&) override {}  // Backward has begun it
  void AwaitRows() override;

 private:
  WindowArgs Branch(const SequenceInputs& inputs) const;

  const Context& context_;
  Sizes sizes_;
  int64_t window_;
  double scale_;
  std::unique_ptr<Exchange> exchange_;
  Tensor q_, k_, v_, out_, lse_, no_gates_;
  std::vector<KeyRows> own_;
  std::unique_ptr<Event> ready_, done_;
  bool restored_ = false;  // the backward waits for rows, not the forward
};

}  // namespace longspan
