#include "model/interchange/hugging_face.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string_view>

#include "kernels/host_copy.h"
#include "runtime/error.h"

namespace longspan {

HuggingFaceName HuggingFaceNameOf(const std::string& parameter) {
  static const std::map<std::string, std::string> whole = {{"embedding.weight", "model.embed_tokens.weight"},
                                                           {"norm.weight", "model.norm.weight"},
                                                           {"head.weight", "lm_head.weight"}};
  if (const auto found = whole.find(parameter); found != whole.end()) return {found->second};
  constexpr std::string_view kLayers = "layers.";
  const size_t dot = parameter.find('.', kLayers.size());
  LS_CHECK(parameter.starts_with(kLayers) && dot != std::string::npos, "no parameter is named {}", parameter);
  const std::string layer = "model." + parameter.substr(0, dot + 1), name = parameter.substr(dot + 1);
  if (name == "attention_norm.weight") return {layer + "input_layernorm.weight"};
  if (name == "ffn_norm.weight") return {layer + "post_attention_layernorm.weight"};
  const size_t part = name.find('.');
  const std::string rest = name.substr(part + 1);  // "q.weight", "k_cmp_norm.weight", "phi_k.position", "gate.bias"
  if (name.starts_with("ffn.")) return {layer + "mlp." + rest.substr(0, rest.find('.')) + "_proj.weight", true};
  if (rest.starts_with("phi_") || rest.ends_with("_norm.weight")) return {layer + "self_attn." + rest};
  const size_t end = rest.find('.');
  return {layer + "self_attn." + rest.substr(0, end) + "_proj" + rest.substr(end), rest.ends_with(".weight")};
}

HuggingFaceTensors::HuggingFaceTensors(std::string folder) : folder_(std::move(folder)) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(folder_)) Fail(ExitCode::kIo, "{}: expected a folder", folder_);
  // An index says nothing that the files do not say themselves, but that there are several.
  std::set<std::string> paths;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("model") && name.ends_with(".safetensors")) paths.insert(entry.path().string());
  }
  if (paths.empty()) Fail(ExitCode::kData, "{}: expected model.safetensors or its shards, found none", folder_);
  for (const std::string& path : paths) {
    files_.push_back(SafetensorsFile::Open(path));
    for (const std::string& name : files_.back().names()) {
      if (!places_.emplace(name, files_.size() - 1).second) {
        Fail(ExitCode::kData, "{}: {} is in two files", path, name);
      }
    }
  }
}

void HuggingFaceTensors::RequireSizes(const ModelConfig& model) const {
  const auto name_of = [](int64_t layer) {
    return HuggingFaceNameOf(fmt::format("layers.{}.attention_norm.weight", layer)).name;
  };
  for (int64_t layer = 0; layer < model.layers; ++layer) {  // ends at the first that is missing
    if (places_.contains(name_of(layer))) continue;
    Fail(ExitCode::kData, "{}: expected {} layers, found no tensor {}", folder_, model.layers, name_of(layer));
  }
  const HuggingFaceName embedding = HuggingFaceNameOf("embedding.weight");
  Get(embedding.name, ShapeThere(embedding, {model.vocab, model.hidden}));
}

void HuggingFaceTensors::RequireJust(const std::map<std::string, Shape>& parameters) const {
  std::map<std::string, Shape> expected;
  for (const auto& [parameter, shape] : parameters) {
    const HuggingFaceName name = HuggingFaceNameOf(parameter);
    expected[name.name] = ShapeThere(name, shape);
  }
  const bool tied = !parameters.contains("head.weight");
  for (const auto& [name, file] : places_) {
    const bool unused = name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
    if (expected.contains(name) || unused) continue;
    Fail(ExitCode::kData, "{}: {}: Longspan's models have no such tensor{}", folder_, name,
         name.ends_with(".bias") ? ": no projection has a bias" : "");
  }
  for (const auto& [name, shape] : expected) Get(name, shape);
}

std::string HuggingFaceTensors::tokenizer_model() const {
  std::ifstream file(folder_ + "/tokenizer.model", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Tensor HuggingFaceTensors::Get(const std::string& name, const Shape& shape) const {
  const auto found = places_.find(name);
  if (found == places_.end()) Fail(ExitCode::kData, "{}: expected a tensor {}, found none", folder_, name);
  const Tensor tensor = files_[found->second].Get(name);
  if (tensor.shape != shape) {
    Fail(ExitCode::kData, "{}: {}: expected the shape {}, found {}", folder_, name, shape.ToString(),
         tensor.shape.ToString());
  }
  if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF64 && tensor.dtype != DType::kBf16) {
    Fail(ExitCode::kData, "{}: {}: expected F32, BF16 or F64, found {}", folder_, name, DTypeName(tensor.dtype));
  }
  return tensor;
}

std::vector<float> HuggingFaceTensors::Read(const std::string& parameter, const Shape& shape) const {
  const HuggingFaceName name = HuggingFaceNameOf(parameter);
  const Tensor tensor = Get(name.name, ShapeThere(name, shape));
  std::vector<float> values(tensor.size());
  const auto host = MakeCpuDevice();
  const auto stream = host->MakeStream("host");
  HostCopy(*host, *stream, tensor, HostView(values.data(), tensor.shape));
  return name.transposed ? Transposed(values, tensor.shape[0], tensor.shape[1]) : values;
}

Shape ShapeThere(const HuggingFaceName& name, const Shape& shape) {
  return name.transposed ? Shape{shape[1], shape[0]} : shape;
}

std::vector<float> Transposed(const std::vector<float>& x, int64_t rows, int64_t columns) {
  constexpr int64_t kTile = 64;  // of columns: what is read of a row is used before it leaves the cache
  std::vector<float> y(x.size());
#pragma omp parallel for
  for (int64_t begin = 0; begin < columns; begin += kTile) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = begin; column < std::min(begin + kTile, columns); ++column) {
        y[column * rows + row] = x[row * columns + column];
      }
    }
  }
  return y;
}

}  // namespace longspan
