// config.json, both ways.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "model/interchange/hugging_face.h"
#include "runtime/error.h"
#include "runtime/files/mapped_file.h"

namespace longspan {
namespace {

using Json = nlohmann::json;

constexpr int kDeepest = 32;

template <typename T>
using Names = std::vector<std::pair<const char*, T>>;

const Names<AttentionKind> kKinds = {
    {"NSA", AttentionKind::kNsa}, {"FULL", AttentionKind::kFull}, {"WINDOW", AttentionKind::kWindow}};
const Names<Phi> kPhis = {{"MLP", Phi::kMlp}, {"LINEAR", Phi::kLinear}, {"MEAN", Phi::kMean}};
const Names<CompressRope> kRopes = {{"AFTER", CompressRope::kAfter}, {"BEFORE", CompressRope::kBefore}};
const Names<KvBranches> kBranches = {{"SEPARATE", KvBranches::kSeparate}, {"SHARED", KvBranches::kShared}};

template <typename T>
const char* NameOf(const Names<T>& names, T value) {
  return std::find_if(names.begin(), names.end(), [&](const auto& name) { return name.second == value; })->first;
}

// Values of an object, with what is wrong with them.
class Reader {
 public:
  Reader(const Json& json, std::string path) : json_(json), path_(std::move(path)) {}

  // null counts as not there.
  bool Has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }
  int64_t Size(const char* key) const { return Whole(key, 1); }
  int64_t Size(const char* key, int64_t otherwise) const { return Has(key) ? Whole(key, 1) : otherwise; }
  int64_t Count(const char* key, int64_t otherwise) const { return Has(key) ? Whole(key, 0) : otherwise; }
  double Number(const char* key, double otherwise) const {
    if (!Has(key)) return otherwise;
    if (!At(key).is_number()) Refuse(key, "a number");
    return At(key).get<double>();
  }
  bool Flag(const char* key, bool otherwise) const {
    if (!Has(key)) return otherwise;
    if (!At(key).is_boolean()) Refuse(key, "true or false");
    return At(key).get<bool>();
  }
  std::string Text(const char* key, const std::string& otherwise) const {
    if (!Has(key)) return otherwise;
    if (!At(key).is_string()) Refuse(key, "a text");
    return At(key).get<std::string>();
  }
  template <typename T>
  T OneOf(const char* key, const Names<T>& names) const {
    return OneOf(key, At(key), names);
  }
  template <typename T>
  std::vector<T> SomeOf(const char* key, const Names<T>& names) const {
    if (!At(key).is_array() || At(key).empty()) Refuse(key, "a list");
    std::vector<T> values;
    for (const Json& value : At(key)) values.push_back(OneOf(key, value, names));
    return values;
  }
  Reader Group(const char* key) const {
    if (!At(key).is_object()) Refuse(key, "an object");
    return {At(key), path_ + ": " + key};
  }
  [[noreturn]] void Refuse(const char* key, const std::string& expected) const {
    std::string found = At(key).dump();
    if (found.size() > 60) found = found.substr(0, 60) + "..";
    Fail(ExitCode::kData, "{}: {}: expected {}, found {}", path_, key, expected, found);
  }

 private:
  int64_t Whole(const char* key, int64_t least) const {
    constexpr int64_t kMost = int64_t{1} << 40;
    const Json& value = At(key);
    if (!value.is_number_integer() || value.get<int64_t>() < least || value.get<int64_t>() > kMost) {
      Refuse(key, fmt::format("a whole number from {} to {}", least, kMost));
    }
    return value.get<int64_t>();
  }
  const Json& At(const char* key) const {
    if (!json_.contains(key)) Fail(ExitCode::kData, "{}: expected a key {}, found none", path_, key);
    return json_[key];
  }
  template <typename T>
  T OneOf(const char* key, const Json& value, const Names<T>& names) const {
    std::vector<std::string> expected;
    for (const auto& [name, result] : names) {
      if (value == name) return result;
      expected.emplace_back(name);
    }
    Refuse(key, fmt::format("{}", fmt::join(expected, " or ")));
  }

  const Json& json_;
  const std::string path_;
};

// Newer files have one group, rope_parameters, older ones rope_theta and rope_scaling.
RopeConfig ReadRope(const Reader& config) {
  RopeConfig rope;
  rope.theta = config.Number("rope_theta", rope.theta);
  const char* const key = config.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!config.Has(key)) return rope;
  const Reader group = config.Group(key);
  rope.theta = group.Number("rope_theta", rope.theta);
  const char* const type_key = group.Has("rope_type") ? "rope_type" : "type";
  const std::string type = group.Text(type_key, "default");
  if (group.Number("partial_rotary_factor", 1) != 1) group.Refuse("partial_rotary_factor", "1");
  if (type == "default") return rope;
  if (type != "yarn") group.Refuse(type_key, "default or yarn: Longspan has no other scaling");
  rope.scaling = RopeScaling::kYarn;
  rope.factor = group.Number("factor", 1);
  rope.original_max_position =
      group.Size("original_max_position_embeddings", config.Size("max_position_embeddings", 4096));
  rope.beta_fast = group.Number("beta_fast", rope.beta_fast);
  rope.beta_slow = group.Number("beta_slow", rope.beta_slow);
  rope.attention_factor = group.Number("attention_factor", 0);
  if (!group.Flag("truncate", true)) group.Refuse("truncate", "true");
  for (const char* other : {"mscale", "mscale_all_dim"}) {
    if (group.Has(other)) group.Refuse(other, "none: Longspan has no such factor");
  }
  return rope;
}

void ReadShape(const Reader& config, ModelConfig* model) {
  model->layers = config.Size("num_hidden_layers");
  model->hidden = config.Size("hidden_size");
  model->heads = config.Size("num_attention_heads");
  model->kv_heads = config.Size("num_key_value_heads", model->heads);
  model->key_width = config.Size("head_dim", model->hidden / model->heads);
  model->value_width = config.Size("value_head_dim", model->key_width);
  model->ffn = config.Size("intermediate_size");
  model->vocab = config.Size("vocab_size");
  model->norm_eps = config.Number("rms_norm_eps", 1e-6);
  model->tied_head = config.Flag("tie_word_embeddings", config.Text("model_type", "") == "longspan");
  model->rope = ReadRope(config);
  if (config.Number("partial_rotary_factor", 1) != 1) config.Refuse("partial_rotary_factor", "1");
  if (config.Text("hidden_act", "silu") != "silu") config.Refuse("hidden_act", "silu");
  for (const char* bias : {"attention_bias", "mlp_bias", "use_bias"}) {
    if (config.Flag(bias, false)) config.Refuse(bias, "false: Longspan has no biases");
  }
}

void ReadNsa(const Reader& group, NsaConfig* nsa) {
  nsa->block = group.Size("block");
  nsa->stride = group.Size("stride");
  nsa->select_block = group.Size("select_block");
  nsa->select = group.Size("select");
  nsa->init = group.Count("init", 1);
  nsa->local = group.Count("local", 2);
  nsa->window = group.Size("window");
  nsa->phi = group.OneOf("phi", kPhis);
  nsa->phi_hidden = group.Count("phi_hidden", 0);
  nsa->compress_rope = group.OneOf("compress_rope", kRopes);
  nsa->kv_branches = group.OneOf("kv_branches", kBranches);
}

HuggingFaceModel ReadModel(const Reader& config) {
  HuggingFaceModel found;
  found.type = config.Text("model_type", "none");
  ReadShape(config, &found.model);
  found.positions = config.Size("max_position_embeddings", 4096);
  if (found.type == "longspan") {
    found.model.qk_norm = config.Flag("qk_norm", false);
    found.model.attention = config.SomeOf("attention_kinds", kKinds);
    ReadNsa(config.Group("nsa"), &found.model.nsa);
    found.tokenizer = config.Text("longspan_tokenizer", "");
    return found;
  }
  const bool qwen = found.type == "qwen2" || found.type == "qwen3";
  if (!qwen && found.type != "llama" && found.type != "mistral") {
    config.Refuse("model_type", "longspan, llama, mistral, qwen2 or qwen3");
  }
  found.model.qk_norm = found.type == "qwen3";
  found.model.attention = {AttentionKind::kFull};
  if (found.type != "llama" && config.Has("sliding_window") && config.Flag("use_sliding_window", !qwen)) {
    if (qwen) config.Refuse("use_sliding_window", "false: some of its layers would slide and others not");
    found.model.attention = {AttentionKind::kWindow};
    found.model.nsa.window = config.Size("sliding_window");
  }
  return found;
}

}  // namespace

std::string DenseType(const ModelConfig& model) {
  for (const AttentionKind kind : model.attention) {
    if (kind == AttentionKind::kFull) continue;
    Fail(ExitCode::kUsage, "dense: expected model.attention = FULL in every layer, found {}", NameOf(kKinds, kind));
  }
  if (model.value_width != model.key_width) {
    Fail(ExitCode::kUsage, "dense: expected model.value_width = model.key_width = {}, found {}", model.key_width,
         model.value_width);
  }
  return model.qk_norm ? "qwen3" : "llama";
}

std::string HuggingFaceConfig(const HuggingFaceModel& exported, const std::string& dtype) {
  const auto& [type, m, positions, tokenizer] = exported;
  Json kinds = Json::array();
  for (const AttentionKind kind : m.attention) kinds.push_back(NameOf(kKinds, kind));
  Json scaling = nullptr;
  if (m.rope.scaling == RopeScaling::kYarn) {
    scaling = {{"rope_type", "yarn"},
               {"factor", m.rope.factor},
               {"original_max_position_embeddings", m.rope.original_max_position},
               {"beta_fast", m.rope.beta_fast},
               {"beta_slow", m.rope.beta_slow}};
    if (m.rope.attention_factor > 0) scaling["attention_factor"] = m.rope.attention_factor;
  }
  Json config = {{"architectures", {type == "qwen3" ? "Qwen3ForCausalLM" : "LlamaForCausalLM"}},
                 {"model_type", type},
                 {"vocab_size", m.vocab},
                 {"hidden_size", m.hidden},
                 {"intermediate_size", m.ffn},
                 {"num_hidden_layers", m.layers},
                 {"num_attention_heads", m.heads},
                 {"num_key_value_heads", m.kv_heads},
                 {"head_dim", m.key_width},
                 {"hidden_act", "silu"},
                 {"rms_norm_eps", m.norm_eps},
                 {"rope_theta", m.rope.theta},
                 {"rope_scaling", scaling},
                 {"max_position_embeddings", positions},
                 {"tie_word_embeddings", m.tied_head},
                 {"torch_dtype", dtype}};
  if (type == "longspan") {
    config.update(Json{{"architectures", {"LongspanForCausalLM"}},
                       {"auto_map",
                        {{"AutoConfig", "modeling_longspan.LongspanConfig"},
                         {"AutoModelForCausalLM", "modeling_longspan.LongspanForCausalLM"}}},
                       {"value_head_dim", m.value_width},
                       {"qk_norm", m.qk_norm},
                       {"attention_kinds", kinds},
                       {"nsa",
                        {{"block", m.nsa.block},
                         {"stride", m.nsa.stride},
                         {"select_block", m.nsa.select_block},
                         {"select", m.nsa.select},
                         {"init", m.nsa.init},
                         {"local", m.nsa.local},
                         {"window", m.nsa.window},
                         {"phi", NameOf(kPhis, m.nsa.phi)},
                         {"phi_hidden", m.nsa.phi_hidden},
                         {"compress_rope", NameOf(kRopes, m.nsa.compress_rope)},
                         {"kv_branches", NameOf(kBranches, m.nsa.kv_branches)}}},
                       {"longspan_tokenizer", tokenizer}});
  }
  return config.dump(2) + "\n";
}

HuggingFaceModel ReadHuggingFaceConfig(const std::string& folder) {
  const std::string path = folder + "/config.json";
  const MappedFile file(path);
  // What is said of a value takes a call for each level of it.
  const auto shallow = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > kDeepest) Fail(ExitCode::kData, "{}: expected a model, found {} objects in another", path, depth);
    return true;
  };
  const Json json = Json::parse(std::string_view(reinterpret_cast<const char*>(file.data()), file.size()), shallow,
                                /*allow_exceptions=*/false);
  if (!json.is_object()) Fail(ExitCode::kData, "{}: expected a JSON object", path);
  HuggingFaceModel found = ReadModel({json, path});
  const std::vector<std::string> problems = Problems(found.model, "");
  if (!problems.empty()) Fail(ExitCode::kData, "{}: {}", path, fmt::join(problems, "; "));
  return found;
}

}  // namespace longspan
