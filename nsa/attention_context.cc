#include "nsa/attention_context.h"

#include <numeric>

#include "kernels/dense/rope_config.h"
#include "kernels/host_copy.h"
#include "nsa/configuration.h"
#include "nsa/single_query.h"
#include "nsa/status.h"
#include "runtime/foreign_stream.h"
#include "runtime/rounding.h"

namespace longspan {

AttentionContext::AttentionContext(const NSAConfig& given, bool plan_only)
    : config(Checked(given)),
      nsa(NsaOf(config)),
      shared(config.shared_kv == 1),
      heads(config.num_heads),
      groups(config.num_groups),
      key_width(config.head_dim),
      value_width(ValueWidth(config)),
      dtype(TypeOf(config.dtype)),
      gradient_dtype(dtype == DType::kF64 ? DType::kF64 : DType::kF32),
      scale(config.scaling_factor),
      device_(plan_only ? MakeCpuDevice() : FindDevice(config)),
      weights_(SizesOfPhi(config, key_width), SizesOfPhi(config, value_width), dtype, gradient_dtype, device_->kind()) {
  weights_.Reserve(arena_);
  arena_.Reserve(&in_order_, MemoryUse::kWorkspace, "pages", DType::kI32, {max_pages()});
  arena_.Reserve(&positions_, MemoryUse::kWorkspace, "positions", DType::kI32, {config.max_length / nsa.stride + 1});
  arena_.Reserve(&open_, MemoryUse::kWorkspace, "open gates", dtype, {3});
  if (rotates()) arena_.Reserve(&frequency_, MemoryUse::kWorkspace, "frequency", DType::kF64, {key_width / 2});
  if (dtype == DType::kF32 && value_width == key_width) single_ = std::make_unique<SingleQuery>(*this, arena_);
}

AttentionContext::~AttentionContext() = default;

AttentionContext& AttentionContext::Of(const NSAContext* ctx) {
  Required(ctx, "ctx", "an NSAContext");
  if (ctx->impl == nullptr) Refuse(NSA_ERROR_NOT_INITIALIZED, "ctx: expected a context that nsa_init made");
  return *static_cast<AttentionContext*>(ctx->impl);
}

void AttentionContext::Start() {
  ops_ = MakeOps(device_->kind());
  stream_ = device_->MakeStream("nsa");
  joined_ = device_->MakeEvent();
  arena_.Commit(*device_);
  std::vector<int32_t> in_order(in_order_.size()), positions(positions_.size());
  std::iota(in_order.begin(), in_order.end(), 0);
  for (int64_t row = nsa.lead(); row < positions_.size(); ++row) {
    positions[row] = static_cast<int32_t>((row - nsa.lead()) * nsa.stride);
  }
  Upload(HostView(in_order.data(), in_order_.shape), in_order_);
  Upload(HostView(positions.data(), positions_.shape), positions_);
  // A sigmoid that rounds to 1 in every type.
  const std::vector<double> open(3, 100.0);
  Upload(HostView(open.data(), open_.shape), open_);
  if (rotates()) {
    const RopeTable table = MakeRopeTable({.theta = config.rope_theta}, key_width);
    Upload(HostView(table.frequency.data(), frequency_.shape), frequency_);
  }
}

void AttentionContext::Upload(const Tensor& host, const Tensor& to) { HostCopy(*device_, *stream_, host, to); }

void AttentionContext::SetWeight(const std::string& name, const Tensor& value) {
  Weights::Weight& weight = weights_.Find(name);
  if (value.shape != weight.shape) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected the shape {}, found {}", name, weight.shape.ToString(),
           value.shape.ToString());
  }
  Upload(value, weight.memory);
  weight.value = weight.memory;
}

void AttentionContext::LoadWeights(const std::string& path, const std::string& prefix) {
  const SafetensorsFile file = SafetensorsFile::Open(path);
  std::vector<std::pair<std::string, Tensor>> found;
  std::string missing;
  for (const Weights::Weight& weight : weights_.all()) {
    const std::string name = prefix + weight.name;
    if (!file.Has(name)) {
      if (!weight.name.starts_with("gate.")) missing += (missing.empty() ? "" : ", ") + name;
      continue;
    }
    found.emplace_back(weight.name, FloatsOf(file, name, weight.shape));
  }
  if (!missing.empty()) Refuse(NSA_ERROR_MISSING_WEIGHT, "{}: expected phi's weights, missing {}", path, missing);
  for (const auto& [name, value] : found) SetWeight(name, value);
}

Tensor AttentionContext::View(const void* data, const char* name, DType type, const Shape& shape) const {
  constexpr const char* kWhat = "device memory";
  if (device_->kind() == DeviceKind::kGpu) {
    AlignedMemory(data, name, kWhat);
  } else {
    Required(data, name, kWhat);
  }
  return Tensor(const_cast<void*>(data), type, device_->kind(), shape);
}

int64_t AttentionContext::max_pages() const { return CeilDiv(config.max_length, nsa.select_block); }

Pages AttentionContext::InOrder(int64_t rows) const {
  return {in_order_.Rows(0, CeilDiv(rows, nsa.select_block)), nsa.select_block};
}

void AttentionContext::RotateSummaries(const Tensor& k, const Tensor& positions, bool inverse) {
  if (!rotates() || k.size() == 0) return;
  ops_.dense->Rope(*stream_, {k, k, positions, frequency_, 1, inverse});
}

void AttentionContext::MakeGates(const Tensor& q, const Tensor& logits, const Tensor& gates) {
  const bool learned = weights_.has_gates();
  const Tensor y = gates.Reshape({q.dim(0) * q.dim(1), 3});
  if (learned) {
    ops_.dense->MatMul(*stream_,
                       {.a = q.Reshape({y.dim(0), key_width}), .b = weights_.gate_weight().value, .c = logits});
  } else {
    ops_.rows->Zero(*stream_, logits);
  }
  ops_.dense->Gate(*stream_, {logits, learned ? weights_.gate_bias().value : open_, y});
}

SingleQuery& AttentionContext::single() {
  if (!single_) {
    Refuse(
        NSA_ERROR_UNSUPPORTED,
        "the calls for one query take floats and values as wide as keys: expected dtype NSA_FLOAT32 and value_dim 0 or "
        "{}, found dtype {} and value_dim {}",
        key_width, config.dtype, config.value_dim);
  }
  return *single_;
}

void AttentionContext::Join(CUstream_st* theirs) {
  if (device_->kind() == DeviceKind::kCpu) return;
  RecordForeign(theirs, *joined_);
  stream_->Wait(*joined_);
}

void AttentionContext::Release(CUstream_st* theirs) {
  if (device_->kind() == DeviceKind::kCpu) {
    stream_->Synchronize();
    return;
  }
  stream_->Record(*joined_);
  WaitForeign(theirs, *joined_);
}

const void* AlignedMemory(const void* memory, const char* name, const char* what) {
  if (reinterpret_cast<uintptr_t>(Required(memory, name, what)) % 16 != 0) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected an address that is a multiple of 16", name);
  }
  return memory;
}

Tensor Cutter::Cut(DType dtype, const Shape& shape) {
  const Tensor tensor(memory_ == nullptr ? nullptr : memory_ + bytes_, dtype, device_, shape);
  bytes_ += RoundUp(tensor.bytes(), 256);
  return tensor;
}

}  // namespace longspan
