#include "nsa/weights.h"

#include "nsa/status.h"

namespace longspan {

Weights::Weights(const PhiSizes& keys, const PhiSizes& values, DType dtype, DType gradient_dtype, DeviceKind device)
    : dtype_(dtype), gradient_dtype_(gradient_dtype), device_(device) {
  for (const auto& [prefix, sizes, places] : {std::tuple("phi_k.", &keys, &phi_[0]), {"phi_v.", &values, &phi_[1]}}) {
    ForPhi(*sizes, [&, prefix = prefix, places = places](size_t i, const Shape& shape) {
      all_.push_back({prefix + std::string(kPhiNames[i]), shape, {}, {}, {}});
      places->push_back(i);
    });
  }
  gate_ = all_.size();
  all_.push_back({"gate.weight", {keys.width, 3}, {}, {}, {}});
  all_.push_back({"gate.bias", {3}, {}, {}, {}});
}

void Weights::Reserve(Arena& arena) {
  for (Weight& weight : all_) arena.Reserve(&weight.memory, MemoryUse::kWeights, weight.name, dtype_, weight.shape);
}

Weights::Weight& Weights::Find(const std::string& name) {
  std::string known;
  for (Weight& weight : all_) {
    if (weight.name == name) return weight;
    known += (known.empty() ? "" : ", ") + weight.name;
  }
  Refuse(NSA_ERROR_INVALID_ARGUMENT, "name: expected one of {}, found '{}'", known, name);
}

void Weights::Bind(const std::string& name, void* data) {
  Weight& weight = Find(name);
  weight.value = data ? Tensor(data, dtype_, device_, weight.shape) : Tensor();
}

void Weights::BindGradient(const std::string& name, void* data) {
  Weight& weight = Find(name);
  weight.gradient = data ? Tensor(data, gradient_dtype_, device_, weight.shape) : Tensor();
}

bool Weights::any_phi() const {
  for (size_t i = 0; i < gate_; ++i) {
    if (all_[i].value) return true;
  }
  return false;
}

void Weights::RequirePhi() const {
  std::string missing;
  for (size_t i = 0; i < gate_; ++i) {
    if (!all_[i].value) missing += (missing.empty() ? "" : ", ") + all_[i].name;
  }
  if (!missing.empty()) {
    Refuse(NSA_ERROR_MISSING_WEIGHT,
           "phi: expected weights set by nsa_set_weight, nsa_load_weights or nsa_bind_weight (or phi NSA_PHI_MEAN, "
           "which has none), missing {}",
           missing);
  }
}

bool Weights::has_gates() const {
  const bool weight = static_cast<bool>(gate_weight().value), bias = static_cast<bool>(gate_bias().value);
  if (weight != bias) {
    Refuse(NSA_ERROR_MISSING_WEIGHT, "gates: expected both gate.weight and gate.bias or neither, missing {}",
           weight ? "gate.bias" : "gate.weight");
  }
  return weight;
}

Weights::Phis Weights::Collect(Tensor Weight::*member) const {
  Phis phis;
  for (size_t i = 0; i < phi_[0].size(); ++i) phis.k[phi_[0][i]] = all_[i].*member;
  for (size_t i = 0; i < phi_[1].size(); ++i) phis.v[phi_[1][i]] = all_[phi_[0].size() + i].*member;
  return phis;
}

}  // namespace longspan
