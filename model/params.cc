#include "model/params.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "runtime/rounding.h"

namespace longspan {
namespace {

constexpr int64_t kAlign = 16;          // elements, so that every tensor starts on a vector
constexpr int64_t kDrawnTogether = 16;  // parameters: bounds the host memory of an initialisation

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

template <typename T>
std::vector<T> Values(const Param& param, uint64_t seed) {
  NormalSource normal(NameSeed(seed, param.name));
  std::vector<T> values(param.size());
  const auto [mean, stddev] = param.init;
  for (T& x : values) x = static_cast<T>(stddev > 0 ? mean + stddev * normal.Next() : mean);
  return values;
}

}  // namespace

Param& ParamTable::Add(const std::string& name, const Shape& shape, Init init, bool decay) {
  LS_CHECK(!weights_, "parameter {} added after the buffers were made", name);
  Param& param = *params_.emplace_back(std::make_unique<Param>());
  param.name = name;
  param.shape = shape;
  param.init = init;
  param.decay = decay;
  param.offset = size_;
  size_ += RoundUp(param.size(), kAlign);
  return param;
}

void ParamTable::ReserveWeights(Arena& arena, DType dtype) {
  arena.Reserve(&weights_, MemoryUse::kWeights, "weights", dtype, {size_});
}

void ParamTable::Reserve(Arena& arena, DType dtype, DType gradient_dtype) {
  ReserveWeights(arena, dtype);
  arena.Reserve(&gradients_, MemoryUse::kGradients, "gradients", gradient_dtype, {size_});
}

void ParamTable::Bind() {
  for (const auto& param : params_) {
    param->weight = weights_.Rows(param->offset, param->size()).Reshape(param->shape);
    if (gradients_) param->gradient = gradients_.Rows(param->offset, param->size()).Reshape(param->shape);
  }
}

void ParamTable::Initialise(Device& device, Ops& ops, Stream& stream, uint64_t seed) {
  const bool narrow = weights_.dtype != gradients_.dtype;
  Draw(device, stream, seed, 0, static_cast<int64_t>(params_.size()), narrow ? gradients_ : weights_);
  if (narrow) ops.rows->Copy(stream, gradients_, weights_);
  device.FillBytes(stream, gradients_, 0);
}

void ParamTable::Draw(Device& device, Stream& stream, uint64_t seed, int64_t first, int64_t last,
                      const Tensor& flat) const {
  device.FillBytes(stream, flat, 0);
  if (stream.planned()) return;  // minutes for what nobody would see
  const auto draw = [&]<typename T>() {
    for (int64_t begin = first; begin < last; begin += kDrawnTogether) {
      const int64_t count = std::min(kDrawnTogether, last - begin);
      std::vector<std::vector<T>> values(count);
#pragma omp parallel for schedule(dynamic)
      for (int64_t i = 0; i < count; ++i) values[i] = Values<T>(*params_[begin + i], seed);
      for (int64_t i = 0; i < count; ++i) {
        const Param& param = *params_[begin + i];
        device.Copy(stream, flat.Rows(param.offset - params_[first]->offset, param.size()),
                    HostView(values[i].data(), {param.size()}));
      }
      stream.Synchronize();
    }
  };
  if (flat.dtype == DType::kF64) {
    draw.operator()<double>();
  } else {
    draw.operator()<float>();
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
