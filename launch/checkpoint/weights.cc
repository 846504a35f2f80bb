#include "launch/checkpoint/weights.h"

#include <fmt/ranges.h>

#include <vector>

#include "kernels/host_copy.h"
#include "runtime/error.h"

namespace longspan {

std::vector<int64_t> Dimensions(const Shape& shape) {
  std::vector<int64_t> dimensions;
  for (int i = 0; i < shape.rank(); ++i) dimensions.push_back(shape[i]);
  return dimensions;
}

std::string WeightName(const std::string& parameter) { return "weight." + parameter; }

namespace {

void Load(CheckpointReader& reader, Device& device, Stream& stream, const std::string& parameter, const Tensor& to) {
  const std::string name = WeightName(parameter);
  const auto found = reader.manifest().tensors.find(name);
  if (found != reader.manifest().tensors.end() && found->second.shape != Dimensions(to.shape)) {
    Fail(ExitCode::kData, "{}: {}: expected the shape {}, found [{}]", reader.path(), name, to.shape.ToString(),
         fmt::join(found->second.shape, ","));
  }
  std::vector<float> values(to.size());
  const Tensor host = HostView(values.data(), to.shape);
  reader.Read(name, 0, host);
  HostCopy(device, stream, host, to);
}

}  // namespace

void LoadWeights(CheckpointReader& reader, Device& device, Stream& stream, const ParamTable& params) {
  for (const auto& param : params.params()) Load(reader, device, stream, param->name, param->weight);
}

void LoadWeights(CheckpointReader& reader, Device& device, Stream& stream, Optimizer& optimizer) {
  for (const Optimizer::State& state : optimizer.OwnState()) Load(reader, device, stream, state.name, state.weight);
  optimizer.SpreadWeights();
  stream.Synchronize();
}

}  // namespace longspan
