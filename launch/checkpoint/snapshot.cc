#include "launch/checkpoint/snapshot.h"

#include "runtime/files/safetensors.h"

namespace longspan {

std::vector<std::pair<std::string, Tensor>> OwnTensors(const Optimizer& optimizer) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const Optimizer::State& state : optimizer.OwnState()) {
    tensors.emplace_back("weight." + state.name, state.weight);
    tensors.emplace_back("adamw.m." + state.name, state.m);
    tensors.emplace_back("adamw.v." + state.name, state.v);
  }
  return tensors;
}

void Snapshot::Take(Device& device, Stream& stream, const Optimizer& optimizer) {
  tensors_ = OwnTensors(optimizer);
  if (tensors_.empty()) return;
  auto* next = static_cast<char*>(memory_.Get(device, optimizer.own_state_bytes()));
  for (auto& [name, tensor] : tensors_) {
    const Tensor copy(next, tensor.dtype, DeviceKind::kCpu, tensor.shape);
    device.Copy(stream, copy, tensor);
    next += tensor.bytes();
    tensor = copy;
  }
}

Manifest Snapshot::Write(const std::string& folder, const std::string& name) const {
  Manifest part;
  if (tensors_.empty()) return part;
  for (const auto& [tensor_name, tensor] : tensors_) {
    std::vector<int64_t> shape;
    for (int i = 0; i < tensor.shape.rank(); ++i) shape.push_back(tensor.dim(i));
    part.tensors[tensor_name] = {tensor.dtype, shape, {{name, 0, tensor.size()}}};
  }
  const WrittenFile written = WriteSafetensors(folder + "/" + name, tensors_);
  part.files[name] = {written.bytes, written.checksum};
  return part;
}

}  // namespace longspan
