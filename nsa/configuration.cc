#include "nsa/configuration.h"

#include <cmath>
#include <limits>

#include "model/config.h"
#include "nsa/status.h"

namespace longspan {
namespace {

void CheckSizes(const NSAConfig& c) {
  RequireAtLeast("block_length", c.block_length, 1);
  RequireAtLeast("block_stride", c.block_stride, 1);
  RequireAtLeast("selection_block_size", c.selection_block_size, 1);
  RequireAtLeast("num_selected_blocks", c.num_selected_blocks, 1);
  RequireAtLeast("window_size", c.window_size, 1);
  RequireAtLeast("head_dim", c.head_dim, 1);
  RequireAtLeast("num_heads", c.num_heads, 1);
  RequireAtLeast("value_dim", c.value_dim, 0);
  RequireAtLeast("num_groups", c.num_groups, 1);
  RequireAtLeast("num_initial_blocks", c.num_initial_blocks, 0);
  RequireAtLeast("num_local_blocks", c.num_local_blocks, 0);
  RequireWithin("phi_hidden", c.phi_hidden, 0, kWidestRow);
  RequireAtLeast("max_length", c.max_length, 1);
  RequireAtLeast("max_batch", c.max_batch, 1);
  RequireWithin("phi", c.phi, NSA_PHI_MLP, NSA_PHI_MEAN);
  RequireWithin("shared_kv", c.shared_kv, 0, 1);
  CheckPlace(c);
  RequireWithin("max_length", c.max_length, 1, std::numeric_limits<int32_t>::max() - c.selection_block_size);
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
  const auto require_product = [](const char* names, int64_t first, int64_t second) {
    if (first * second <= kWidestRow) return;
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected a product of at most {}, found {} and {}", names, kWidestRow,
           first, second);
  };
  require_product("num_heads, head_dim", c.num_heads, c.head_dim);
  require_product("num_heads, value_dim", c.num_heads, c.value_dim);
  require_product("num_groups, num_selected_blocks", c.num_groups, c.num_selected_blocks);
  require_product("block_length, head_dim", c.block_length, c.head_dim);
  require_product("block_length, value_dim", c.block_length, c.value_dim);
  if (!std::isfinite(c.scaling_factor) || c.scaling_factor <= 0) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "scaling_factor: expected a number above 0, found {}", c.scaling_factor);
  }
  RequireInRange("rope_theta", c.rope_theta, 0, std::numeric_limits<double>::infinity());
  require(c.rope_theta == 0 || c.head_dim % 2 == 0, "head_dim, num_heads: expected an even head_dim for rope_theta",
          c.head_dim, c.num_heads);
}

int GpuOf(const NSAConfig& config) {  // -1: the CPU
  if (config.device != NSA_DEVICE_AUTO) return config.device;
  return GpuCount() > 0 ? 0 : -1;
}

}  // namespace

int64_t ValueWidth(const NSAConfig& config) { return config.value_dim == 0 ? config.head_dim : config.value_dim; }

void CheckPlace(const NSAConfig& config) {
  RequireWithin("dtype", config.dtype, NSA_FLOAT32, NSA_FLOAT64);
  RequireWithin("device", config.device, NSA_DEVICE_AUTO, std::numeric_limits<int32_t>::max());
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

Tensor FloatsOf(const SafetensorsFile& file, const std::string& name, const Shape& shape) {
  const Tensor value = file.Get(name);
  const bool floating = value.dtype == DType::kF32 || value.dtype == DType::kF64 || value.dtype == DType::kBf16;
  if (value.shape != shape || !floating) {
    Refuse(NSA_ERROR_FILE, "{}: {}: expected F32, F64 or BF16 {}, found {} {}", file.path(), name, shape.ToString(),
           DTypeName(value.dtype), value.shape.ToString());
  }
  return value;
}

}  // namespace longspan
