#include "tests/support/machine.h"

#include <algorithm>

namespace longspan::test {
namespace {

template <typename T, typename From>
OwnedTensor UploadAs(const Machine& machine, const std::string& name, const std::vector<From>& values,
                     const Shape& shape) {
  LS_CHECK(static_cast<int64_t>(values.size()) == shape.count(), "{}: expected {} values, found {}", name,
           shape.ToString(), values.size());
  OwnedTensor tensor(machine, name, DTypeOf<T>(), shape);
  std::vector<T> staged(values.begin(), values.end());
  if (!staged.empty()) {
    machine.device->Copy(*machine.stream, tensor.view(), HostView(staged.data(), shape));
    machine.stream->Synchronize();
  }
  return tensor;
}

template <typename T, typename To>
std::vector<To> DownloadAs(const Machine& machine, const Tensor& tensor) {
  std::vector<T> staged(tensor.size());
  if (!staged.empty()) machine.device->Copy(*machine.stream, HostView(staged.data(), tensor.shape), tensor);
  machine.stream->Synchronize();
  return {staged.begin(), staged.end()};
}

}  // namespace

Machine CpuMachine(DType dtype) {
  static const std::unique_ptr<Device> device = MakeCpuDevice();
  static const std::unique_ptr<Stream> stream = device->MakeStream("test");
  static const Ops ops = MakeCpuOps();
  return {device.get(), stream.get(), &ops, dtype};
}

OwnedTensor::OwnedTensor(const Machine& machine, const std::string& name, DType dtype, const Shape& shape)
    : buffer_(*machine.device, std::max<int64_t>(1, shape.count()) * DTypeSize(dtype), name),
      view_(buffer_.data(), dtype, machine.device->kind(), shape) {
  if (shape.count() > 0) machine.device->FillBytes(*machine.stream, view_, 0xFF);
}

OwnedTensor Upload(const Machine& machine, const std::string& name, const std::vector<double>& values,
                   const Shape& shape) {
  return machine.dtype == DType::kF64 ? UploadAs<double>(machine, name, values, shape)
                                      : UploadAs<float>(machine, name, values, shape);
}

OwnedTensor Upload(const Machine& machine, const std::string& name, const std::vector<int32_t>& values,
                   const Shape& shape) {
  return UploadAs<int32_t>(machine, name, values, shape);
}

OwnedTensor UploadF64(const Machine& machine, const std::string& name, const std::vector<double>& values,
                      const Shape& shape) {
  return UploadAs<double>(machine, name, values, shape);
}

PhiWeights Views(const PhiSet<OwnedTensor>& phi) {
  PhiWeights views;
  for (size_t i = 0; i < phi.kSize; ++i) views[i] = phi[i].view();
  return views;
}

std::vector<double> Download(const Machine& machine, const Tensor& tensor) {
  return tensor.dtype == DType::kF64 ? DownloadAs<double, double>(machine, tensor)
                                     : DownloadAs<float, double>(machine, tensor);
}

std::vector<int32_t> DownloadInts(const Machine& machine, const Tensor& tensor) {
  return DownloadAs<int32_t, int32_t>(machine, tensor);
}

}  // namespace longspan::test
