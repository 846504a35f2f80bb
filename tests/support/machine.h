// Where a test runs: a device, a stream of it, its kernels and the floating type, and tensors of its memory.
//
// Host values are doubles (exact for every type used); uploads round to the machine's type.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "runtime/device.h"
#include "runtime/memory.h"
#include "runtime/tensor.h"

namespace longspan::test {

struct Machine {
  Device* device;
  Stream* stream;
  const Ops* ops;
  DType dtype;  // kF32 or kF64
};

// The CPU, one for the process.
Machine CpuMachine(DType dtype);

// A tensor with its own memory, filled with 0xFF bytes (NaN) when made.
class OwnedTensor {
 public:
  OwnedTensor() = default;
  OwnedTensor(const Machine& machine, const std::string& name, DType dtype, const Shape& shape);
  const Tensor& view() const { return view_; }

 private:
  Buffer buffer_;
  Tensor view_;
};

// Both return when the copy is done. `values` has as many elements as the shape.
OwnedTensor Upload(const Machine& machine, const std::string& name, const std::vector<double>& values,
                   const Shape& shape);
OwnedTensor Upload(const Machine& machine, const std::string& name, const std::vector<int32_t>& values,
                   const Shape& shape);
// F64, whatever the machine's type.
OwnedTensor UploadF64(const Machine& machine, const std::string& name, const std::vector<double>& values,
                      const Shape& shape);

PhiWeights Views(const PhiSet<OwnedTensor>& phi);

std::vector<double> Download(const Machine& machine, const Tensor& tensor);       // F32 or F64
std::vector<int32_t> DownloadInts(const Machine& machine, const Tensor& tensor);  // I32

}  // namespace longspan::test
