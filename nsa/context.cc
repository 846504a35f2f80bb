#include "nsa/context.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/dense/rope_config.h"
#include "kernels/host_copy.h"
#include "nsa/single_query.h"
#include "nsa/status.h"
#include "runtime/files/safetensors.h"
#include "runtime/foreign_stream.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

int64_t ValueWidth(const NSAConfig& config) { return config.value_dim == 0 ? config.head_dim : config.value_dim; }

void CheckSizes(const NSAConfig& c) {
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    if (value < least) Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected {} or more, found {}", name, least, value);
  };
  at_least("block_length", c.block_length, 1);
  at_least("block_stride", c.block_stride, 1);
  at_least("selection_block_size", c.selection_block_size, 1);
  at_least("num_selected_blocks", c.num_selected_blocks, 1);
  at_least("window_size", c.window_size, 1);
  at_least("head_dim", c.head_dim, 1);
  at_least("num_heads", c.num_heads, 1);
  at_least("value_dim", c.value_dim, 0);
  at_least("num_groups", c.num_groups, 1);
  at_least("num_initial_blocks", c.num_initial_blocks, 0);
  at_least("num_local_blocks", c.num_local_blocks, 0);
  at_least("phi_hidden", c.phi_hidden, 0);
  at_least("max_length", c.max_length, 1);
  at_least("max_batch", c.max_batch, 1);
  const auto within = [](const char* name, int64_t value, int64_t first, int64_t last) {
    if (value < first || value > last) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected {} to {}, found {}", name, first, last, value);
    }
  };
  within("phi", c.phi, NSA_PHI_MLP, NSA_PHI_MEAN);
  within("shared_kv", c.shared_kv, 0, 1);
  within("dtype", c.dtype, NSA_FLOAT32, NSA_FLOAT64);
  within("device", c.device, NSA_DEVICE_AUTO, std::numeric_limits<int32_t>::max());
  within("max_length", c.max_length, 1, std::numeric_limits<int32_t>::max() - c.selection_block_size);
}

// Throws with the fields' own names (kernels/attention/nsa_config.cc has the same rules for a configuration's keys).
void CheckRules(const NSAConfig& c) {
  const auto require = [](bool good, const char* rule, int64_t first, int64_t second) {
    if (!good) Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}, found {} and {}", rule, first, second);
  };
  require(c.block_length % c.block_stride == 0, "block_stride, block_length: expected a stride that divides the block",
          c.block_stride, c.block_length);
  require(c.selection_block_size % c.block_stride == 0,
          "block_stride, selection_block_size: expected a stride that divides the block", c.block_stride,
          c.selection_block_size);
  require(c.block_length <= c.selection_block_size,
          "block_length, selection_block_size: expected the first to be no longer than the second", c.block_length,
          c.selection_block_size);
  const int64_t forced = int64_t{c.num_initial_blocks} + c.num_local_blocks;
  require(c.num_selected_blocks >= forced,
          "num_selected_blocks: expected room for num_initial_blocks + num_local_blocks", c.num_selected_blocks,
          forced);
  require(c.num_heads % c.num_groups == 0, "num_heads, num_groups: expected groups that divide the heads", c.num_heads,
          c.num_groups);
  if (!std::isfinite(c.scaling_factor) || c.scaling_factor <= 0) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "scaling_factor: expected a number above 0, found {}", c.scaling_factor);
  }
  if (!std::isfinite(c.rope_theta) || c.rope_theta < 0) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "rope_theta: expected 0 or a number above it, found {}", c.rope_theta);
  }
  require(c.rope_theta == 0 || c.head_dim % 2 == 0, "head_dim, num_heads: expected an even head_dim for rope_theta",
          c.head_dim, c.num_heads);
}

const NSAConfig& Checked(const NSAConfig& config) {
  CheckSizes(config);
  CheckRules(config);
  return config;
}

NsaConfig NsaOf(const NSAConfig& c) {
  return {.block = c.block_length,
          .stride = c.block_stride,
          .select_block = c.selection_block_size,
          .select = c.num_selected_blocks,
          .init = c.num_initial_blocks,
          .local = c.num_local_blocks,
          .window = c.window_size,
          .phi = static_cast<Phi>(c.phi),
          .phi_hidden = c.phi_hidden,
          .kv_branches = c.shared_kv ? KvBranches::kShared : KvBranches::kSeparate};
}

DType TypeOf(int dtype) {
  constexpr DType kTypes[] = {DType::kF32, DType::kBf16, DType::kF64};
  return kTypes[dtype];
}

PhiSizes SizesOfPhi(const NSAConfig& c, int64_t width) {
  return {static_cast<Phi>(c.phi), c.num_groups, c.block_length, width, c.phi_hidden > 0 ? c.phi_hidden : 2 * width};
}

int GpuOf(const NSAConfig& config) {  // -1: the CPU
  if (config.device != NSA_DEVICE_AUTO) return config.device;
  return GpuCount() > 0 ? 0 : -1;
}

std::unique_ptr<Device> FindDevice(const NSAConfig& config) {
  const int gpu = GpuOf(config);
  if (gpu >= 0 && gpu >= GpuCount()) {
    Refuse(NSA_ERROR_UNSUPPORTED,
           "device: expected NSA_DEVICE_CPU or one of the {} GPUs that this library sees, found {}", GpuCount(), gpu);
  }
  const DType without = gpu < 0 ? DType::kBf16 : DType::kF64;
  if (TypeOf(config.dtype) == without) {
    Refuse(NSA_ERROR_UNSUPPORTED, "dtype: a {} has no {}", gpu < 0 ? "CPU" : "GPU", DTypeName(without));
  }
  return gpu < 0 ? MakeCpuDevice() : MakeGpuDevice(gpu);
}

}  // namespace

Context::Context(const NSAConfig& given, bool plan_only)
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

Context::~Context() = default;

Context& Context::Of(const NSAContext* ctx) {
  Required(ctx, "ctx", "an NSAContext");
  if (ctx->impl == nullptr) Refuse(NSA_ERROR_NOT_INITIALIZED, "ctx: expected a context that nsa_init made");
  return *static_cast<Context*>(ctx->impl);
}

void Context::Start() {
  ops_ = MakeOps(device_->kind());
  stream_ = device_->MakeStream("nsa");
  joined_ = device_->MakeEvent();
  try {
    arena_.Commit(*device_);
  } catch (const Error& error) {
    throw StatusError(NSA_ERROR_OUT_OF_MEMORY, error.what());
  }
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

void Context::Upload(const Tensor& host, const Tensor& to) { HostCopy(*device_, *stream_, host, to); }

void Context::SetWeight(const std::string& name, const Tensor& value) {
  Weights::Weight& weight = weights_.Find(name);
  if (value.shape != weight.shape) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected the shape {}, found {}", name, weight.shape.ToString(),
           value.shape.ToString());
  }
  Upload(value, weight.memory);
  weight.value = weight.memory;
}

void Context::LoadWeights(const std::string& path, const std::string& prefix) {
  const SafetensorsFile file = SafetensorsFile::Open(path);
  std::vector<std::pair<std::string, Tensor>> found;
  std::string missing;
  for (const Weights::Weight& weight : weights_.all()) {
    const std::string name = prefix + weight.name;
    if (!file.Has(name)) {
      if (!weight.name.starts_with("gate.")) missing += (missing.empty() ? "" : ", ") + name;
      continue;
    }
    const Tensor value = file.Get(name);
    if (value.shape != weight.shape ||
        (value.dtype != DType::kF32 && value.dtype != DType::kF64 && value.dtype != DType::kBf16)) {
      Refuse(NSA_ERROR_FILE, "{}: {}: expected F32, F64 or BF16 {}, found {} {}", path, name, weight.shape.ToString(),
             DTypeName(value.dtype), value.shape.ToString());
    }
    found.emplace_back(weight.name, value);
  }
  if (!missing.empty()) Refuse(NSA_ERROR_MISSING_WEIGHT, "{}: expected phi's weights, missing {}", path, missing);
  for (const auto& [name, value] : found) SetWeight(name, value);
}

Tensor Context::View(const void* data, const char* name, DType type, const Shape& shape) const {
  Required(data, name, "device memory");
  if (device_->kind() == DeviceKind::kGpu && reinterpret_cast<uintptr_t>(data) % 16 != 0) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected an address that is a multiple of 16", name);
  }
  return Tensor(const_cast<void*>(data), type, device_->kind(), shape);
}

int64_t Context::max_pages() const { return CeilDiv(config.max_length, nsa.select_block); }

Pages Context::InOrder(int64_t rows) const {
  return {in_order_.Rows(0, CeilDiv(rows, nsa.select_block)), nsa.select_block};
}

void Context::RotateSummaries(const Tensor& k, const Tensor& positions, bool inverse) {
  if (!rotates() || k.size() == 0) return;
  ops_.dense->Rope(*stream_, {k, k, positions, frequency_, 1, inverse});
}

void Context::MakeGates(const Tensor& q, const Tensor& logits, const Tensor& gates) {
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

SingleQuery& Context::single() {
  if (!single_) {
    Refuse(
        NSA_ERROR_UNSUPPORTED,
        "the calls for one query take floats and values as wide as keys: expected dtype NSA_FLOAT32 and value_dim 0 or "
        "{}, found dtype {} and value_dim {}",
        key_width, config.dtype, config.value_dim);
  }
  return *single_;
}

void Context::Join(CUstream_st* theirs) {
  if (device_->kind() == DeviceKind::kCpu) return;
  RecordForeign(theirs, *joined_);
  stream_->Wait(*joined_);
}

void Context::Release(CUstream_st* theirs) {
  if (device_->kind() == DeviceKind::kCpu) {
    stream_->Synchronize();
    return;
  }
  stream_->Record(*joined_);
  WaitForeign(theirs, *joined_);
}

Tensor Cutter::Cut(DType dtype, const Shape& shape) {
  const Tensor tensor(memory_ == nullptr ? nullptr : memory_ + bytes_, dtype, device_, shape);
  bytes_ += RoundUp(tensor.bytes(), 256);
  return tensor;
}

}  // namespace longspan
