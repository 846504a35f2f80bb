// The whole model through the C interface: Longspan's own losses, logits that say the same, gradients and steps,
// weights by number and in files; wrong use.
#include "nsa/model.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "model/network/session.h"
#include "parallel/comm/local_comm.h"
#include "tests/nsa/library.h"
#include "tests/support/compare.h"
#include "tests/support/files.h"

namespace longspan::test {
namespace {

constexpr int32_t kVocabulary = 17, kLength = 96, kBatch = 3;

NSAModelConfig SmallModel() {
  NSAModelConfig config = nsa_model_default_config(kVocabulary, 2, 24, 4);
  config.sequence_length = kLength;
  NSAConfig& attention = config.attention;
  attention.device = NSA_DEVICE_CPU;
  attention.num_groups = 2;
  attention.value_dim = 5;
  attention.block_length = 8;
  attention.block_stride = 4;
  attention.selection_block_size = 8;
  attention.num_selected_blocks = 4;
  attention.window_size = 13;
  return config;
}

struct Tokens {
  explicit Tokens(uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % kVocabulary);
    for (int32_t& target : targets) target = static_cast<int32_t>(random() % (kVocabulary + 1)) - 1;
  }
  std::vector<int32_t> tokens = std::vector<int32_t>(kBatch * kLength), targets = tokens;
};

class Model : public testing::Test {
 protected:
  Model() {
    const NSAModelConfig config = SmallModel();
    EXPECT_NSA(nsa_model_init(&model_, &config));
  }
  ~Model() override { nsa_model_free(&model_); }

  double Loss(const Tokens& tokens, bool backward = false) {
    double loss = NAN;
    const auto call = backward ? nsa_model_backward : nsa_model_loss;
    EXPECT_NSA(call(&model_, tokens.tokens.data(), tokens.targets.data(), kBatch, &loss));
    return loss;
  }
  std::vector<float> Logits(const Tokens& tokens) {
    std::vector<float> logits(tokens.tokens.size() * kVocabulary);
    EXPECT_NSA(nsa_model_logits(&model_, tokens.tokens.data(), kBatch, logits.data()));
    return logits;
  }
  int32_t Number(const std::string& name) {
    NSAWeight weight;
    for (int32_t i = 0; i < nsa_model_weight_count(&model_); ++i) {
      EXPECT_NSA(nsa_model_weight(&model_, i, &weight));
      if (weight.name == name) return i;
    }
    ADD_FAILURE() << "no weight " << name;
    return -1;
  }

  NSAModel model_;
};

TEST_F(Model, LossesAreLongspans) {
  SessionConfig config;
  config.model.layers = 2;
  config.model.hidden = 24;
  config.model.heads = 4;
  config.model.kv_heads = 2;
  config.model.key_width = 6;
  config.model.value_width = 5;
  config.model.ffn = 64;
  config.model.vocab = kVocabulary;
  config.model.nsa = {.block = 8, .stride = 4, .select_block = 8, .select = 4, .window = 13};
  config.sequence_length = kLength;
  const auto device = MakeCpuDevice();
  const auto alone = MakeLocalCommunicator(*device);
  Session session(config, *device, *alone, DType::kF32);
  session.Start(1);
  const Tokens tokens(3);
  double sum = 0;
  for (int32_t i = 0; i < kBatch; ++i) {
    Sequence sequence(kLength);
    std::copy_n(tokens.tokens.begin() + i * kLength, kLength, sequence.tokens.begin());
    std::copy_n(tokens.targets.begin() + i * kLength, kLength, sequence.targets.begin());
    Batch batch;
    CutSequence(sequence, session.layout(), 0, config.model.nsa, &batch);
    session.Load(batch);
    session.model().Forward(session.inputs());
    for (const double loss : session.ToHost<double>(session.model().token_loss())) sum += loss;
  }
  const auto labels = static_cast<double>(tokens.targets.size()) -
                      static_cast<double>(std::count(tokens.targets.begin(), tokens.targets.end(), -1));
  EXPECT_NEAR(Loss(tokens), sum / labels, 1e-12);
}

TEST_F(Model, LogitsSayTheLoss) {
  const Tokens tokens(4);
  const std::vector<float> logits = Logits(tokens);
  double sum = 0, labels = 0;
  for (size_t i = 0; i < tokens.targets.size(); ++i) {
    if (tokens.targets[i] < 0) continue;
    double all = 0;
    for (int32_t x = 0; x < kVocabulary; ++x) all += std::exp(static_cast<double>(logits[i * kVocabulary + x]));
    sum += std::log(all) - logits[i * kVocabulary + tokens.targets[i]];
    ++labels;
  }
  EXPECT_NEAR(Loss(tokens), sum / labels, 1e-5);
}

TEST_F(Model, GradientsAddAndStepsTrain) {
  const Tokens tokens(5);
  const int32_t number = Number("layers.1.attention.gate.weight");
  std::vector<float> once(24 * 12), twice(once);
  const double first = Loss(tokens, true);
  EXPECT_EQ(first, Loss(tokens));
  ASSERT_NSA(nsa_model_get_gradient(&model_, number, once.data()));
  Loss(tokens, true);
  ASSERT_NSA(nsa_model_get_gradient(&model_, number, twice.data()));
  for (float& x : once) x *= 2;
  EXPECT_TRUE(RmsClose("gradient", Doubles(twice), Doubles(once), 1e-5));
  double norm = 0;
  ASSERT_NSA(nsa_model_step(&model_, 1e-3, &norm));
  EXPECT_GT(norm, 0);
  ASSERT_NSA(nsa_model_get_gradient(&model_, number, twice.data()));
  EXPECT_EQ(Rms(Doubles(twice)), 0);
  for (int step = 0; step < 20; ++step) {
    Loss(tokens, true);
    ASSERT_NSA(nsa_model_step(&model_, 1e-2, nullptr));
  }
  EXPECT_LT(Loss(tokens), 0.9 * first);
}

TEST_F(Model, WeightsByNumberAndInFiles) {
  const Tokens tokens(6);
  const TempFolder folder;
  const std::string path = folder / "model.safetensors";
  const std::vector<float> before = Logits(tokens);
  ASSERT_NSA(nsa_model_save(&model_, path.c_str()));
  const int32_t number = Number("norm.weight");
  std::vector<float> norm(24);
  ASSERT_NSA(nsa_model_get_weight(&model_, number, norm.data()));
  EXPECT_EQ(norm, std::vector<float>(24, 1.0F));
  norm.assign(24, 2.0F);
  ASSERT_NSA(nsa_model_set_weight(&model_, number, norm.data()));
  std::vector<float> doubled = before;
  for (float& x : doubled) x *= 2;
  EXPECT_TRUE(BitEqual("doubled", Doubles(Logits(tokens)), Doubles(doubled)));

  NSAModelConfig config = SmallModel();
  config.seed = 9;
  NSAModel other;
  ASSERT_NSA(nsa_model_init(&other, &config));
  std::swap(other, model_);
  EXPECT_NE(Logits(tokens), before);
  ASSERT_NSA(nsa_model_load(&model_, path.c_str()));
  EXPECT_EQ(Logits(tokens), before);
  config.layers = 3;
  nsa_model_free(&other);
  ASSERT_NSA(nsa_model_init(&other, &config));
  EXPECT_EQ(nsa_model_load(&other, path.c_str()), NSA_ERROR_FILE);
  EXPECT_NE(std::string(nsa_last_error()).find("missing layers.2.attention_norm.weight"), std::string::npos)
      << nsa_last_error();
  nsa_model_free(&other);
}

// Prompts of different lengths, then token by token: the logits of the whole sequence, bit for bit.
TEST_F(Model, DecodesWhatLogitsSay) {
  const Tokens tokens(8);
  const std::vector<float> whole = Logits(tokens);
  const auto at = [&](int32_t sequence, int32_t position) {
    const auto begin = whole.begin() + (sequence * kLength + position) * kVocabulary;
    return std::vector<float>(begin, begin + kVocabulary);
  };
  NSADecoder decoder;
  ASSERT_NSA(nsa_decoder_init(&decoder, &model_, kBatch, kLength));
  const int32_t prompts[kBatch] = {1, 40, 65};
  std::vector<float> logits(kVocabulary);
  for (int32_t i = 0; i < kBatch; ++i) {
    ASSERT_NSA(nsa_decoder_append(&decoder, i, tokens.tokens.data() + i * kLength, prompts[i], logits.data()));
    EXPECT_EQ(logits, at(i, prompts[i] - 1)) << "sequence " << i;
    EXPECT_EQ(nsa_decoder_length(&decoder, i), prompts[i]);
  }
  std::vector<float> all(kBatch * kVocabulary);
  for (int32_t step = 0; step < kLength - prompts[2]; ++step) {
    int32_t next[kBatch];
    for (int32_t i = 0; i < kBatch; ++i) next[i] = tokens.tokens[i * kLength + prompts[i] + step];
    ASSERT_NSA(nsa_decoder_step(&decoder, next, all.data()));
    for (int32_t i = 0; i < kBatch; ++i) {
      const auto begin = all.begin() + i * kVocabulary;
      ASSERT_EQ(std::vector<float>(begin, begin + kVocabulary), at(i, prompts[i] + step)) << "sequence " << i;
    }
  }
  // Another sequence in the place of one.
  ASSERT_NSA(nsa_decoder_clear(&decoder, 2));
  ASSERT_NSA(nsa_decoder_append(&decoder, 2, tokens.tokens.data(), 33, nullptr));
  ASSERT_NSA(nsa_decoder_append(&decoder, 2, tokens.tokens.data() + 33, 1, logits.data()));
  EXPECT_EQ(logits, at(0, 33));
  nsa_decoder_free(&decoder);
  EXPECT_EQ(decoder.impl, nullptr);
}

// Several tokens of some sequences at once, and taken back.
TEST_F(Model, ChecksDrafts) {
  const Tokens tokens(9);
  const std::vector<float> whole = Logits(tokens);
  const auto at = [&](int32_t sequence, int32_t position) { return sequence * kLength + position; };
  NSADecoder decoder;
  ASSERT_NSA(nsa_decoder_init(&decoder, &model_, kBatch, kLength));
  const int32_t sequences[] = {2, 0}, prompts[] = {50, 7}, counts[] = {5, 9};
  std::vector<int32_t> prompt(tokens.tokens.begin() + at(2, 0), tokens.tokens.begin() + at(2, 50));
  prompt.insert(prompt.end(), tokens.tokens.begin(), tokens.tokens.begin() + 7);
  ASSERT_NSA(nsa_decoder_extend(&decoder, 2, sequences, prompts, prompt.data(), nullptr));
  EXPECT_EQ(nsa_decoder_length(&decoder, 1), 0);
  for (const bool right : {false, true}) {
    std::vector<int32_t> draft;
    std::vector<float> expected;
    for (int i = 0; i < 2; ++i) {
      const int32_t begin = at(sequences[i], prompts[i]), end = begin + counts[i];
      draft.insert(draft.end(), tokens.tokens.begin() + begin, tokens.tokens.begin() + end);
      expected.insert(expected.end(), whole.begin() + begin * kVocabulary, whole.begin() + end * kVocabulary);
    }
    if (!right) draft[0] = (draft[0] + 1) % kVocabulary;
    std::vector<float> logits(expected.size());
    ASSERT_NSA(nsa_decoder_extend(&decoder, 2, sequences, counts, draft.data(), logits.data()));
    EXPECT_EQ(logits == expected, right);
    EXPECT_EQ(nsa_decoder_length(&decoder, 2), 55);
    if (right) break;
    EXPECT_EQ(nsa_decoder_truncate(&decoder, 2, 56), NSA_ERROR_INVALID_ARGUMENT);
    for (int i = 0; i < 2; ++i) ASSERT_NSA(nsa_decoder_truncate(&decoder, sequences[i], prompts[i]));
  }
  nsa_decoder_free(&decoder);
}

TEST_F(Model, WrongUse) {
  const auto refused = [](int status, NSAStatus expected, const std::string& text) {
    EXPECT_EQ(status, expected) << nsa_last_error();
    EXPECT_NE(std::string(nsa_last_error()).find(text), std::string::npos) << nsa_last_error();
  };
  Tokens tokens(7);
  int32_t* const x = tokens.tokens.data();
  float values[24] = {};
  double loss = 0;
  NSAModel none = {nullptr};
  nsa_model_free(nullptr);
  nsa_model_free(&none);
  refused(nsa_model_loss(nullptr, x, x, 1, &loss), NSA_ERROR_INVALID_ARGUMENT,
          "model: expected an NSAModel, found null");
  refused(nsa_model_logits(&none, x, 1, values), NSA_ERROR_NOT_INITIALIZED,
          "model: expected a model that nsa_model_init");
  EXPECT_EQ(nsa_model_weight_count(&none), 0);
  refused(nsa_model_loss(&model_, nullptr, x, 1, &loss), NSA_ERROR_INVALID_ARGUMENT, "tokens: expected host memory");
  refused(nsa_model_loss(&model_, x, nullptr, 1, &loss), NSA_ERROR_INVALID_ARGUMENT, "targets: expected host memory");
  refused(nsa_model_loss(&model_, x, x, 1, nullptr), NSA_ERROR_INVALID_ARGUMENT, "loss: expected a place for it");
  refused(nsa_model_loss(&model_, x, x, 0, &loss), NSA_ERROR_INVALID_ARGUMENT, "batch: expected 1 or more, found 0");
  x[kLength + 5] = kVocabulary;
  refused(nsa_model_loss(&model_, x, tokens.targets.data(), 2, &loss), NSA_ERROR_INVALID_ARGUMENT,
          "tokens[1,5]: expected 0 to 16, found 17");
  refused(nsa_model_weight(&model_, 1000, nullptr), NSA_ERROR_INVALID_ARGUMENT, "number: expected a weight in [0,");
  refused(nsa_model_set_weight(&model_, 0, nullptr), NSA_ERROR_INVALID_ARGUMENT, "values: expected host memory");
  refused(nsa_model_step(&model_, NAN, nullptr), NSA_ERROR_INVALID_ARGUMENT, "learning_rate: ");
  refused(nsa_model_load(&model_, "/nowhere"), NSA_ERROR_FILE, "/nowhere: cannot open");

  NSADecoder decoder = {nullptr};
  nsa_decoder_free(nullptr);
  nsa_decoder_free(&decoder);
  refused(nsa_decoder_step(&decoder, x, values), NSA_ERROR_NOT_INITIALIZED, "decoder: expected a decoder that");
  refused(nsa_decoder_init(&decoder, &none, 1, 1), NSA_ERROR_NOT_INITIALIZED, "model: expected a model");
  refused(nsa_decoder_init(&decoder, &model_, 0, 1), NSA_ERROR_INVALID_ARGUMENT, "sequences: expected 1 or more");
  refused(nsa_decoder_init(&decoder, &model_, 1, 0), NSA_ERROR_INVALID_ARGUMENT, "length: expected 1 or more");
  ASSERT_NSA(nsa_decoder_init(&decoder, &model_, 2, 9));
  refused(nsa_decoder_append(&decoder, 2, x, 1, values), NSA_ERROR_INVALID_ARGUMENT,
          "sequence: expected one in [0,2), found 2");
  refused(nsa_decoder_append(&decoder, 0, x, 0, values), NSA_ERROR_INVALID_ARGUMENT, "count: expected 1 or more");
  refused(nsa_decoder_append(&decoder, 0, nullptr, 1, values), NSA_ERROR_INVALID_ARGUMENT, "tokens: expected host");
  refused(nsa_decoder_append(&decoder, 0, x, 10, values), NSA_ERROR_INVALID_ARGUMENT,
          "sequence 0: expected at most 9 tokens, found 0 and 10 more");
  refused(nsa_decoder_append(&decoder, 1, x + kLength + 4, 2, values), NSA_ERROR_INVALID_ARGUMENT,
          "tokens[1]: expected 0 to 16, found 17");
  refused(nsa_decoder_step(&decoder, x, nullptr), NSA_ERROR_INVALID_ARGUMENT, "logits: expected host memory");
  const int32_t twice[] = {1, 1}, one[] = {1, 1}, nothing[] = {0};
  refused(nsa_decoder_extend(&decoder, 0, nullptr, one, x, values), NSA_ERROR_INVALID_ARGUMENT,
          "num_sequences: expected 1 or more");
  refused(nsa_decoder_extend(&decoder, 2, twice, one, x, values), NSA_ERROR_INVALID_ARGUMENT,
          "sequences[1]: expected each once, found 1 again");
  refused(nsa_decoder_extend(&decoder, 3, nullptr, nullptr, x, values), NSA_ERROR_INVALID_ARGUMENT, "counts: expected");
  refused(nsa_decoder_extend(&decoder, 1, nullptr, nothing, x, values), NSA_ERROR_INVALID_ARGUMENT,
          "counts[0]: expected 1 or more, found 0");
  refused(nsa_decoder_truncate(&decoder, 0, 1), NSA_ERROR_INVALID_ARGUMENT,
          "length: sequence 0 holds 0 tokens: expected 0 to so many, found 1");
  EXPECT_EQ(nsa_decoder_length(&decoder, 0), 0);
  EXPECT_EQ(nsa_decoder_length(&decoder, -1), -1);
  nsa_decoder_free(&decoder);

  struct Case {
    const char* text;
    void (*change)(NSAModelConfig*);
  };
  const Case cases[] = {
      {"vocabulary: expected 1 to 134217728, found 0", [](NSAModelConfig* c) { c->vocabulary = 0; }},
      {"layers: expected 1 or more", [](NSAModelConfig* c) { c->layers = 0; }},
      {"sequence_length: expected a multiple of block_stride = 4", [](NSAModelConfig* c) { c->sequence_length = 98; }},
      {"sequence_length: expected a multiple", [](NSAModelConfig* c) { c->sequence_length = 4; }},
      {"head_dim: expected 1 or more", [](NSAModelConfig* c) { c->attention.head_dim = 0; }},
      {"attention.rope_theta: expected a number above 0", [](NSAModelConfig* c) { c->attention.rope_theta = 0; }},
      {"attention.scaling_factor: expected 1/sqrt(head_dim)",
       [](NSAModelConfig* c) { c->attention.scaling_factor = 1; }},
      {"beta2: expected a number in [0,1), found 1", [](NSAModelConfig* c) { c->beta2 = 1; }},
      {"tied_head: expected", [](NSAModelConfig* c) { c->tied_head = 2; }},
      {"vocabulary: expected 1 to 134217728, found 2147483647",
       [](NSAModelConfig* c) { c->vocabulary = c->hidden = 2147483647; }},
      {"hidden: expected 1 to", [](NSAModelConfig* c) { c->hidden = c->ffn = 2147483647; }},
      {"ffn: expected 1 to", [](NSAModelConfig* c) { c->ffn = 2147483647; }},
      {"num_heads, head_dim: expected a product of at most 134217728, found 2097152 and 1048576",
       [](NSAModelConfig* c) {
         c->attention.num_heads = 1 << 21;
         c->attention.head_dim = 1 << 20;
       }},
  };
  for (const Case& one : cases) {
    NSAModelConfig config = SmallModel();
    one.change(&config);
    refused(nsa_model_init(&none, &config), NSA_ERROR_INVALID_ARGUMENT, one.text);
    EXPECT_EQ(none.impl, nullptr);
  }
  NSAModelConfig vast = SmallModel();
  vast.vocabulary = 1 << 27;
  vast.hidden = 1 << 17;
  refused(nsa_model_init(&none, &vast), NSA_ERROR_OUT_OF_MEMORY, "out of host memory");
  EXPECT_EQ(none.impl, nullptr);
}

}  // namespace
}  // namespace longspan::test
