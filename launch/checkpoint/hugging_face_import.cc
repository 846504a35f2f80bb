#include "launch/checkpoint/hugging_face_import.h"

#include <map>

#include "launch/checkpoint/checkpoint.h"
#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/weights.h"
#include "runtime/error.h"

namespace longspan {
namespace {

constexpr int64_t kShardBytes = int64_t{4} << 30;
constexpr float kOpen = 8;  // sigmoid(8) = 0.9997

// What of a dense model becomes the parameter: one projection of keys for all branches. "" for what it does not have.
std::string DenseParameter(std::string parameter) {
  if (parameter.find("attention.gate.") != std::string::npos || parameter.find("attention.phi_") != std::string::npos) {
    return "";
  }
  for (const char* suffix : {"_cmp", "_slc", "_win"}) {
    if (const size_t at = parameter.find(suffix); at != std::string::npos) parameter.erase(at, 4);
  }
  return parameter;
}

// phi as the mean of its l rows.
void SetPhi(const Param& param, const std::string& weight, int64_t block, std::vector<float>* values) {
  const auto share = 1 / static_cast<float>(block);
  const Shape& shape = param.shape;
  if (weight == "weight") {  // LINEAR [G,l*W,W]
    for (int64_t g = 0; g < shape[0]; ++g) {
      for (int64_t row = 0; row < shape[1]; ++row) {
        (*values)[(g * shape[1] + row) * shape[2] + row % shape[2]] = share;
      }
    }
  } else if (weight == "weight1") {  // MLP [l*W,M]: the mean in W hidden channels, its opposite in W more
    const int64_t width = shape[0] / block;
    if (shape[1] < 2 * width) {
      Fail(ExitCode::kConfig, "model.nsa.phi_hidden = {}: of a dense model expected 0, or {} or more", shape[1],
           2 * width);
    }
    for (int64_t row = 0; row < shape[0]; ++row) {
      (*values)[row * shape[1] + row % width] = share;
      (*values)[row * shape[1] + width + row % width] = -share;
    }
  } else if (weight == "weight2") {  // [M,W]: gelu(x) - gelu(-x) = x
    for (int64_t c = 0; c < shape[1]; ++c) {
      (*values)[c * shape[1] + c] = 1;
      (*values)[(shape[1] + c) * shape[1] + c] = -1;
    }
  }
}

// What a dense model does not have.
std::vector<float> Start(const Param& param, const ModelConfig& model) {
  std::vector<float> values(param.size(), 0);
  if (param.name.ends_with("gate.bias")) {  // [H,3]
    for (size_t i = 0; i < values.size(); ++i) values[i] = i % 3 == 1 ? kOpen : -kOpen;
  } else if (param.name.find("phi_") != std::string::npos) {
    SetPhi(param, param.name.substr(param.name.rfind('.') + 1), model.nsa.block, &values);
  }
  return values;
}

// Gathers tensors into files of a checkpoint.
class Writer {
 public:
  Writer(std::string folder, Manifest* manifest) : folder_(std::move(folder)), manifest_(manifest) {}
  void Add(const Param& param, std::vector<float> values) {
    if (bytes_ > 0 && bytes_ + param.size() * 4 > kShardBytes) Write();
    bytes_ += param.size() * 4;
    memory_.push_back(std::move(values));
    tensors_.emplace_back(WeightName(param.name), HostView(memory_.back().data(), param.shape));
  }
  void Write() {
    const std::string name = fmt::format("shard-{:05}.safetensors", number_++);
    const WrittenFile written = WriteSafetensors(folder_ + "/" + name, tensors_);
    manifest_->files[name] = {written.bytes, written.checksum};
    for (const auto& [tensor, view] : tensors_) {
      manifest_->tensors[tensor] = {DType::kF32, Dimensions(view.shape), {{name, 0, view.size()}}};
    }
    tensors_.clear();
    memory_.clear();
    bytes_ = 0;
  }

 private:
  const std::string folder_;
  Manifest* const manifest_;
  std::vector<std::vector<float>> memory_;
  std::vector<std::pair<std::string, Tensor>> tensors_;
  int64_t bytes_ = 0, number_ = 0;
};

}  // namespace

void ImportHuggingFace(const HuggingFaceTensors& tensors, const HuggingFaceModel& from, const ModelConfig& model,
                       const ParamTable& params, const std::string& folder, Manifest about,
                       const std::function<void(int64_t, int64_t)>& progress) {
  const bool dense = from.type != "longspan";
  // Before anything is written.
  std::map<std::string, Shape> sources;
  for (const auto& param : params.params()) sources[dense ? DenseParameter(param->name) : param->name] = param->shape;
  sources.erase("");
  tensors.RequireJust(sources);

  const CheckpointFolder checkpoints(DiskFolder(folder));
  checkpoints.Begin(about.state.step);
  try {
    Writer writer(checkpoints.PartialOf(about.state.step), &about);
    int64_t done = 0;
    for (const auto& param : params.params()) {
      const std::string source = dense ? DenseParameter(param->name) : param->name;
      writer.Add(*param, source.empty() ? Start(*param, model) : tensors.Read(source, param->shape));
      progress(done += param->size(), params.parameters());
    }
    writer.Write();
    WriteTokenizerModel(checkpoints.PartialOf(about.state.step), tensors.tokenizer_model(), &about);
    checkpoints.Commit(about);
  } catch (...) {
    checkpoints.Abandon(about.state.step);
    throw;
  }
}

}  // namespace longspan
