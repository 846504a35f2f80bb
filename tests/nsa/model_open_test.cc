// nsa_model_open: a model that the program trained and exported has the program's logits and tokens, and trains on;
// what is refused.
#include <algorithm>
#include <filesystem>
#include <functional>

#include "nsa/model.h"
#include "runtime/files/safetensors.h"
#include "tests/launch/train/tiny_run.h"
#include "tests/nsa/library.h"

namespace longspan::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int32_t kVocabulary = 256, kLength = 64;  // of tiny_run.h's model

NSAModelConfig OnCpu() {
  NSAModelConfig config = nsa_model_default_config(1, 1, 2, 1);
  config.sequence_length = 0;
  config.attention.device = NSA_DEVICE_CPU;
  return config;
}

class Open : public TinyRun {
 protected:
  ~Open() override { nsa_model_free(&model_); }

  // Of a run of the program with these keys; what it wrote on from a prompt and its logits are kept.
  void Export(const std::string& keys, const std::string& options = "") {
    Expect(0, 1, Arguments("--overwrite data.validation_fraction=0 " + keys), {"done: 3 steps"});
    Expect(0, 1,
           fmt::format("generate '{}' --ids --prompt '7 1 200' --tokens 40 --temperature 0 --logits '{}'",
                       folder_ / "runs/run", folder_ / "logits"),
           {"7 1 200 "});
    fs::remove_all(exported_);
    Expect(0, 1, fmt::format("export '{}' '{}' {}", folder_ / "runs/run", exported_, options), {"written "});
  }
  void OpenExported() {
    nsa_model_free(&model_);
    const NSAModelConfig config = OnCpu();
    ASSERT_NSA(nsa_model_open(&model_, exported_.c_str(), &config));
  }
  void ExpectTheProgramsLogits() {
    OpenExported();
    ASSERT_EQ(nsa_model_vocabulary(&model_), kVocabulary);
    ASSERT_EQ(nsa_model_sequence_length(&model_), kLength);
    const SafetensorsFile file = SafetensorsFile::Open(folder_ / "logits");
    const Tensor ids = file.Get("tokens"), rows = file.Get("logits");
    ASSERT_EQ(rows.shape, (Shape{42, kVocabulary}));
    const std::vector<float> expected(rows.As<float>(), rows.As<float>() + rows.size());
    std::vector<int32_t> tokens(kLength, 0);
    std::copy_n(ids.As<int32_t>(), ids.size(), tokens.begin());
    std::vector<float> logits(kLength * kVocabulary);
    ASSERT_NSA(nsa_model_logits(&model_, tokens.data(), 1, logits.data()));
    logits.resize(expected.size());
    EXPECT_EQ(logits, expected) << "the whole sequence";

    NSADecoder decoder;
    ASSERT_NSA(nsa_decoder_init(&decoder, &model_, 1, kLength));
    logits.resize(kVocabulary);
    std::vector<int32_t> written(tokens.begin(), tokens.begin() + 3);
    ASSERT_NSA(nsa_decoder_append(&decoder, 0, written.data(), 3, logits.data()));
    while (std::ssize(written) < ids.size()) {
      const auto best = std::max_element(logits.begin(), logits.end());
      written.push_back(static_cast<int32_t>(best - logits.begin()));
      ASSERT_NSA(nsa_decoder_step(&decoder, &written.back(), logits.data()));
    }
    tokens.resize(ids.size());
    EXPECT_EQ(written, tokens) << "token by token";
    nsa_decoder_free(&decoder);
  }
  void ChangeConfig(const std::function<void(Json&)>& change) {
    Json config = Json::parse(ReadFile(exported_ + "/config.json"));
    change(config);
    WriteFile(exported_ + "/config.json", config.dump());
  }
  void ExpectRefused(NSAStatus status, const std::string& text, const std::string& path, const NSAModelConfig& config) {
    nsa_model_free(&model_);
    EXPECT_EQ(nsa_model_open(&model_, path.c_str(), &config), status) << text;
    EXPECT_NE(std::string(nsa_last_error()).find(text), std::string::npos) << nsa_last_error() << "\nlacks: " << text;
    EXPECT_EQ(model_.impl, nullptr);
  }

  const std::string exported_ = folder_ / "exported";
  NSAModel model_ = {nullptr};
};

TEST_F(Open, LogitsAndTokensAreThePrograms) {
  Export("");
  ExpectTheProgramsLogits();
  Export(
      "model.qk_norm=true model.tied_head=false model.layers=3 model.attention=NSA,WINDOW,FULL model.rope.scaling=YARN "
      "model.rope.factor=2 model.nsa.phi=LINEAR model.nsa.compress_rope=BEFORE model.nsa.kv_branches=SHARED",
      "--shard-size 10KB");
  EXPECT_FALSE(fs::exists(exported_ + "/model.safetensors")) << "in shards";
  ExpectTheProgramsLogits();
}

TEST_F(Open, ADenseModelAsItIs) {
  Export("model.attention=FULL");
  ChangeConfig([](Json& config) {
    config["model_type"] = "llama";
    for (const char* ours : {"attention_kinds", "nsa", "qk_norm"}) config.erase(ours);
  });
  ExpectTheProgramsLogits();
}

TEST_F(Open, TrainsOn) {
  Export("");
  OpenExported();
  std::vector<int32_t> tokens(kLength), targets(kLength);
  for (int32_t t = 0; t < kLength; ++t) {
    tokens[t] = t * 7 % 251;
    targets[t] = (t + 1) * 7 % 251;
  }
  double first = 0, loss = 0;
  ASSERT_NSA(nsa_model_loss(&model_, tokens.data(), targets.data(), 1, &first));
  for (int step = 0; step < 10; ++step) {
    ASSERT_NSA(nsa_model_backward(&model_, tokens.data(), targets.data(), 1, &loss));
    ASSERT_NSA(nsa_model_step(&model_, 1e-2, nullptr));
  }
  ASSERT_NSA(nsa_model_loss(&model_, tokens.data(), targets.data(), 1, &loss));
  EXPECT_LT(loss, 0.9 * first);
}

TEST_F(Open, Refusals) {
  const NSAModelConfig config = OnCpu();
  Export("");
  const std::string way = "expected a folder with config.json and model.safetensors, which `longspan export` makes";
  for (const char* name : {"nowhere", "tokens", "runs/run", "runs/run/checkpoints/step-00000003"}) {
    ExpectRefused(NSA_ERROR_FILE, std::string(name) + ": " + way, folder_ / name, config);
  }
  EXPECT_EQ(nsa_model_open(nullptr, exported_.c_str(), nullptr), NSA_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(nsa_model_open(&model_, nullptr, nullptr), NSA_ERROR_INVALID_ARGUMENT);

  NSAModelConfig use = config;
  use.sequence_length = 30;
  ExpectRefused(NSA_ERROR_INVALID_ARGUMENT, "sequence_length: expected a multiple of block_stride = 4", exported_, use);
  use = config;
  use.attention.dtype = NSA_BFLOAT16;
  ExpectRefused(NSA_ERROR_UNSUPPORTED, "dtype: a CPU has no BF16", exported_, use);
  use.attention.dtype = 9;
  ExpectRefused(NSA_ERROR_INVALID_ARGUMENT, "dtype: expected 0 to 2, found 9", exported_, use);

  const std::string good = ReadFile(exported_ + "/config.json");
  struct Case {
    const char* text;
    void (*change)(Json&);
  };
  const Case cases[] = {
      {"model_type: expected longspan, llama", [](Json& c) { c["model_type"] = "gpt2"; }},
      {"expected a key vocab_size, found none", [](Json& c) { c.erase("vocab_size"); }},
      {"hidden_size: expected a whole number from 1 to", [](Json& c) { c["hidden_size"] = "wide"; }},
      {"config.json: heads = 3 and kv_heads = 2 disagree",
       [](Json& c) {
         c["num_attention_heads"] = 3;
         c["num_key_value_heads"] = 2;
       }},
      {"config.json: nsa.stride = 5 and nsa.block = 8 disagree", [](Json& c) { c["nsa"]["stride"] = 5; }},
      {"expected 2000000000 layers, found no tensor model.layers.1.",
       [](Json& c) { c["num_hidden_layers"] = 2000000000; }},
      {"model.embed_tokens.weight: expected the shape [256,32], found [256,16]",
       [](Json& c) { c["hidden_size"] = 32; }},
      {"mlp.down_proj.weight: expected the shape [16,134217728], found [16,24]",
       [](Json& c) { c["intermediate_size"] = 134217728; }},
      {"config.json: ffn = 134217729: must be 1 to 134217728", [](Json& c) { c["intermediate_size"] = 134217729; }},
      {"config.json: vocab = 1099511627776: must be 1 to", [](Json& c) { c["vocab_size"] = int64_t{1} << 40; }},
      {"config.json: heads = 2097152 and key_width = 1048576 disagree: their product must be at most 134217728",
       [](Json& c) {
         c["num_attention_heads"] = 1 << 21;
         c["head_dim"] = 1 << 20;
       }},
      {"config.json: nsa.block = 536870912 and key_width = ",
       [](Json& c) {
         for (const char* size : {"block", "select_block"}) c["nsa"][size] = 1 << 29;
       }},
      {"phi_k.bias1: expected the shape [2147483647]", [](Json& c) { c["nsa"]["phi_hidden"] = 2147483647; }},
      {"expected a tensor lm_head.weight, found none", [](Json& c) { c["tie_word_embeddings"] = false; }},
      {"self_attn.gate_proj.bias: Longspan's models have no such tensor",
       [](Json& c) { c["attention_kinds"] = {"FULL"}; }},
  };
  for (const Case& one : cases) {
    WriteFile(exported_ + "/config.json", good);
    ChangeConfig(one.change);
    ExpectRefused(NSA_ERROR_FILE, one.text, exported_, config);
  }
  WriteFile(exported_ + "/config.json",
            "{\"vocab_size\": " + std::string(100000, '[') + std::string(100000, ']') + "}");
  ExpectRefused(NSA_ERROR_FILE, "config.json: expected a model, found 33 objects in another", exported_, config);
  WriteFile(exported_ + "/config.json", "[");
  ExpectRefused(NSA_ERROR_FILE, "config.json: expected a JSON object", exported_, config);
  WriteFile(exported_ + "/config.json", good);
  fs::resize_file(exported_ + "/model.safetensors", 1000);
  ExpectRefused(NSA_ERROR_FILE, "model.safetensors: ", exported_, config);
  fs::remove(exported_ + "/model.safetensors");
  ExpectRefused(NSA_ERROR_FILE, "expected model.safetensors or its shards, found none", exported_, config);
}

}  // namespace
}  // namespace longspan::test
