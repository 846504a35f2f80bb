// Forward of the selected branch in bf16 on Hopper: each query sees the blocks of key rows it chose. Overwrites o and
// lse. A query's warp (selected_work.cuh) holds q and o in registers. Bound by the loads of the chosen blocks where
// neighbours choose differently (README.md).
#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/row_softmax.cuh"
#include "kernels/attention/sm90/selected_work.cuh"

namespace longspan {
namespace {

template <int KW, int VW>
class ForwardQuery {
 public:
  static constexpr int kKeyWidth = KW, kValueWidth = VW, kQueries = 12, kRegisters = 152;
  static constexpr int kKeys = 32;

  __device__ __forceinline__ void Start(const SelectedParams& params, const int64_t (&row)[2]) {
    scale_log2_ = ScaleLog2(params.scale);
    LoadRows(static_cast<const Bf16*>(params.q), row, KW, q_);
    SetZero(o_);
  }

  template <bool Masked>
  __device__ __forceinline__ void Take(const SelectedParams&, uint32_t k, uint32_t v, int end) {
    float s[kKeys / 8][4];
    SetZero(s);
    StripOperand<KW, kKeys> keys;
    keys.template Begin<false>(k);
    keys.TimesRows(q_, s);
    StripOperand<VW, kKeys> values;
    values.template Begin<true>(v);
    float(&scores)[kKeys / 2] = reinterpret_cast<float(&)[kKeys / 2]>(s);
    const int last = end - threadIdx.x % 4 * 2;
    if (Masked) MaskFrom(scores, last, last);
    float shrink[2];
    softmax_.Take(scores, scale_log2_, shrink);
    if (__any_sync(~0u, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
      for (int i = 0; i < VW / 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) o_[i][j] *= shrink[j / 2];
      }
    }
    uint32_t p[kKeys / 16][4];
    PackRows<kKeys>(s, p);
    values.template AddTimesColumns<Masked>(p, end, o_);
  }

  __device__ __forceinline__ void Finish(const SelectedParams& params, const int64_t (&row)[2],
                                         const bool (&valid)[2]) {
    softmax_.Finish();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!valid[i]) continue;
      const float factor = softmax_.Factor(i);
      Bf16* const out = static_cast<Bf16*>(params.o) + row[i] * VW + threadIdx.x % 4 * 2;
#pragma unroll
      for (int j = 0; j < VW / 8; ++j) {
        *reinterpret_cast<uint32_t*>(out + j * 8) = PackBf16(o_[j][i * 2] * factor, o_[j][i * 2 + 1] * factor);
      }
      if (threadIdx.x % 4 == 0) params.lse[row[i]] = softmax_.LogSumExp(i);
    }
  }

 private:
  float scale_log2_;
  uint32_t q_[KW / 16][4];
  float o_[VW / 8][4];
  RowSoftmax softmax_;
};

}  // namespace

bool SelectedForwardServedSm90(const SelectedParams& params) {
  const auto widths = [&](int k, int v) { return params.key_width == k && params.value_width == v; };
  return SelectedServed(params) && (widths(64, 64) || widths(128, 128) || widths(192, 128));
}

void SelectedForwardSm90(cudaStream_t stream, const char* operation, const SelectedParams& params) {
  if (params.key_width == 64) {
    LaunchSelected<ForwardQuery<64, 64>>(stream, operation, params);
  } else if (params.key_width == 128) {
    LaunchSelected<ForwardQuery<128, 128>>(stream, operation, params);
  } else {
    LaunchSelected<ForwardQuery<192, 128>>(stream, operation, params);
  }
}

}  // namespace longspan
