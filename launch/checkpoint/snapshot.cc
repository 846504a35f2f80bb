#include "launch/checkpoint/snapshot.h"

#include <algorithm>

#include "launch/checkpoint/weights.h"
#include "runtime/files/safetensors.h"

namespace longspan {
namespace {

// Elements that are under way at once: a GPU brings to the host what was enqueued first, of whichever stream, so that
// training would wait behind all of them for its own few bytes.
constexpr int64_t kPiece = 4 << 20;

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
    for (int64_t begin = 0; begin < part.size(); begin += kPiece) {
      const int64_t count = std::min(kPiece, part.size() - begin);
      device.Copy(stream, copy.Rows(begin, count), part.Rows(begin, count));
      stream.Synchronize();
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
