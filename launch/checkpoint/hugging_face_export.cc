#include "launch/checkpoint/hugging_face_export.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/host_copy.h"
#include "launch/checkpoint/weights.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

void WriteText(const std::string& path, const std::string& text) {
  OutputFile file(path);
  file.Write(text.data(), std::ssize(text));
  file.Commit();
}

void MakeFolder(const std::string& folder) {
  std::error_code error;
  if (fs::exists(folder, error) && (!fs::is_directory(folder, error) || !fs::is_empty(folder, error))) {
    Fail(ExitCode::kUsage, "{}: expected a new or empty folder", folder);
  }
  fs::create_directories(folder, error);
  if (error) Fail(ExitCode::kIo, "{}: cannot be made: {}", folder, error.message());
}

// One code point as UTF-8, below U+0800.
std::string Utf8(uint32_t code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

// A tokenizer.json whose ids are bytes: byte-level BPE, as GPT-2 writes bytes, without merges.
std::string ByteTokenizerJson() {
  Json vocab = Json::object();
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool shown = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    vocab[Utf8(shown ? byte : next++)] = byte;
  }
  const Json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  const Json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"vocab", vocab},
                      {"merges", Json::array()}};
  const Json tokenizer = {
      {"version", "1.0"},      {"truncation", nullptr},  {"padding", nullptr},        {"added_tokens", Json::array()},
      {"normalizer", nullptr}, {"pre_tokenizer", level}, {"post_processor", nullptr}, {"decoder", level},
      {"model", model}};
  return tokenizer.dump() + "\n";
}

// What transformers reads of a tokenizer. LlamaTokenizer has its own defaults for spaces and marks, where only the
// model knows; legacy leaves text to the model as it is.
void WriteTokenizer(const std::string& folder, int64_t positions, const Tokenizer& tokenizer) {
  Json config = {{"model_max_length", positions}, {"clean_up_tokenization_spaces", false}};
  if (tokenizer.model().empty()) {
    WriteText(folder + "/tokenizer.json", ByteTokenizerJson());
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
  } else {
    WriteText(folder + "/tokenizer.model", tokenizer.model());
    const TokenizerMarks marks = tokenizer.marks();
    config["tokenizer_class"] = "LlamaTokenizer";
    config["legacy"] = true;
    config["add_prefix_space"] = marks.space_before_text;
    config["add_bos_token"] = config["add_eos_token"] = false;
    for (const auto& [key, piece] : {std::pair("unk_token", &marks.unknown),
                                     {"bos_token", &marks.begin},
                                     {"eos_token", &marks.end},
                                     {"pad_token", &marks.padding}}) {
      config[key] = piece->empty() ? Json() : Json(*piece);
    }
  }
  WriteText(folder + "/tokenizer_config.json", config.dump(2) + "\n");
}

// A tensor on its way.
struct Exported {
  std::string parameter;
  HuggingFaceName to;
  Shape shape;  // there
  int64_t bytes = 0;
};

Exported Describe(const std::string& parameter, const Shape& shape, DType dtype) {
  const HuggingFaceName to = HuggingFaceNameOf(parameter);
  return {parameter, to, ShapeThere(to, shape), shape.count() * DTypeSize(dtype)};
}

// Of a file, in order: as many as fit.
std::vector<std::vector<Exported>> Shards(const CheckpointReader& checkpoint, const ExportOptions& options) {
  std::vector<std::vector<Exported>> shards(1);
  const std::string prefix = WeightName("");
  int64_t bytes = 0;
  for (const auto& [name, entry] : checkpoint.manifest().tensors) {
    if (!name.starts_with(prefix)) continue;
    const Exported next = Describe(name.substr(prefix.size()), Shape(entry.shape), options.dtype);
    if (!shards.back().empty() && bytes + next.bytes > options.shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(next);
    bytes += next.bytes;
  }
  return shards;
}

std::vector<std::byte> ReadTensor(CheckpointReader& checkpoint, const Exported& exported, DType dtype) {
  std::vector<float> values(exported.shape.count());
  checkpoint.Read(WeightName(exported.parameter), 0, HostView(values.data(), exported.shape));
  if (exported.to.transposed) values = Transposed(values, exported.shape[1], exported.shape[0]);
  std::vector<std::byte> bytes(exported.bytes);
  const auto host = MakeCpuDevice();
  const auto stream = host->MakeStream("host");
  HostCopy(*host, *stream, HostView(values.data(), exported.shape),
           Tensor(bytes.data(), dtype, DeviceKind::kCpu, exported.shape));
  return bytes;
}

}  // namespace

void ExportHuggingFace(CheckpointReader& checkpoint, const HuggingFaceModel& model, const std::string& folder,
                       const ExportOptions& options) {
  MakeFolder(folder);
  const auto shards = Shards(checkpoint, options);
  int64_t total = 0, done = 0;
  for (const auto& shard : shards) {
    for (const Exported& exported : shard) total += exported.bytes;
  }
  Json places = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    std::vector<std::vector<std::byte>> memory;
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (const Exported& exported : shards[i]) {
      memory.push_back(ReadTensor(checkpoint, exported, options.dtype));
      tensors.emplace_back(exported.to.name,
                           Tensor(memory.back().data(), options.dtype, DeviceKind::kCpu, exported.shape));
      places[exported.to.name] = name;
      options.progress(done += exported.bytes, total);
    }
    WriteSafetensors(folder + "/" + name, tensors, {{"format", "pt"}});
  }
  if (shards.size() > 1) {
    const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", places}};
    WriteText(folder + "/model.safetensors.index.json", index.dump(2) + "\n");
  }
  if (options.tokenizer) WriteTokenizer(folder, model.positions, *options.tokenizer);
  if (model.type == "longspan") WriteText(folder + "/modeling_longspan.py", kModelingLongspan);
  WriteText(folder + "/config.json", HuggingFaceConfig(model, options.dtype == DType::kBf16 ? "bfloat16" : "float32"));
}

}  // namespace longspan
