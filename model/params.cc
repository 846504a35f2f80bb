#include "model/params.h"

#include <cmath>
#include <numbers>
#include <random>

namespace longspan {
namespace {

constexpr int64_t kAlign = 16;  // elements, so that every tensor starts on a vector

uint64_t NameSeed(uint64_t seed, const std::string& name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325u ^ (seed * 0x9e3779b97f4a7c15u);
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3u;
  return hash;
}

// Standard normal numbers by Box and Muller; the standard library's distribution differs between implementations.
class NormalSource {
 public:
  explicit NormalSource(uint64_t seed) : random_(seed) {}
  double Next() {
    const double u = (static_cast<double>(random_() >> 11) + 1) * 0x1p-53;  // (0,1]
    const double v = static_cast<double>(random_() >> 11) * 0x1p-53;
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace

Param& ParamTable::Add(const std::string& name, const Shape& shape, Init init, bool decay) {
  LS_CHECK(!weights_, "parameter {} added after the buffers were made", name);
  Param& param = *params_.emplace_back(std::make_unique<Param>());
  param.name = name;
  param.shape = shape;
  param.init = init;
  param.decay = decay;
  param.offset = size_;
  size_ += (param.size() + kAlign - 1) / kAlign * kAlign;
  return param;
}

void ParamTable::Reserve(Arena& arena, DType dtype, DType gradient_dtype) {
  arena.Reserve(&weights_, MemoryUse::kWeights, "weights", dtype, {size_});
  arena.Reserve(&gradients_, MemoryUse::kGradients, "gradients", gradient_dtype, {size_});
}

void ParamTable::Bind() {
  for (const auto& param : params_) {
    param->weight = weights_.Rows(param->offset, param->size()).Reshape(param->shape);
    param->gradient = gradients_.Rows(param->offset, param->size()).Reshape(param->shape);
  }
}

void ParamTable::Initialise(Device& device, Stream& stream, uint64_t seed) {
  device.FillBytes(stream, weights_, 0);
  device.FillBytes(stream, gradients_, 0);
  for (const auto& param : params_) {
    NormalSource normal(NameSeed(seed, param->name));
    std::vector<double> wide(param->size());
    for (double& x : wide) x = param->init.mean + (param->init.stddev > 0 ? param->init.stddev * normal.Next() : 0);
    if (weights_.dtype == DType::kF64) {
      device.Copy(stream, param->weight, HostView(wide.data(), param->shape));
      stream.Synchronize();
      continue;
    }
    std::vector<float> narrow(wide.begin(), wide.end());
    device.Copy(stream, param->weight, HostView(narrow.data(), param->shape));
    stream.Synchronize();
  }
}

int64_t ParamTable::parameters() const {
  int64_t sum = 0;
  for (const auto& param : params_) sum += param->size();
  return sum;
}

const Param& ParamTable::Find(const std::string& name) const {
  for (const auto& param : params_) {
    if (param->name == name) return *param;
  }
  Fail(ExitCode::kRankFailed, "no parameter is named {}", name);
}

}  // namespace longspan
