// Selection with the scores of select_scores.cuh, compiled for few widths.
#include "kernels/attention/sm80/kernels.cuh"
#include "kernels/attention/sm80/select_scores.cuh"

namespace longspan {
namespace {

constexpr int kMaxWidth = 192;
constexpr int64_t kMaxDynamicShared = 128 << 10;

// Calls f.operator()<Chunks>() with the fewest chunks that hold K, up to kMaxWidth.
template <typename F>
void DispatchChunks(int key_width, const F& f) {
  if (key_width <= 64) {
    f.template operator()<2>();
  } else if (key_width <= 128) {
    f.template operator()<4>();
  } else {
    f.template operator()<6>();
  }
}

}  // namespace

bool SelectServedSm80(const SelectParams& params) {
  const bool whole = params.key_width % 8 == 0 && reinterpret_cast<uintptr_t>(params.q) % 16 == 0 &&
                     reinterpret_cast<uintptr_t>(params.k) % 16 == 0;
  if (params.dtype != DType::kBf16 || !whole || params.key_width > kMaxWidth) return false;
  bool fits = false;
  DispatchChunks(params.key_width, [&]<int Chunks>() {
    fits = TensorScores<Chunks>::SharedBytes(params.group_heads()) <= kMaxDynamicShared;
  });
  return fits;
}

void SelectSm80(cudaStream_t stream, const char* operation, const SelectParams& params) {
  DispatchChunks(params.key_width,
                 [&]<int Chunks>() { LaunchSelect<TensorScores<Chunks>>(stream, operation, params); });
}

}  // namespace longspan
