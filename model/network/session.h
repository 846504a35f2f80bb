// Session: what one rank holds to run a model: streams, layout, network and the memory planned for them.
//
// Built in two steps, so that --dry-run can show the plan without allocating: the constructor reserves, Start allocates
// and initialises. In between others may reserve too (the optimizer).
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>

#include "kernels/host_copy.h"
#include "model/config.h"
#include "model/inputs.h"
#include "model/network/transformer.h"
#include "parallel/comm/comm.h"
#include "runtime/host_buffer.h"

namespace longspan {

class Session {
 public:
  // `cp`: the ranks that share a sequence, over the device's memory. Both outlive the session. `dtype` is of weights
  // and activations; F64 (CPU) is for checking. `ops` instead of the device's own, for tests.
  Session(const SessionConfig& config, Device& device, Communicator& cp, DType dtype, Ops ops = {});

  void Start(uint64_t seed);
  // Has the device read the batch, which may then be reused, from page-locked memory, where it has a place of its own
  // for each `slot`: the host waits for nothing, but loads no slot again before the compute stream has come past its
  // last Load. `loss_scale` is 1 / the number of labels of the whole step, over all ranks and accumulated sequences.
  void Load(const Batch& batch, double loss_scale = 0, size_t slot = 0);

  template <typename T>
  std::vector<T> ToHost(const Tensor& x) {  // after all work so far
    return HostValues<T>(device_, *compute_, x);
  }

  Device& device() { return device_; }
  Ops& ops() { return ops_; }
  Stream& compute() { return *compute_; }
  Stream& comm() { return *comm_; }
  const Layout& layout() const { return layout_; }
  const Context& context() const { return *context_; }
  Arena& arena() { return arena_; }
  Transformer& model() { return *model_; }
  const SequenceInputs& inputs() const { return inputs_; }

 private:
  std::array<Tensor*, 6> Parts();  // of batch_

  Device& device_;
  Ops ops_;
  std::unique_ptr<Stream> compute_, comm_;
  Layout layout_;
  std::optional<Context> context_;
  Arena arena_;
  std::unique_ptr<Transformer> model_;
  Tensor batch_;                   // one copy brings all of it
  SequenceInputs inputs_;          // parts of it
  std::deque<HostBuffer> staged_;  // by slot
};

}  // namespace longspan
