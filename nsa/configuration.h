// What a configuration of the C interface says, checked and in the program's own types; and weights of a file.
#pragma once

#include <memory>
#include <string>

#include "kernels/attention/phi.h"
#include "nsa/nsa.h"
#include "runtime/device.h"
#include "runtime/files/safetensors.h"

namespace longspan {

const NSAConfig& Checked(const NSAConfig& config);  // refuses what is against the rules, by field
void CheckPlace(const NSAConfig& config);           // of it, dtype and device alone
NsaConfig NsaOf(const NSAConfig& config);
int64_t ValueWidth(const NSAConfig& config);
PhiSizes SizesOfPhi(const NSAConfig& config, int64_t width);
DType TypeOf(int dtype);  // of an NSADType
// Refuses devices that are not there, and types that they do not have.
std::unique_ptr<Device> FindDevice(const NSAConfig& config);

// A view of a floating tensor of the file; refuses another shape or type.
Tensor FloatsOf(const SafetensorsFile& file, const std::string& name, const Shape& shape);

}  // namespace longspan
