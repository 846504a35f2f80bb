// Values on a GPU for tests: host doubles to and from tensors of F32, BF16 or I32.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/machine.h"

namespace longspan::test {

// GPU 0, one for the process; its `ops` is null, its dtype that given. Ask GpuCount() before.
inline Machine GpuMachine(DType dtype) {
  static const std::unique_ptr<Device> device = MakeGpuDevice(0);
  static const std::unique_ptr<Stream> stream = device->MakeStream("test");
  return {device.get(), stream.get(), nullptr, dtype};
}

inline uint16_t Bf16Bits(double x) {
  if (std::isnan(x)) return 0x7FC0;
  const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(x));
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline double Bf16Value(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// The values that a tensor of this type holds.
inline std::vector<double> Rounded(std::vector<double> values, DType dtype) {
  for (double& x : values) x = dtype == DType::kBf16 ? Bf16Value(Bf16Bits(x)) : static_cast<float>(x);
  return values;
}

// To F32 or BF16, as the machine says.
inline OwnedTensor UploadValues(const Machine& machine, const std::string& name, const std::vector<double>& values,
                                const Shape& shape) {
  if (machine.dtype != DType::kBf16) return Upload(machine, name, values, shape);
  std::vector<uint16_t> staged(values.size());
  for (size_t i = 0; i < values.size(); ++i) staged[i] = Bf16Bits(values[i]);
  OwnedTensor tensor(machine, name, DType::kBf16, shape);
  machine.device->Copy(*machine.stream, tensor.view(), Tensor(staged.data(), DType::kBf16, DeviceKind::kCpu, shape));
  machine.stream->Synchronize();
  return tensor;
}

// From F32 or BF16.
inline std::vector<double> DownloadValues(const Machine& machine, const Tensor& tensor) {
  if (tensor.dtype != DType::kBf16) return Download(machine, tensor);
  std::vector<uint16_t> staged(tensor.size());
  machine.device->Copy(*machine.stream, Tensor(staged.data(), DType::kBf16, DeviceKind::kCpu, tensor.shape), tensor);
  machine.stream->Synchronize();
  std::vector<double> values(staged.size());
  for (size_t i = 0; i < staged.size(); ++i) values[i] = Bf16Value(staged[i]);
  return values;
}

}  // namespace longspan::test
