// Case files of `longspan attention` for tests: an NsaCase as named tensors and metadata, which a test may alter before
// it writes them, and results read back.
#pragma once

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "runtime/files/safetensors.h"
#include "tests/support/compare.h"
#include "tests/support/nsa_case.h"

namespace longspan::test {

// Values as they are in memory. Floats are given as doubles; BF16 drops the lower bits of F32.
inline std::vector<std::byte> Encode(const Array& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * DTypeSize(dtype));
  const auto put = [&](size_t i, auto value) { std::memcpy(bytes.data() + i * sizeof(value), &value, sizeof(value)); };
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF64) put(i, values[i]);
    if (dtype == DType::kF32) put(i, static_cast<float>(values[i]));
    if (dtype == DType::kBf16)
      put(i, static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(values[i])) >> 16));
    if (dtype == DType::kI32) put(i, static_cast<int32_t>(values[i]));
  }
  return bytes;
}

inline Array Decode(const Tensor& x) {
  Array values(x.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (x.dtype == DType::kF64) values[i] = x.As<double>()[i];
    if (x.dtype == DType::kF32) values[i] = static_cast<double>(x.As<float>()[i]);
    if (x.dtype == DType::kI32) values[i] = x.As<int32_t>()[i];
    if (x.dtype == DType::kBf16) {
      const uint32_t bits = static_cast<const uint16_t*>(x.data)[i];
      values[i] = static_cast<double>(std::bit_cast<float>(bits << 16));
    }
  }
  return values;
}

struct CaseFile {
  struct Entry {
    DType dtype;
    Shape shape;
    Array values;
  };
  std::map<std::string, Entry> tensors;
  std::map<std::string, std::string> metadata;

  CaseFile(const NsaCase& c, DType dtype) {
    const NsaConfig& nsa = c.nsa;
    const bool shared = nsa.kv_branches == KvBranches::kShared;
    NsaArrays arrays = c.in;
    for (const auto& [name, values] : arrays.Named()) {
      const std::string file_name = shared && (name == "k_cmp" || name == "v_cmp") ? name.substr(0, 1) : name;
      tensors[file_name] = {dtype, ShapeOf(c, name), *values};
    }
    tensors["d_out"] = {dtype, {c.tokens, c.heads, c.value_width}, c.d_out};
    if (!c.doc_start.empty()) {
      tensors["doc_start"] = {DType::kI32, {c.tokens}, Array(c.doc_start.begin(), c.doc_start.end())};
    }
    for (const auto& [key, value] : std::map<std::string, int64_t>{{"block", nsa.block},
                                                                   {"stride", nsa.stride},
                                                                   {"select_block", nsa.select_block},
                                                                   {"select", nsa.select},
                                                                   {"init", nsa.init},
                                                                   {"local", nsa.local},
                                                                   {"window", nsa.window}}) {
      metadata[key] = std::to_string(value);
    }
    const char* const phis[] = {"MLP", "LINEAR", "MEAN"};
    metadata["phi"] = phis[static_cast<int>(nsa.phi)];
    metadata["compress_rope"] = nsa.compress_rope == CompressRope::kAfter ? "AFTER" : "BEFORE";
    if (c.rope_theta != 0) metadata["rope_theta"] = fmt::format("{}", c.rope_theta);
  }

  void Freeze(const NsaCase& c, const std::vector<int32_t>& selected) {
    tensors["selected"] = {DType::kI32, {c.tokens, c.groups, c.nsa.select}, Array(selected.begin(), selected.end())};
  }

  void Write(const std::string& path) const {
    std::vector<std::vector<std::byte>> memory;
    std::vector<std::pair<std::string, Tensor>> views;
    for (const auto& [name, entry] : tensors) {
      memory.push_back(Encode(entry.values, entry.dtype));
      views.emplace_back(name, Tensor(memory.back().data(), entry.dtype, DeviceKind::kCpu, entry.shape));
    }
    WriteSafetensors(path, views, metadata);
  }

 private:
  static Shape ShapeOf(const NsaCase& c, const std::string& name) {
    const bool key = name[0] == 'k' || name.starts_with("phi_k");
    const int64_t width = key ? c.key_width : c.value_width;
    if (name == "q") return {c.tokens, c.heads, c.key_width};
    if (name == "gates") return {c.tokens, c.heads, 3};
    if (!name.starts_with("phi")) return {c.tokens, c.groups, width};
    Shape found;
    ForPhi(c.SizesOfPhi(width), [&](size_t i, const Shape& shape) {
      if (name.substr(name.find('.') + 1) == kPhiNames[i]) found = shape;
    });
    return found;
  }
};

inline bool IsGradient(const std::string& name) { return name.starts_with("d_"); }

inline Array Get(const SafetensorsFile& file, const std::string& name) { return Decode(file.Get(name)); }

// All results have the same bits, or only those of the forward; both files hold the same names, types and shapes.
inline ::testing::AssertionResult SameBits(const SafetensorsFile& a, const SafetensorsFile& b, bool gradients = true) {
  if (a.names() != b.names()) return ::testing::AssertionFailure() << "the files hold different names";
  for (const std::string& name : a.names()) {
    const Tensor x = a.Get(name), y = b.Get(name);
    if (x.dtype != y.dtype || x.shape != y.shape) {
      return ::testing::AssertionFailure() << name << " has different types or shapes";
    }
    if ((gradients || !IsGradient(name)) && std::memcmp(x.data, y.data, x.bytes()) != 0) {
      const Array p = Decode(x), q = Decode(y);
      size_t i = 0;
      while (i < p.size() && std::bit_cast<uint64_t>(p[i]) == std::bit_cast<uint64_t>(q[i])) ++i;
      return ::testing::AssertionFailure()
             << fmt::format("{}{}: element {}: {} and {}", name, x.shape.ToString(), i, p[i], q[i]);
    }
  }
  return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult SameForward(const SafetensorsFile& a, const SafetensorsFile& b) {
  return SameBits(a, b, false);
}

// DESIGN.md section 5: relative to the larger of the gradient's own RMS and 1e-3 of that of all; to that of all for
// those of `zero`, which are zero in exact arithmetic and rounding alone in `found`.
inline void ExpectGradients(const SafetensorsFile& found, const SafetensorsFile& expected, double tolerance,
                            const std::set<std::string>& zero = {}) {
  std::map<std::string, Array> gradients;
  for (const std::string& name : expected.names()) {
    if (IsGradient(name)) gradients[name] = Get(expected, name);
  }
  std::vector<const Array*> all;
  for (const auto& [name, values] : gradients) all.push_back(&values);
  const double floor = GradientFloor(all);
  for (const auto& [name, values] : gradients) {
    EXPECT_TRUE(RmsClose(name, Get(found, name), values, tolerance, zero.contains(name) ? 1e3 * floor : floor));
  }
}

}  // namespace longspan::test
