// The library as a program uses it, on the values of an NsaCase: one context, RAII, floats or doubles.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "nsa/nsa.h"
#include "tests/support/nsa_case.h"

namespace longspan::test {

// Fails the test with the library's sentence.
#define EXPECT_NSA(call) EXPECT_EQ(call, NSA_SUCCESS) << nsa_last_error()
#define ASSERT_NSA(call) ASSERT_EQ(call, NSA_SUCCESS) << nsa_last_error()

inline NSAConfig ConfigOf(const NsaCase& c, NSADType dtype) {
  NSAConfig config = nsa_create_default_config(static_cast<int32_t>(c.key_width), static_cast<int32_t>(c.heads));
  const auto narrow = [](int64_t x) { return static_cast<int32_t>(x); };
  config.block_length = narrow(c.nsa.block);
  config.block_stride = narrow(c.nsa.stride);
  config.selection_block_size = narrow(c.nsa.select_block);
  config.num_selected_blocks = narrow(c.nsa.select);
  config.window_size = narrow(c.nsa.window);
  config.scaling_factor = static_cast<float>(c.scale);
  config.value_dim = narrow(c.value_width);
  config.num_groups = narrow(c.groups);
  config.num_initial_blocks = narrow(c.nsa.init);
  config.num_local_blocks = narrow(c.nsa.local);
  config.phi = static_cast<int32_t>(c.nsa.phi);
  config.phi_hidden = narrow(c.nsa.phi_hidden);
  config.shared_kv = c.nsa.kv_branches == KvBranches::kShared;
  config.rope_theta = c.rotates() ? static_cast<float>(c.rope_theta) : 0;
  config.dtype = dtype;
  config.device = NSA_DEVICE_CPU;
  config.max_length = c.tokens;
  config.max_batch = 4;
  return config;
}

template <typename T>
constexpr NSADType kTypeOf = std::is_same_v<T, float> ? NSA_FLOAT32 : NSA_FLOAT64;

template <typename T>
std::vector<T> As(const Array& values) {
  return std::vector<T>(values.begin(), values.end());
}

template <typename T>
Array Doubles(const std::vector<T>& values) {
  return Array(values.begin(), values.end());
}

// A context with the case's weights set from memory.
class Library {
 public:
  Library(const NsaCase& c, NSADType dtype) : Library(c, ConfigOf(c, dtype)) {}
  Library(const NsaCase& c, const NSAConfig& config) {
    EXPECT_NSA(nsa_init(&context_, &config));
    for (const auto& [prefix, phi, width] :
         {std::tuple("phi_k.", &c.in.phi_k, c.key_width), {"phi_v.", &c.in.phi_v, c.value_width}}) {
      ForPhi(c.SizesOfPhi(width), [&, prefix = prefix, phi = phi](size_t i, const Shape& shape) {
        const std::string name = prefix + std::string(kPhiNames[i]);
        std::vector<int64_t> dims;
        for (int d = 0; d < shape.rank(); ++d) dims.push_back(shape[d]);
        EXPECT_NSA(nsa_set_weight(&context_, name.c_str(), (*phi)[i].data(), NSA_FLOAT64, dims.data(), shape.rank()));
      });
    }
  }
  ~Library() { nsa_free(&context_); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  NSAContext* get() { return &context_; }

 private:
  NSAContext context_ = {nullptr};
};

// The values of a case as the library takes them; `call` points to them.
template <typename T>
struct Values {
  explicit Values(const NsaCase& c) : doc_start(c.doc_start) {
    q = As<T>(c.in.q);
    gates = As<T>(c.in.gates);
    call.tokens = c.tokens;
    call.doc_start = doc_start.empty() ? nullptr : doc_start.data();
    call.q = q.data();
    call.gates = gates.data();
    for (int branch = 0; branch < 3; ++branch) {
      k[branch] = As<T>(c.in.k[branch]);
      v[branch] = As<T>(c.in.v[branch]);
      call.k[branch] = k[branch].empty() ? nullptr : k[branch].data();
      call.v[branch] = v[branch].empty() ? nullptr : v[branch].data();
    }
  }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;

  std::vector<int32_t> doc_start;
  std::vector<T> q, gates;
  std::array<std::vector<T>, 3> k, v;
  NSAInputs call = {};
};

// What a forward wrote.
template <typename T>
struct ForwardResult {
  std::vector<T> out;             // [S,H,V]
  std::vector<int32_t> selected;  // [S,G,N]
  std::vector<char> saved;
};

template <typename T>
ForwardResult<T> RunForward(Library& library, const NsaCase& c, const NSAInputs& inputs) {
  ForwardResult<T> result;
  const int64_t tokens = inputs.tokens;
  result.out.resize(tokens * c.heads * c.value_width);
  result.selected.resize(tokens * c.groups * c.nsa.select);
  result.saved.resize(nsa_saved_size(library.get(), tokens));
  std::memset(result.saved.data(), 0xFF, result.saved.size());
  const NSAOutputs outputs = {result.out.data(), result.saved.data(), result.selected.data()};
  EXPECT_NSA(nsa_forward(library.get(), &inputs, &outputs, nullptr));
  return result;
}

}  // namespace longspan::test
