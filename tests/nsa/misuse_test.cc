// Wrong use gives a status and a sentence that names what is wrong, changes nothing and never crashes.
#include <cmath>
#include <fstream>
#include <limits>
#include <thread>

#include "runtime/files/safetensors.h"
#include "tests/nsa/library.h"
#include "tests/support/files.h"

namespace longspan::test {
namespace {

// The status, and a sentence that contains `text`.
void ExpectRefusal(int found, NSAStatus status, const std::string& text) {
  EXPECT_EQ(found, status) << nsa_last_error();
  EXPECT_NE(std::string(nsa_last_error()).find(text), std::string::npos)
      << "expected '" << text << "' in '" << nsa_last_error() << "'";
}

NSAConfig Small() {
  NSAConfig config = nsa_create_default_config(8, 4);
  config.device = NSA_DEVICE_CPU;
  config.num_groups = 2;
  config.phi = NSA_PHI_MEAN;
  config.max_length = 200;
  config.max_batch = 2;
  return config;
}

TEST(Misuse, ConfigurationsAreRefusedByField) {
  struct Case {
    const char* text;
    void (*change)(NSAConfig*);
    NSAStatus status = NSA_ERROR_INVALID_ARGUMENT;
  };
  const Case cases[] = {
      {"block_length: expected 1 or more, found 0", [](NSAConfig* c) { c->block_length = 0; }},
      {"block_stride, block_length: expected a stride that divides the block, found 5 and 32",
       [](NSAConfig* c) { c->block_stride = 5; }},
      {"block_stride, selection_block_size", [](NSAConfig* c) { c->selection_block_size = 72; }},
      {"block_length, selection_block_size", [](NSAConfig* c) { c->selection_block_size = 16; }},
      {"num_selected_blocks: expected room for num_initial_blocks + num_local_blocks, found 2 and 3",
       [](NSAConfig* c) { c->num_selected_blocks = 2; }},
      {"window_size: expected 1 or more, found -1", [](NSAConfig* c) { c->window_size = -1; }},
      {"head_dim: expected 1 or more, found 0", [](NSAConfig* c) { c->head_dim = 0; }},
      {"num_heads, num_groups: expected groups that divide the heads, found 4 and 3",
       [](NSAConfig* c) { c->num_groups = 3; }},
      {"value_dim: expected 0 or more", [](NSAConfig* c) { c->value_dim = -8; }},
      {"num_heads, value_dim: expected a product of at most 134217728, found 4 and 2147483647",
       [](NSAConfig* c) { c->value_dim = 2147483647; }},
      {"num_groups, num_selected_blocks: expected a product of at most 134217728",
       [](NSAConfig* c) { c->num_selected_blocks = 2147483647; }},
      {"block_length, head_dim: expected a product",
       [](NSAConfig* c) {
         c->block_length = c->selection_block_size = 1 << 26;
         c->head_dim = 4;
       }},
      {"phi_hidden: expected 0 to 134217728", [](NSAConfig* c) { c->phi_hidden = 2147483647; }},
      {"scaling_factor: expected a number above 0", [](NSAConfig* c) { c->scaling_factor = NAN; }},
      {"rope_theta: expected a number in [0,inf)", [](NSAConfig* c) { c->rope_theta = -1; }},
      {"phi: expected 0 to 2, found 3", [](NSAConfig* c) { c->phi = 3; }},
      {"shared_kv: expected 0 to 1, found 2", [](NSAConfig* c) { c->shared_kv = 2; }},
      {"dtype: expected 0 to 2, found 9", [](NSAConfig* c) { c->dtype = 9; }},
      {"dtype: a CPU has no BF16", [](NSAConfig* c) { c->dtype = NSA_BFLOAT16; }, NSA_ERROR_UNSUPPORTED},
      {"device: expected -2 to", [](NSAConfig* c) { c->device = -3; }},
      {"GPUs that this library sees, found 4096", [](NSAConfig* c) { c->device = 4096; }, NSA_ERROR_UNSUPPORTED},
      {"max_length: expected 1 or more, found 0", [](NSAConfig* c) { c->max_length = 0; }},
      {"max_length: expected 1 to", [](NSAConfig* c) { c->max_length = int64_t{1} << 40; }},
      {"max_batch: expected 1 or more, found 0", [](NSAConfig* c) { c->max_batch = 0; }},
  };
  for (const Case& one : cases) {
    NSAConfig config = Small();
    one.change(&config);
    NSAContext ctx = {&config};
    ExpectRefusal(nsa_init(&ctx, &config), one.status, one.text);
    EXPECT_EQ(ctx.impl, nullptr);
    if (one.status == NSA_ERROR_INVALID_ARGUMENT) {
      EXPECT_EQ(nsa_get_workspace_size(&config), 0U) << one.text;
    }
  }
  const NSAConfig good = Small();
  EXPECT_GT(nsa_get_workspace_size(&good), 0U);
}

TEST(Misuse, NullAndNotInitialised) {
  const NSAConfig config = Small();
  NSAContext none = {nullptr};
  NSACache no_cache = {nullptr};
  float x = 0;
  const NSAInputs inputs = {};
  const NSAOutputs outputs = {};
  const NSAGradients gradients = {};
  const NSADecodeStep step = {};
  const NSADeviceStep device_step = {};
  ExpectRefusal(nsa_init(nullptr, &config), NSA_ERROR_INVALID_ARGUMENT,
                "nsa_init: ctx: expected an NSAContext, found null");
  ExpectRefusal(nsa_init(&none, nullptr), NSA_ERROR_INVALID_ARGUMENT, "config: expected an NSAConfig, found null");
  nsa_free(nullptr);
  nsa_free(&none);
  nsa_reset(nullptr);
  nsa_reset(&none);
  nsa_cache_free(nullptr);
  nsa_cache_free(&no_cache);
  EXPECT_EQ(nsa_get_workspace_size(nullptr), 0U);
  const char* const not_made = "ctx: expected a context that nsa_init made";
  for (NSAContext* ctx : {static_cast<NSAContext*>(nullptr), &none}) {
    const NSAStatus status = ctx ? NSA_ERROR_NOT_INITIALIZED : NSA_ERROR_INVALID_ARGUMENT;
    const char* const text = ctx ? not_made : "ctx: expected an NSAContext, found null";
    ExpectRefusal(nsa_compute_attention(ctx, &x, &x, &x, 1, &x, nullptr), status, text);
    ExpectRefusal(nsa_update_window(ctx, &x, &x, 1, nullptr), status, text);
    ExpectRefusal(nsa_forward(ctx, &inputs, &outputs, nullptr), status, text);
    ExpectRefusal(nsa_backward(ctx, &inputs, &x, &x, &gradients, &x, nullptr), status, text);
    ExpectRefusal(nsa_cache_init(ctx, &no_cache, 4), status, text);
    ExpectRefusal(nsa_prefill(ctx, &no_cache, 0, &inputs, nullptr, &outputs, nullptr), status, text);
    ExpectRefusal(nsa_decode(ctx, &no_cache, &step, nullptr), status, text);
    ExpectRefusal(nsa_decode_device(ctx, &no_cache, &device_step, nullptr), status, text);
    ExpectRefusal(nsa_bind_weight(ctx, "gate.bias", &x), status, text);
    EXPECT_EQ(nsa_saved_size(ctx, 10), 0U);
  }
}

class Misused : public testing::Test {
 protected:
  Misused() {
    const NSAConfig config = Small();
    EXPECT_NSA(nsa_init(&ctx_, &config));
    for (int branch = 0; branch < 3; ++branch) inputs_.k[branch] = inputs_.v[branch] = memory_.data();
    inputs_.tokens = 100;
    inputs_.q = memory_.data();
    outputs_ = {memory_.data(), memory_.data(), nullptr};
    step_.num_sequences = 1;
    step_.lengths = &length_;
    step_.page_table = table_;
    step_.page_table_width = 4;
    step_.q = memory_.data();
    for (int branch = 0; branch < 3; ++branch) step_.k[branch] = step_.v[branch] = memory_.data();
    step_.out = memory_.data();
  }
  ~Misused() override { nsa_free(&ctx_); }
  int Forward() { return nsa_forward(&ctx_, &inputs_, &outputs_, nullptr); }
  int Decode() { return nsa_decode(&ctx_, &cache_, &step_, nullptr); }

  NSAContext ctx_;
  NSACache cache_ = {nullptr};
  std::vector<float> memory_ = std::vector<float>(1 << 20);
  NSAInputs inputs_ = {};
  NSAOutputs outputs_ = {};
  NSADecodeStep step_ = {};
  int64_t length_ = 0;
  int32_t table_[4] = {3, 0, 1, 2};
};

TEST_F(Misused, Sequences) {
  ASSERT_NSA(Forward());
  const auto refused = [&](const auto& change, NSAStatus status, const char* text) {
    const NSAInputs inputs = inputs_;
    const NSAOutputs outputs = outputs_;
    change();
    ExpectRefusal(Forward(), status, text);
    inputs_ = inputs;
    outputs_ = outputs;
  };
  refused([&] { inputs_.tokens = 0; }, NSA_ERROR_INVALID_ARGUMENT, "tokens: expected 1 or more, found 0");
  refused([&] { inputs_.tokens = 201; }, NSA_ERROR_LENGTH, "tokens: expected at most max_length = 200, found 201");
  refused([&] { inputs_.q = nullptr; }, NSA_ERROR_INVALID_ARGUMENT, "q: expected device memory, found null");
  refused([&] { inputs_.k[2] = nullptr; }, NSA_ERROR_INVALID_ARGUMENT, "k[2]: expected device memory, found null");
  refused([&] { inputs_.v[1] = nullptr; }, NSA_ERROR_INVALID_ARGUMENT, "v[1]: expected device memory, found null");
  refused([&] { outputs_.out = nullptr; }, NSA_ERROR_INVALID_ARGUMENT, "out: expected device memory, found null");
  refused([&] { outputs_.saved = nullptr; }, NSA_ERROR_INVALID_ARGUMENT, "saved: expected nsa_saved_size bytes");
  refused([&] { outputs_.saved = memory_.data() + 1; }, NSA_ERROR_INVALID_ARGUMENT,
          "saved: expected an address that is a multiple of 16");
  std::vector<int32_t> doc_start(100, 0);
  doc_start[80] = 70;
  refused([&] { inputs_.doc_start = doc_start.data(); }, NSA_ERROR_INVALID_ARGUMENT,
          "doc_start[80] = 70: documents start at multiples of 64");
  ExpectRefusal(nsa_forward(&ctx_, nullptr, &outputs_, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "inputs: expected an NSAInputs");
  ExpectRefusal(nsa_forward(&ctx_, &inputs_, nullptr, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "outputs: expected an NSAOutputs");
  NSAGradients gradients = {};
  float* const x = memory_.data();
  ExpectRefusal(nsa_backward(&ctx_, &inputs_, x, nullptr, &gradients, x, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "d_out: ");
  ExpectRefusal(nsa_backward(&ctx_, &inputs_, x, x, nullptr, x, nullptr), NSA_ERROR_INVALID_ARGUMENT, "gradients: ");
  ExpectRefusal(nsa_backward(&ctx_, &inputs_, x, x, &gradients, nullptr, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "workspace: ");
  gradients.d_gates = x;
  ExpectRefusal(nsa_backward(&ctx_, &inputs_, x, x, &gradients, x, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "d_gates: no gates were given");
  EXPECT_EQ(nsa_saved_size(&ctx_, 201), 0U);
  EXPECT_EQ(nsa_backward_workspace_size(&ctx_, -1), 0U);
}

TEST_F(Misused, OneQuery) {
  float* const x = memory_.data();
  ASSERT_NSA(nsa_compute_attention(&ctx_, x, x, x, 200, x, nullptr));
  ExpectRefusal(nsa_compute_attention(&ctx_, x, x, x, 201, x, nullptr), NSA_ERROR_LENGTH,
                "seq_len: expected at most max_length = 200, found 201");
  ExpectRefusal(nsa_compute_attention(&ctx_, x, x, x, -1, x, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "seq_len: expected 1");
  ExpectRefusal(nsa_compute_attention(&ctx_, nullptr, x, x, 4, x, nullptr), NSA_ERROR_INVALID_ARGUMENT, "query: ");
  ExpectRefusal(nsa_compute_attention(&ctx_, x, x, x, 4, nullptr, nullptr), NSA_ERROR_INVALID_ARGUMENT, "output: ");
  ExpectRefusal(nsa_update_window(&ctx_, x, nullptr, 4, nullptr), NSA_ERROR_INVALID_ARGUMENT, "new_values: ");
  ExpectRefusal(nsa_update_window(&ctx_, x, x, -4, nullptr), NSA_ERROR_INVALID_ARGUMENT, "num_new: expected 0 or more");
  NSAConfig config = Small();
  config.value_dim = 16;
  NSAContext wide;
  ASSERT_NSA(nsa_init(&wide, &config));
  ExpectRefusal(nsa_compute_attention(&wide, x, x, x, 4, x, nullptr), NSA_ERROR_UNSUPPORTED, "value_dim 0 or 8");
  nsa_free(&wide);
  ExpectRefusal(nsa_compute_attention(&wide, x, x, x, 4, x, nullptr), NSA_ERROR_NOT_INITIALIZED, "nsa_init made");
}

TEST_F(Misused, Decoding) {
  ExpectRefusal(Decode(), NSA_ERROR_NOT_INITIALIZED, "cache: expected a cache that nsa_cache_init made");
  ExpectRefusal(nsa_cache_init(&ctx_, &cache_, 0), NSA_ERROR_INVALID_ARGUMENT, "num_pages: expected 1 to");
  ExpectRefusal(nsa_cache_init(&ctx_, nullptr, 4), NSA_ERROR_INVALID_ARGUMENT, "cache: expected an NSACache");
  ASSERT_NSA(nsa_cache_init(&ctx_, &cache_, 4));
  length_ = 1;
  ExpectRefusal(Decode(), NSA_ERROR_NOT_INITIALIZED,
                "sequence 0 holds 0 tokens: expected 0 (to begin it) or 0 to 0, found 1");
  length_ = 0;
  ASSERT_NSA(Decode());
  length_ = 1;
  ASSERT_NSA(Decode());
  const auto refused = [&](const auto& change, NSAStatus status, const char* text) {
    const NSADecodeStep step = step_;
    change();
    ExpectRefusal(Decode(), status, text);
    step_ = step;
  };
  length_ = 2;
  const int32_t none = 0, many = 17, two[] = {1, 1};
  const int64_t two_lengths[] = {0, 0};
  refused([&] { step_.num_sequences = 0; }, NSA_ERROR_INVALID_ARGUMENT, "num_sequences: expected 1 or more");
  refused([&] { step_.num_sequences = 3; }, NSA_ERROR_LENGTH, "num_sequences: expected at most max_batch = 2, found 3");
  refused([&] { step_.new_tokens = &none; }, NSA_ERROR_INVALID_ARGUMENT, "new_tokens[0]: expected 1 to 16, found 0");
  refused([&] { step_.new_tokens = &many; }, NSA_ERROR_INVALID_ARGUMENT, "new_tokens[0]: expected 1 to 16, found 17");
  refused([&] { step_.sequences = &many; }, NSA_ERROR_INVALID_ARGUMENT,
          "sequences[0]: expected one in [0,2), each once");
  refused(
      [&] {
        step_.num_sequences = 2;
        step_.sequences = two;
        step_.lengths = two_lengths;
        step_.page_table_width = 1;
      },
      NSA_ERROR_INVALID_ARGUMENT, "sequences[1]: expected one in [0,2), each once, found 1");
  refused([&] { step_.lengths = nullptr; }, NSA_ERROR_INVALID_ARGUMENT, "lengths: expected");
  refused([&] { step_.page_table = nullptr; }, NSA_ERROR_INVALID_ARGUMENT, "page_table: expected device memory");
  refused([&] { step_.page_table_width = 0; }, NSA_ERROR_LENGTH,
          "page_table_width: expected the 1 pages of sequence 0");
  refused([&] { step_.k[1] = nullptr; }, NSA_ERROR_INVALID_ARGUMENT, "k[1]: expected device memory, found null");
  refused([&] { step_.out = nullptr; }, NSA_ERROR_INVALID_ARGUMENT, "out: expected device memory, found null");
  table_[0] = 4;
  ExpectRefusal(Decode(), NSA_ERROR_INVALID_ARGUMENT, "page_table[0][0]: expected a page in [0,4), found 4");
  table_[0] = 3;
  ExpectRefusal(nsa_decode(&ctx_, &cache_, nullptr, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "step: expected an NSADecodeStep");
  const NSADeviceStep device_step = {};
  ExpectRefusal(nsa_decode_device(&ctx_, &cache_, nullptr, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "step: expected an NSADeviceStep");
  ExpectRefusal(nsa_decode_device(&ctx_, &cache_, &device_step, nullptr), NSA_ERROR_UNSUPPORTED,
                "lengths in device memory take a GPU");
  ASSERT_NSA(Decode());  // as if nothing had been

  ExpectRefusal(nsa_prefill(&ctx_, &cache_, 2, &inputs_, table_, &outputs_, nullptr), NSA_ERROR_LENGTH,
                "sequence: expected one in [0,2)");
  ExpectRefusal(nsa_prefill(&ctx_, &cache_, 1, &inputs_, nullptr, &outputs_, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "page_table: ");
  const std::vector<int32_t> doc_start(100, 0);
  inputs_.doc_start = doc_start.data();
  ExpectRefusal(nsa_prefill(&ctx_, &cache_, 1, &inputs_, table_, &outputs_, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "doc_start: a sequence of a cache is one document");
  inputs_.doc_start = nullptr;
  inputs_.tokens = 200;
  ASSERT_NSA(nsa_prefill(&ctx_, &cache_, 0, &inputs_, table_, &outputs_, nullptr));
  length_ = 200;
  ExpectRefusal(Decode(), NSA_ERROR_LENGTH, "lengths[0]: expected at most max_length = 200 tokens with the new ones");
  length_ = 183;
  ExpectRefusal(Decode(), NSA_ERROR_NOT_INITIALIZED,
                "holds 200 tokens: expected 0 (to begin it) or 184 to 200, found 183");

  const NSAConfig config = Small();
  NSAContext other;
  ASSERT_NSA(nsa_init(&other, &config));
  ExpectRefusal(nsa_decode(&other, &cache_, &step_, nullptr), NSA_ERROR_INVALID_ARGUMENT,
                "cache: expected one of this context");
  nsa_free(&other);
  nsa_cache_free(&cache_);
}

TEST_F(Misused, Weights) {
  nsa_free(&ctx_);
  NSAConfig config = Small();
  config.phi = NSA_PHI_MLP;
  ASSERT_NSA(nsa_init(&ctx_, &config));
  float* const x = memory_.data();
  ExpectRefusal(Forward(), NSA_ERROR_MISSING_WEIGHT, "missing phi_k.position, phi_k.weight1");
  ExpectRefusal(nsa_cache_init(&ctx_, &cache_, 4), NSA_ERROR_MISSING_WEIGHT, "missing phi_k.position");
  ASSERT_NSA(nsa_compute_attention(&ctx_, x, x, x, 100, x, nullptr));  // none set: the mean
  const int64_t right[] = {32, 8}, wrong[] = {32, 9};
  const auto set = [&](const char* name, const int64_t* shape, int32_t rank) {
    return nsa_set_weight(&ctx_, name, x, NSA_FLOAT32, shape, rank);
  };
  ExpectRefusal(set("phi_k.position", wrong, 2), NSA_ERROR_INVALID_ARGUMENT,
                "phi_k.position: expected the shape [32,8], found [32,9]");
  ExpectRefusal(set("phi_k.postion", right, 2), NSA_ERROR_INVALID_ARGUMENT, "name: expected one of phi_k.position, ");
  ExpectRefusal(set("phi_k.position", right, 0), NSA_ERROR_INVALID_ARGUMENT, "rank: expected 1 to 4, found 0");
  ExpectRefusal(set("phi_k.position", nullptr, 2), NSA_ERROR_INVALID_ARGUMENT, "shape: ");
  ExpectRefusal(set(nullptr, right, 2), NSA_ERROR_INVALID_ARGUMENT, "name: ");
  ExpectRefusal(nsa_set_weight(&ctx_, "phi_k.position", x, 7, right, 2), NSA_ERROR_INVALID_ARGUMENT,
                "dtype: expected 0 to 2, found 7");
  ExpectRefusal(nsa_bind_gradient(&ctx_, "gate", x), NSA_ERROR_INVALID_ARGUMENT, "found 'gate'");
  ASSERT_NSA(set("phi_k.position", right, 2));
  ExpectRefusal(nsa_compute_attention(&ctx_, x, x, x, 100, x, nullptr), NSA_ERROR_MISSING_WEIGHT,
                "missing phi_k.weight1");
  ASSERT_NSA(nsa_bind_weight(&ctx_, "phi_k.position", nullptr));
  ASSERT_NSA(nsa_bind_weight(&ctx_, "gate.weight", x));
  ExpectRefusal(nsa_compute_attention(&ctx_, x, x, x, 100, x, nullptr), NSA_ERROR_MISSING_WEIGHT, "missing gate.bias");
}

TEST_F(Misused, WeightsOfAFile) {
  nsa_free(&ctx_);
  NSAConfig config = Small();
  config.phi = NSA_PHI_LINEAR;
  ASSERT_NSA(nsa_init(&ctx_, &config));
  const TempFolder folder;
  const std::string path = folder / "weights.safetensors";
  float* const x = memory_.data();
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const char* const which : {"k", "v"}) {
    tensors.emplace_back(fmt::format("a.phi_{}.position", which), HostView(x, {2, 32, 8}));
    tensors.emplace_back(fmt::format("a.phi_{}.weight", which), HostView(x, {2, 256, 8}));
  }
  WriteSafetensors(path, tensors);
  const auto load = [&](const char* prefix) { return nsa_load_weights(&ctx_, path.c_str(), prefix); };
  ExpectRefusal(load("b."), NSA_ERROR_MISSING_WEIGHT, "missing b.phi_k.position, b.phi_k.weight");
  ExpectRefusal(nsa_load_weights(&ctx_, "/nowhere", nullptr), NSA_ERROR_FILE, "/nowhere: cannot open");
  ExpectRefusal(Forward(), NSA_ERROR_MISSING_WEIGHT, "missing phi_k.position");
  ASSERT_NSA(load("a."));
  ASSERT_NSA(Forward());
  tensors[3].second = HostView(x, {2, 255, 8});
  WriteSafetensors(path, tensors);
  ExpectRefusal(load("a."), NSA_ERROR_FILE, "a.phi_v.weight: expected F32, F64 or BF16 [2,256,8], found F32 [2,255,8]");
  std::ofstream(path) << "not safetensors";
  ExpectRefusal(load("a."), NSA_ERROR_FILE, "weights.safetensors");
}

TEST(Misuse, StatusesHaveWordsAndErrorsAreOfAThread) {
  for (int status = NSA_SUCCESS; status <= NSA_ERROR_INTERNAL; ++status) {
    EXPECT_STRNE(nsa_status_string(status), "unknown status") << status;
  }
  EXPECT_STREQ(nsa_status_string(99), "unknown status");
  EXPECT_NE(nsa_init(nullptr, nullptr), NSA_SUCCESS);
  std::thread([] { EXPECT_STREQ(nsa_last_error(), ""); }).join();
  EXPECT_STRNE(nsa_last_error(), "");
}

}  // namespace
}  // namespace longspan::test
