// The weights of a context by name: phi's of keys and values, and those that make gates of queries (nsa/nsa.h).
#pragma once

#include <array>
#include <string>
#include <vector>

#include "kernels/attention/phi.h"
#include "runtime/memory.h"

namespace longspan {

class Weights {
 public:
  // `sizes`: of phi for keys and for values.
  Weights(const PhiSizes& keys, const PhiSizes& values, DType dtype, DType gradient_dtype, DeviceKind device);
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  void Reserve(Arena& arena);

  struct Weight {
    std::string name;
    Shape shape;
    Tensor memory;    // the context's own, valid once the arena is committed
    Tensor value;     // own memory or the caller's; null: not set
    Tensor gradient;  // the caller's, or null
  };
  Weight& Find(const std::string& name);  // refuses names that are not in the list
  std::vector<Weight>& all() { return all_; }

  void Bind(const std::string& name, void* data);
  void BindGradient(const std::string& name, void* data);

  bool any_phi() const;     // of phi's, one or more is set
  void RequirePhi() const;  // refuses when one is not
  struct Phis {
    PhiWeights k, v;
  };
  Phis values() const { return Collect(&Weight::value); }
  Phis gradients() const { return Collect(&Weight::gradient); }

  // Both or none is set; one alone is refused.
  bool has_gates() const;
  const Weight& gate_weight() const { return all_[gate_]; }
  const Weight& gate_bias() const { return all_[gate_ + 1]; }

 private:
  Phis Collect(Tensor Weight::*member) const;

  DType dtype_, gradient_dtype_;
  DeviceKind device_;
  std::vector<Weight> all_;                 // phi_k's, phi_v's, gate.weight, gate.bias
  std::array<std::vector<size_t>, 2> phi_;  // of keys, of values: place in a PhiSet of all_[0], [1], ..
  size_t gate_ = 0;
};

}  // namespace longspan
