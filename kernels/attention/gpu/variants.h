// Which kernels serve a call: an architecture's are reached only through here.
//
// A set is what one folder has: plain (gpu/, any type and width, for checking) or an architecture's (sm80/, sm90/),
// each kind of kernel with the calls that it serves. Which sets a device runs is found out once; a call takes the first
// of them, newest architecture first, that serves it, so that a new set may hold as few kinds and sizes as it pleases.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "runtime/gpu.h"

namespace longspan {

struct RangeSight;
struct SelectedSight;
struct SelectParams;
template <typename Sight>
struct BranchParams;
template <typename Sight>
struct BackwardParams;

// Both functions are null in a set that has no such kernel.
template <typename Params>
struct Kernel {
  // By type, sizes and alignment, before anything is enqueued; pointers may be null.
  bool (*serves)(const Params& params);
  void (*launch)(cudaStream_t stream, const char* operation, const Params& params);
};

// With scratch, of which the call's delta is no part.
template <typename Params>
struct ScratchKernel {
  bool (*serves)(const Params& params);
  int64_t (*scratch_bytes)(const Params& params);
  void (*launch)(cudaStream_t stream, const char* operation, const Params& params, unsigned char* scratch);
  // Whether it can overwrite d_q; null: never.
  bool (*overwrites)(const Params& params) = nullptr;
};

struct AttentionKernels {
  const char* name;
  int oldest, newest;  // compute capabilities of the devices that run them, 10 * major + minor
  Kernel<BranchParams<RangeSight>> range_forward = {};
  Kernel<BranchParams<SelectedSight>> selected_forward = {};
  // d_q, d_k and d_v, those that are not null; adds, or overwrites d_q.
  ScratchKernel<BackwardParams<RangeSight>> range_backward = {};
  // In two passes, which may be of two sets: d_q; d_k and d_v.
  ScratchKernel<BackwardParams<SelectedSight>> selected_backward_q = {};
  ScratchKernel<BackwardParams<SelectedSight>> selected_backward_keys = {};
  Kernel<SelectParams> select = {};
};

extern const AttentionKernels kPlainAttention;  // gpu/plain.cu
extern const AttentionKernels kSm80Attention;   // sm80/kernels.cu
extern const AttentionKernels kSm90Attention;   // sm90/kernels.cu, no_sm90.cc

// What the calling thread's current device runs, newest first, ended by null.
const AttentionKernels* const* RunnableKernels();

// The set whose kernel of this kind serves the call on the current device, null when none does.
template <typename K, typename Params>
const AttentionKernels* Serving(K AttentionKernels::*kind, const Params& params) {
  for (const AttentionKernels* const* set = RunnableKernels(); *set != nullptr; ++set) {
    const K& kernel = (*set)->*kind;
    if (kernel.serves != nullptr && kernel.serves(params)) return *set;
  }
  return nullptr;
}

// Its kernel. Throws Error naming `operation` when there is none.
template <typename K, typename Params>
const K& KernelFor(Stream& stream, const char* operation, K AttentionKernels::*kind, const Params& params) {
  CudaStream(stream);  // its device becomes the current one
  const AttentionKernels* const set = Serving(kind, params);
  LS_CHECK(set != nullptr, "{}: expected a type and widths that a kernel on this GPU serves, found {}", operation,
           params.Sizes());
  return set->*kind;
}

}  // namespace longspan
