#include "launch/checkpoint/weights.h"

#include <fmt/ranges.h>

#include <vector>

#include "kernels/host_copy.h"
#include "runtime/error.h"

namespace longspan {

std::string WeightName(const std::string& parameter) { return "weight." + parameter; }

void LoadWeights(CheckpointReader& reader, Device& device, Stream& stream, const ParamTable& params) {
  std::vector<float> values;
  for (const auto& param : params.params()) {
    const std::string name = WeightName(param->name);
    const auto found = reader.manifest().tensors.find(name);
    if (found != reader.manifest().tensors.end()) {
      const std::vector<int64_t>& shape = found->second.shape;
      if (Shape(shape) != param->shape) {
        Fail(ExitCode::kData, "{}: {}: expected the shape {}, found [{}]", reader.path(), name, param->shape.ToString(),
             fmt::join(shape, ","));
      }
    }
    values.resize(param->size());
    const Tensor host = HostView(values.data(), param->shape);
    reader.Read(name, 0, host);
    HostCopy(device, stream, host, param->weight);
  }
}

}  // namespace longspan
