#include "launch/commands/attention_case.h"

#include <fmt/ranges.h>

#include <cmath>

#include "launch/commands/attention_metadata.h"
#include "launch/config/nearest_name.h"
#include "launch/train/selection_file.h"
#include "model/inputs.h"
#include "runtime/bf16.h"

namespace longspan {
namespace {

constexpr const char* kBranches[] = {"cmp", "slc", "win"};

bool IsFloating(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBf16; }

// Compares a file with the case that its metadata, q, k and v describe.
class CaseChecker {
 public:
  CaseChecker(AttentionCase* out, const std::string& selection)
      : case_(*out), path_(out->file.path()), selection_(selection) {}

  void Check() {
    ReadAttentionMetadata(path_, case_.file.metadata(), &case_);
    ReadSizes();
    CheckInputs();
    CheckPhi("phi_k.", case_.sizes.key_width);
    CheckPhi("phi_v.", case_.sizes.value_width);
    RefuseUnknown();
    CheckGates();
    if (case_.file.Has("doc_start")) ValidateDocStart(Ints("doc_start"), case_.nsa.select_block, path_);
    ReadSelected();
  }

 private:
  // A floating tensor of three dimensions, none of them 0.
  Tensor Get3(const std::string& name, const char* dims) const {
    const Tensor x = case_.file.Get(name);
    if (x.shape.rank() != 3 || x.size() == 0) {
      Fail(ExitCode::kData, "{}: {}: expected {}, none of them 0, found {}", path_, name, dims, x.shape.ToString());
    }
    return x;
  }

  void ReadSizes() {
    const bool shared = case_.file.Has("k") || case_.file.Has("v");
    for (const char* branch : kBranches) {
      for (const char* kind : {"k_", "v_"}) {
        if (!shared || !case_.file.Has(kind + std::string(branch))) continue;
        Fail(ExitCode::kData,
             "{}: {} and {}{} disagree: expected k and v for all branches, or k_cmp, k_slc, k_win "
             "and v_cmp, v_slc, v_win",
             path_, case_.file.Has("k") ? "k" : "v", kind, branch);
      }
    }
    case_.nsa.kv_branches = shared ? KvBranches::kShared : KvBranches::kSeparate;
    if (shared && case_.rope_theta != 0 && case_.nsa.compress_rope == CompressRope::kAfter) {
      Fail(ExitCode::kData,
           "{}: k, rope_theta = {} and compress_rope = AFTER disagree: one k cannot be unrotated for "
           "the compression and rotated for the other branches; give k_cmp, k_slc, k_win, or leave out rope_theta",
           path_, case_.rope_theta);
    }

    const Tensor q = Get3("q", "[S,H,K]");
    if (!IsFloating(q.dtype)) {
      Fail(ExitCode::kData, "{}: q: expected F32, F64 or BF16, found {}", path_, DTypeName(q.dtype));
    }
    case_.dtype = q.dtype;
    case_.sequence = q.dim(0);
    const int64_t heads = q.dim(1), width = q.dim(2);
    if (width % 2 != 0) {
      Fail(ExitCode::kData, "{}: q: expected an even K, since RoPE turns pairs of channels, found {}", path_,
           q.shape.ToString());
    }
    const Tensor k = Get3(case_.K("cmp"), "[S,G,K]");
    const Tensor v = Get3(case_.V("cmp"), "[S,G,V]");
    if (heads % k.dim(1) != 0) {
      Fail(ExitCode::kData, "{}: {}: expected groups that divide the {} heads of q, found {}", path_, case_.K("cmp"),
           heads, k.shape.ToString());
    }
    case_.sizes = {heads, k.dim(1), width, v.dim(2)};
    if (case_.scale == 0) case_.scale = 1 / std::sqrt(static_cast<double>(width));
  }

  void CheckInputs() {
    const auto [heads, groups, key_width, value_width] = case_.sizes;
    const int64_t tokens = case_.sequence;
    Require("q", case_.dtype, {tokens, heads, key_width});
    for (const char* branch : kBranches) {
      Require(case_.K(branch), case_.dtype, {tokens, groups, key_width});
      Require(case_.V(branch), case_.dtype, {tokens, groups, value_width});
    }
    Allow("gates", case_.dtype, {tokens, heads, 3});
    Allow("d_out", case_.dtype, {tokens, heads, value_width});
    Allow("doc_start", DType::kI32, {tokens});
    Allow(kSelected, DType::kI32, {tokens, groups, case_.nsa.select});
  }

  void CheckPhi(const std::string& prefix, int64_t width) {
    int64_t hidden = 0;
    if (case_.nsa.phi == Phi::kMlp) {
      const Tensor weight1 = case_.file.Get(prefix + "weight1");
      hidden = weight1.shape.rank() == 2 && weight1.size() > 0 ? weight1.dim(1) : 2 * width;
    }
    ForPhi({case_.nsa.phi, case_.sizes.kv_heads, case_.nsa.block, width, hidden},
           [&](size_t i, const Shape& shape) { Require(prefix + kPhiNames[i], case_.dtype, shape); });
  }

  void Require(const std::string& name, DType dtype, const Shape& shape) {
    known_.push_back(name);
    const Tensor x = case_.file.Get(name);
    if (x.dtype == dtype && x.shape == shape) return;
    const bool mixed = IsFloating(dtype) && IsFloating(x.dtype) && x.dtype != dtype;
    Fail(ExitCode::kData, "{}: {}: expected {} {}, found {} {}{}", path_, name, DTypeName(dtype), shape.ToString(),
         DTypeName(x.dtype), x.shape.ToString(), mixed ? "; floating tensors are all of the type of q" : "");
  }

  void Allow(const std::string& name, DType dtype, const Shape& shape) {
    if (case_.file.Has(name)) {
      Require(name, dtype, shape);
    } else {
      known_.push_back(name);
    }
  }

  // A misspelt optional tensor must not pass for an absent one.
  void RefuseUnknown() const {
    for (const std::string& name : case_.file.names()) {
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      for (size_t i = 0; i < kPhiNames.kSize; ++i) {
        if (name != std::string("phi_k.") + kPhiNames[i] && name != std::string("phi_v.") + kPhiNames[i]) continue;
        Fail(ExitCode::kData, "{}: {}: expected only weights of phi = {}, found one of another phi", path_, name,
             PhiName(case_.nsa.phi));
      }
      Fail(ExitCode::kData, "{}: {}: expected only tensors of an attention case; the nearest name is {}", path_, name,
           NearestName(name, known_));
    }
  }

  // The backward wants of a gate what a sigmoid gives.
  void CheckGates() const {
    if (!case_.file.Has("gates") || !case_.file.Has("d_out")) return;
    const Tensor gates = case_.file.Get("gates");
    const auto check = [&](const auto* values) {
      for (int64_t i = 0; i < gates.size(); ++i) {
        const auto gate = static_cast<double>(values[i]);
        if (gate >= 0) continue;
        Fail(ExitCode::kData, "{}: gates: with d_out expected 0 or more, as after a sigmoid, found {}", path_, gate);
      }
    };
    if (gates.dtype == DType::kF64) return check(gates.As<const double>());
    if (gates.dtype == DType::kF32) return check(gates.As<const float>());
    check(static_cast<const HostBf16*>(gates.data));
  }

  std::span<const int32_t> Ints(const std::string& name) const {
    const Tensor x = case_.file.Get(name);
    return {x.As<int32_t>(), static_cast<size_t>(x.size())};
  }

  void ReadSelected() {
    const std::span<const int32_t> doc_start =
        case_.file.Has("doc_start") ? Ints("doc_start") : std::span<const int32_t>();
    const Shape shape = {case_.sequence, case_.sizes.kv_heads, case_.nsa.select};
    const bool given = case_.file.Has(kSelected);
    if (given && !selection_.empty()) {
      Fail(ExitCode::kData, "{}: {}: expected none beside {}, which gives the choice", path_, kSelected, selection_);
    }
    if (given) {
      const std::span<const int32_t> blocks = Ints(kSelected);
      CheckSelection(fmt::format("{}: {}", path_, kSelected), blocks, shape, doc_start, case_.nsa.select_block);
      case_.selected.assign(blocks.begin(), blocks.end());
    } else if (!selection_.empty()) {
      case_.selected = SelectionFile(selection_, case_.nsa.select_block).Read(kSelected, shape, doc_start);
    }
  }

  AttentionCase& case_;
  const std::string path_;
  const std::string selection_;
  std::vector<std::string> known_;
};

}  // namespace

AttentionCase ReadAttentionCase(const std::string& path, const std::string& selection) {
  AttentionCase result;
  result.file = SafetensorsFile::Open(path);
  CaseChecker(&result, selection).Check();
  return result;
}

}  // namespace longspan
