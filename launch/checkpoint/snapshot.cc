#include "launch/checkpoint/snapshot.h"

#include <algorithm>

#include "launch/checkpoint/weights.h"
#include "runtime/files/safetensors.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

// A flat tensor is copied in at most so many pieces: the next step's sequences wait for one on their way to the device,
// not for the whole state. A GPU's queue of copies holds a few hundred; the host would wait where it is full.
constexpr int64_t kPieces = 64;

}  // namespace

std::vector<std::pair<std::string, Tensor>> NamedTensors(const std::vector<Optimizer::State>& states) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const Optimizer::State& state : states) {
    tensors.emplace_back(WeightName(state.name), state.weight);
    tensors.emplace_back("adamw.m." + state.name, state.m);
    tensors.emplace_back("adamw.v." + state.name, state.v);
  }
  return tensors;
}

void Snapshot::Take(Device& device, Stream& stream, const Optimizer& optimizer) {
  Optimizer::FlatState flat = optimizer.OwnFlat();
  auto* next = static_cast<char*>(memory_.Get(device, optimizer.own_state_bytes()));
  for (Tensor& part : flat) {
    const Tensor copy(next, part.dtype, DeviceKind::kCpu, part.shape);
    const int64_t piece = CeilDiv(part.size(), kPieces);
    for (int64_t begin = 0; begin < part.size(); begin += piece) {
      const int64_t count = std::min(piece, part.size() - begin);
      device.Copy(stream, copy.Rows(begin, count), part.Rows(begin, count));
    }
    next += part.bytes();
    part = copy;
  }
  tensors_ = NamedTensors(optimizer.Cut(flat));
}

Manifest Snapshot::Write(const std::string& folder, const std::string& name) const {
  Manifest part;
  if (tensors_.empty()) return part;
  for (const auto& [tensor_name, tensor] : tensors_) {
    part.tensors[tensor_name] = {tensor.dtype, Dimensions(tensor.shape), {{name, 0, tensor.size()}}};
  }
  const WrittenFile written = WriteSafetensors(folder + "/" + name, tensors_);
  part.files[name] = {written.bytes, written.checksum};
  return part;
}

}  // namespace longspan
