// Dense models in Hugging Face's layout: read, they have the logits of an evaluation written from their definition.
#include "model/interchange/hugging_face.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>

#include "launch/checkpoint/checkpoint.h"
#include "launch/checkpoint/hugging_face_import.h"
#include "launch/checkpoint/weights.h"
#include "model/decode/decoder.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

constexpr int64_t kLayers = 2, kHidden = 24, kHeads = 4, kGroups = 2, kWidth = 8, kFfn = 40, kVocab = 29, kLength = 90;
constexpr double kEps = 1e-6, kTheta = 5000;

using Weights = std::map<std::string, std::vector<float>>;
using Rows = std::vector<std::vector<double>>;

// ---- The definition, in F64, as transformers has it: y = x W^T ------------------------------------------------------

Rows Linear(const Rows& x, const std::vector<float>& w) {
  const size_t inputs = x[0].size(), outputs = w.size() / inputs;
  Rows y(x.size(), std::vector<double>(outputs, 0));
  for (size_t t = 0; t < x.size(); ++t) {
    for (size_t o = 0; o < outputs; ++o) {
      for (size_t i = 0; i < inputs; ++i) y[t][o] += x[t][i] * static_cast<double>(w[o * inputs + i]);
    }
  }
  return y;
}

// Of each `width` channels.
Rows Norm(Rows x, const std::vector<float>& w) {
  const size_t width = w.size();
  for (auto& row : x) {
    for (size_t begin = 0; begin < row.size(); begin += width) {
      double squares = 0;
      for (size_t c = 0; c < width; ++c) squares += row[begin + c] * row[begin + c];
      const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + kEps);
      for (size_t c = 0; c < width; ++c) row[begin + c] *= scale * static_cast<double>(w[c]);
    }
  }
  return x;
}

Rows Rotated(Rows x) {
  for (size_t t = 0; t < x.size(); ++t) {
    for (size_t head = 0; head < x[t].size(); head += kWidth) {
      for (size_t c = 0; c < kWidth / 2; ++c) {
        const double angle = static_cast<double>(t) * std::pow(kTheta, -2.0 * static_cast<double>(c) / kWidth);
        double& a = x[t][head + c];
        double& b = x[t][head + c + kWidth / 2];
        const double rotated = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = rotated;
      }
    }
  }
  return x;
}

Rows Attention(const Rows& q, const Rows& k, const Rows& v) {
  Rows out(q.size(), std::vector<double>(kHeads * kWidth, 0));
  for (size_t t = 0; t < q.size(); ++t) {
    for (int64_t h = 0; h < kHeads; ++h) {
      const int64_t from = h / (kHeads / kGroups) * kWidth;
      std::vector<double> p(t + 1);
      double sum = 0;
      for (size_t u = 0; u <= t; ++u) {
        double score = 0;
        for (int64_t c = 0; c < kWidth; ++c) score += q[t][h * kWidth + c] * k[u][from + c];
        sum += p[u] = std::exp(score / std::sqrt(static_cast<double>(kWidth)));
      }
      for (size_t u = 0; u <= t; ++u) {
        for (int64_t c = 0; c < kWidth; ++c) out[t][h * kWidth + c] += p[u] / sum * v[u][from + c];
      }
    }
  }
  return out;
}

Rows Logits(const Weights& w, const std::vector<int32_t>& tokens, bool norms, bool tied) {
  Rows x;
  for (const int32_t token : tokens) {
    const auto row = w.at("model.embed_tokens.weight").begin() + token * kHidden;
    x.emplace_back(row, row + kHidden);
  }
  const auto add = [&](const Rows& y) {
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t c = 0; c < x[t].size(); ++c) x[t][c] += y[t][c];
    }
  };
  for (int64_t i = 0; i < kLayers; ++i) {
    const auto weight = [&](const std::string& name) -> const std::vector<float>& {
      return w.at(fmt::format("model.layers.{}.{}.weight", i, name));
    };
    Rows n = Norm(x, weight("input_layernorm"));
    Rows q = Linear(n, weight("self_attn.q_proj")), k = Linear(n, weight("self_attn.k_proj"));
    if (norms) {
      q = Norm(q, weight("self_attn.q_norm"));
      k = Norm(k, weight("self_attn.k_norm"));
    }
    const Rows out = Attention(Rotated(q), Rotated(k), Linear(n, weight("self_attn.v_proj")));
    add(Linear(out, weight("self_attn.o_proj")));
    n = Norm(x, weight("post_attention_layernorm"));
    Rows gate = Linear(n, weight("mlp.gate_proj"));
    const Rows up = Linear(n, weight("mlp.up_proj"));
    for (size_t t = 0; t < gate.size(); ++t) {
      for (size_t c = 0; c < gate[t].size(); ++c) gate[t][c] *= up[t][c] / (1 + std::exp(-gate[t][c]));
    }
    add(Linear(gate, weight("mlp.down_proj")));
  }
  return Linear(Norm(x, w.at("model.norm.weight")), w.at(tied ? "model.embed_tokens.weight" : "lm_head.weight"));
}

// ---- Models ---------------------------------------------------------------------------------------------------------

class HuggingFace : public testing::Test {
 protected:
  void Random(const std::string& name, const Shape& shape, double mean = 0) {
    std::vector<float>& values = weights_[name];
    std::normal_distribution<double> normal(mean, mean == 0 ? 1 / std::sqrt(kHidden) : 0.2);
    for (int64_t i = 0; i < shape.count(); ++i) values.push_back(static_cast<float>(normal(random_)));
    shapes_[name] = shape;
  }
  // A model's folder; `keys` are of config.json.
  void Write(const std::string& type, const std::string& keys, bool norms, bool tied) {
    weights_.clear();
    shapes_.clear();
    Random("model.embed_tokens.weight", {kVocab, kHidden});
    Random("model.norm.weight", {kHidden}, 1);
    if (!tied) Random("lm_head.weight", {kVocab, kHidden});
    for (int64_t i = 0; i < kLayers; ++i) {
      const std::string layer = fmt::format("model.layers.{}.", i);
      Random(layer + "input_layernorm.weight", {kHidden}, 1);
      Random(layer + "post_attention_layernorm.weight", {kHidden}, 1);
      Random(layer + "self_attn.q_proj.weight", {kHeads * kWidth, kHidden});
      Random(layer + "self_attn.k_proj.weight", {kGroups * kWidth, kHidden});
      Random(layer + "self_attn.v_proj.weight", {kGroups * kWidth, kHidden});
      Random(layer + "self_attn.o_proj.weight", {kHidden, kHeads * kWidth});
      if (norms) {
        Random(layer + "self_attn.q_norm.weight", {kWidth}, 1);
        Random(layer + "self_attn.k_norm.weight", {kWidth}, 1);
      }
      Random(layer + "mlp.gate_proj.weight", {kFfn, kHidden});
      Random(layer + "mlp.up_proj.weight", {kFfn, kHidden});
      Random(layer + "mlp.down_proj.weight", {kHidden, kFfn});
    }
    WriteConfig(type, fmt::format("\"tie_word_embeddings\": {}{}", tied, keys));
    WriteTensors();
  }
  void WriteConfig(const std::string& type, const std::string& keys) {
    WriteFile(
        folder_ / "config.json",
        fmt::format("{{\"model_type\": \"{}\", \"vocab_size\": {}, \"hidden_size\": {}, \"intermediate_size\": {}, "
                    "\"num_hidden_layers\": {}, \"num_attention_heads\": {}, \"num_key_value_heads\": {}, "
                    "\"head_dim\": {}, \"rms_norm_eps\": {}, \"rope_theta\": {}, \"hidden_act\": \"silu\", {}}}",
                    type, kVocab, kHidden, kFfn, kLayers, kHeads, kGroups, kWidth, kEps, kTheta, keys));
  }
  void WriteTensors() {
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (const auto& [name, values] : weights_) tensors.emplace_back(name, HostView(values.data(), shapes_[name]));
    WriteSafetensors(folder_ / "model.safetensors", tensors, {{"format", "pt"}});
  }
  // The decoder, of the model, starts with the weights of the folder.
  void Import(Decoder& decoder, const ModelConfig& model) {
    const std::string run = fmt::format("{}/run{}", folder_ / "", runs_++);
    ImportHuggingFace(HuggingFaceTensors(folder_ / ""), ReadHuggingFaceConfig(folder_ / ""), model, decoder.params(),
                      run, Manifest(), [](int64_t, int64_t) {});
    decoder.Start();
    CheckpointReader reader(NewestCheckpoint(run));
    LoadWeights(reader, *cpu_, decoder.stream(), decoder.params());
  }
  // The largest error of a logit of the imported model.
  double LargestError(const ModelConfig& model, bool norms, bool tied) {
    std::vector<int32_t> tokens;
    for (int64_t t = 0; t < kLength; ++t) tokens.push_back(static_cast<int32_t>(random_() % kVocab));
    const Rows expected = Logits(weights_, tokens, norms, tied);
    Decoder decoder(*cpu_, {.model = model, .dtype = DType::kF32, .sequences = 1, .length = kLength});
    Import(decoder, model);
    double error = 0;
    for (int64_t t = 0; t < kLength; ++t) {
      const Decoder::Entry next{0, std::span(tokens).subspan(t, 1)};
      const std::vector<float> logits = decoder.Append({&next, 1})[0];
      for (int64_t i = 0; i < kVocab; ++i) {
        error = std::max(error, std::abs(static_cast<double>(logits[i]) - expected[t][i]));
      }
    }
    return error;
  }
  ModelConfig Sparse(Phi phi, KvBranches branches) {
    ModelConfig model = ReadHuggingFaceConfig(folder_ / "").model;
    model.attention = {AttentionKind::kNsa};
    model.nsa = {
        .block = 8, .stride = 4, .select_block = 8, .select = 12, .window = 16, .phi = phi, .kv_branches = branches};
    return model;  // 12 blocks of 8 tokens hold all 90
  }
  void ExpectRefused(const std::function<void()>& f, const std::string& text) {
    try {
      f();
      ADD_FAILURE() << "not refused: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what() << "\nlacks: " << text;
    }
  }

  TempFolder folder_;
  const std::unique_ptr<Device> cpu_ = MakeCpuDevice();
  std::mt19937_64 random_{3};
  Weights weights_;
  std::map<std::string, Shape> shapes_;
  int runs_ = 0;
};

TEST_F(HuggingFace, ADenseModelAsItIs) {
  Write("llama", ", \"attention_bias\": false, \"rope_scaling\": null", false, false);
  EXPECT_LT(LargestError(ReadHuggingFaceConfig(folder_ / "").model, false, false), 1e-4);
  Write("qwen3", ", \"use_sliding_window\": false, \"sliding_window\": 5", true, true);
  EXPECT_LT(LargestError(ReadHuggingFaceConfig(folder_ / "").model, true, true), 1e-4);
}

TEST_F(HuggingFace, ADenseModelAsNsaWhileAllBlocksAreSelected) {
  Write("qwen3", "", true, false);
  for (const Phi phi : {Phi::kMlp, Phi::kLinear, Phi::kMean}) {
    for (const KvBranches branches : {KvBranches::kSeparate, KvBranches::kShared}) {
      EXPECT_LT(LargestError(Sparse(phi, branches), true, false), 1e-2);
    }
  }
  ModelConfig few = Sparse(Phi::kMlp, KvBranches::kSeparate);
  few.nsa.select = 3;
  EXPECT_GT(LargestError(few, true, false), 1e-2) << "what was compared is the choice of all blocks";
}

// gelu(x) - gelu(-x) = x: phi begins as the mean of its rows.
TEST_F(HuggingFace, PhiIsTheMean) {
  Write("llama", "", false, true);
  ModelConfig model = Sparse(Phi::kMlp, KvBranches::kSeparate);
  std::vector<Rows> logits;
  for (const Phi phi : {Phi::kMlp, Phi::kLinear, Phi::kMean}) {
    model.nsa.phi = phi;
    model.nsa.select = 4;
    Decoder decoder(*cpu_, {.model = model, .dtype = DType::kF32, .sequences = 1, .length = kLength});
    Import(decoder, model);
    for (const std::string name : {"layers.0.attention.gate.bias", "layers.1.attention.gate.bias"}) {
      const Tensor open = decoder.params().Find(name).weight;
      std::fill_n(open.As<float>(), open.size(), 0.0f);  // all branches count
    }
    std::vector<int32_t> tokens(kLength);
    for (int64_t t = 0; t < kLength; ++t) tokens[t] = static_cast<int32_t>(t * 7 % kVocab);
    const Decoder::Entry all{0, tokens};
    const std::vector<float> last = decoder.Append({&all, 1})[0];
    logits.push_back({std::vector<double>(last.begin(), last.end())});
  }
  for (int64_t i = 0; i < kVocab; ++i) {
    EXPECT_NEAR(logits[0][0][i], logits[2][0][i], 1e-4);
    EXPECT_NEAR(logits[1][0][i], logits[2][0][i], 1e-4);
  }
}

TEST_F(HuggingFace, WhatLongspanHasNotIsRefusedByName) {
  const auto read = [&] { ReadHuggingFaceConfig(folder_ / ""); };
  const std::string tied = "\"tie_word_embeddings\": true, ";
  for (const auto& [type, keys, text] : std::initializer_list<std::array<std::string, 3>>{
           {"gpt2", "\"n\": 1", "model_type: expected longspan, llama, mistral, qwen2 or qwen3, found \"gpt2\""},
           {"llama", "\"attention_bias\": true", "attention_bias: expected false"},
           {"llama", "\"mlp_bias\": true", "mlp_bias: expected false"},
           {"llama", "\"rope_scaling\": {\"rope_type\": \"llama3\"}", "rope_type: expected default or yarn"},
           {"llama", "\"rope_parameters\": {\"rope_type\": \"dynamic\"}", "rope_type: expected default or yarn"},
           {"qwen2", "\"use_sliding_window\": true, \"sliding_window\": 9", "use_sliding_window: expected false"},
           {"llama", "\"hidden_act\": \"gelu\"", "hidden_act: expected silu"},
           {"llama", "\"num_hidden_layers\": -1",
            "num_hidden_layers: expected a whole number from 1 to 1099511627776, found -1"},
           {"llama", "\"rms_norm_eps\": \"a\"", "rms_norm_eps: expected a number, found \"a\""},
       }) {
    WriteConfig(type, tied + keys);
    ExpectRefused(read, text);
  }
  WriteConfig("mistral", tied + "\"sliding_window\": 7");
  EXPECT_EQ(ReadHuggingFaceConfig(folder_ / "").model.attention[0], AttentionKind::kWindow);
  EXPECT_EQ(ReadHuggingFaceConfig(folder_ / "").model.nsa.window, 7);
  WriteFile(folder_ / "config.json", "[1");
  ExpectRefused(read, "expected a JSON object");

  Write("qwen2", "", false, true);
  const auto import = [&] {
    const ModelConfig model = ReadHuggingFaceConfig(folder_ / "").model;
    Decoder decoder(*cpu_, {.model = model, .dtype = DType::kF32, .sequences = 1, .length = kLength});
    Import(decoder, model);
  };
  const std::string query = "model.layers.1.self_attn.q_proj.";
  weights_[query + "bias"] = std::vector<float>(kHeads * kWidth);
  shapes_[query + "bias"] = {kHeads * kWidth};
  WriteTensors();
  ExpectRefused(import, query + "bias: Longspan's models have no such tensor: no projection has a bias");
  weights_.erase(query + "bias");
  shapes_[query + "weight"] = {kHidden, kHeads * kWidth};
  WriteTensors();
  ExpectRefused(import, query + "weight: expected the shape [32,24], found [24,32]");
  weights_.erase(query + "weight");
  WriteTensors();
  ExpectRefused(import, "expected a tensor " + query + "weight, found none");
}

TEST(HuggingFaceNames, AreLlamasWhereLlamaHasThem) {
  EXPECT_EQ(HuggingFaceNameOf("layers.3.attention.q.weight").name, "model.layers.3.self_attn.q_proj.weight");
  EXPECT_TRUE(HuggingFaceNameOf("layers.3.attention.v_slc.weight").transposed);
  EXPECT_EQ(HuggingFaceNameOf("layers.10.attention.k_cmp_norm.weight").name,
            "model.layers.10.self_attn.k_cmp_norm.weight");
  EXPECT_FALSE(HuggingFaceNameOf("layers.10.attention.k_cmp_norm.weight").transposed);
  EXPECT_EQ(HuggingFaceNameOf("layers.0.attention.gate.bias").name, "model.layers.0.self_attn.gate_proj.bias");
  EXPECT_FALSE(HuggingFaceNameOf("layers.0.attention.gate.bias").transposed);
  EXPECT_EQ(HuggingFaceNameOf("layers.0.attention.phi_v.weight2").name, "model.layers.0.self_attn.phi_v.weight2");
  EXPECT_FALSE(HuggingFaceNameOf("layers.0.attention.phi_k.weight").transposed);
  EXPECT_EQ(HuggingFaceNameOf("layers.0.ffn.down.weight").name, "model.layers.0.mlp.down_proj.weight");
  EXPECT_EQ(HuggingFaceNameOf("layers.0.ffn_norm.weight").name, "model.layers.0.post_attention_layernorm.weight");
  EXPECT_FALSE(HuggingFaceNameOf("head.weight").transposed);
}

}  // namespace
}  // namespace longspan
