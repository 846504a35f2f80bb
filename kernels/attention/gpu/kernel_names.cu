// Which kernels serve calls of given sizes.
#include "kernels/attention/gpu/attention.h"
#include "kernels/attention/gpu/backward.cuh"
#include "kernels/attention/gpu/contest.cuh"
#include "kernels/attention/gpu/variants.h"

namespace longspan {
namespace {

template <typename Params>
Params SizedParams(const AttentionSizes& sizes) {
  Params params = {};
  params.dtype = sizes.dtype;
  params.heads = static_cast<int>(sizes.heads);
  params.groups = static_cast<int>(sizes.groups);
  params.key_width = static_cast<int>(sizes.key_width);
  if constexpr (requires { params.value_width; }) params.value_width = static_cast<int>(sizes.value_width);
  return params;
}

struct Served {
  const char* kind;
  const AttentionKernels* set;
};

}  // namespace

std::string GpuAttention::Kernels(Stream& stream, const AttentionSizes& sizes) const {
  CudaStream(stream);  // its device becomes the current one
  const Served all[] = {
      {"range_forward", Serving(&AttentionKernels::range_forward, SizedParams<BranchParams<RangeSight>>(sizes))},
      {"selected_forward",
       Serving(&AttentionKernels::selected_forward, SizedParams<BranchParams<SelectedSight>>(sizes))},
      {"range_backward", Serving(&AttentionKernels::range_backward, SizedParams<BackwardParams<RangeSight>>(sizes))},
      {"selected_backward_q",
       Serving(&AttentionKernels::selected_backward_q, SizedParams<BackwardParams<SelectedSight>>(sizes))},
      {"selected_backward_keys",
       Serving(&AttentionKernels::selected_backward_keys, SizedParams<BackwardParams<SelectedSight>>(sizes))},
      {"select", Serving(&AttentionKernels::select, SizedParams<SelectParams>(sizes))},
  };
  // The first kind's set serves all but those that are named.
  std::string text = all[0].set == nullptr ? "none" : all[0].set->name;
  for (const Served& served : all) {
    if (served.set == all[0].set) continue;
    text += fmt::format(", {} for {}", served.set == nullptr ? "none" : served.set->name, served.kind);
  }
  return text;
}

}  // namespace longspan
