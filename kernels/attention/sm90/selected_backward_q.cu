// d_q of the selected branch in bf16 on Hopper. Adds to d_q, or overwrites it. A query's warp (selected_work.cuh) holds
// q, d_o and d_q in registers; P is made again from lse. Bound by the loads of the chosen blocks where neighbours
// choose differently (README.md).
#include "kernels/attention/gpu/backward.cuh"
#include "kernels/attention/sm90/kernels.cuh"
#include "kernels/attention/sm90/row_softmax.cuh"
#include "kernels/attention/sm90/selected_work.cuh"

namespace longspan {
namespace {

using SelectedBackwardParams = BackwardParams<SelectedSight>;

template <int KW, int VW>
class BackwardQuery {
 public:
  static constexpr int kKeyWidth = KW, kValueWidth = VW, kQueries = KW + VW <= 128 ? 12 : 8,
                       kRegisters = KW + VW <= 128 ? 152 : 224;
  static constexpr int kKeys = 16;

  __device__ __forceinline__ void Start(const SelectedBackwardParams& params, const int64_t (&row)[2]) {
    LoadRows(static_cast<const Bf16*>(params.q), row, KW, q_);
    LoadRows(static_cast<const Bf16*>(params.d_o), row, VW, d_o_);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      lse_log2_[i] = params.lse[row[i]] * CUDART_L2E_F;
      delta_[i] = params.delta[row[i]];
    }
    SetZero(d_q_);
  }

  template <bool Masked>
  __device__ __forceinline__ void Take(const SelectedBackwardParams& params, uint32_t k, uint32_t v, int end) {
    float s[kKeys / 8][4], d_p[kKeys / 8][4];
    SetZero(s);
    SetZero(d_p);
    StripOperand<KW, kKeys> keys;
    keys.template Begin<false>(k);
    keys.TimesRows(q_, s);
    StripOperand<VW, kKeys> values;
    values.template Begin<false>(v);
    values.TimesRows(d_o_, d_p);
    keys.template Begin<true>(k);
    const float scale_log2 = params.scale * CUDART_L2E_F;
#pragma unroll
    for (int i = 0; i < kKeys / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float p = Exp2(fmaf(s[i][j], scale_log2, -lse_log2_[j / 2]));
        const bool seen = !Masked || static_cast<int>(i * 8 + threadIdx.x % 4 * 2 + j % 2) < end;
        s[i][j] = seen ? p * (d_p[i][j] - delta_[j / 2]) : 0;
      }
    }
    uint32_t d_s[kKeys / 16][4];
    PackRows<kKeys>(s, d_s);
    keys.template AddTimesColumns<Masked>(d_s, end, d_q_);
  }

  __device__ __forceinline__ void Finish(const SelectedBackwardParams& params, const int64_t (&row)[2],
                                         const bool (&valid)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!valid[i]) continue;
      float* const d_q = params.d_q + row[i] * KW + threadIdx.x % 4 * 2;
#pragma unroll
      for (int j = 0; j < KW / 8; ++j) {
        float2& pair = *reinterpret_cast<float2*>(d_q + j * 8);
        float2 sum = params.overwrite_q ? float2{0, 0} : pair;
        sum.x += params.scale * d_q_[j][i * 2];
        sum.y += params.scale * d_q_[j][i * 2 + 1];
        pair = sum;
      }
    }
  }

 private:
  uint32_t q_[KW / 16][4], d_o_[VW / 16][4];
  float lse_log2_[2], delta_[2];
  float d_q_[KW / 8][4];
};

}  // namespace

bool SelectedBackwardQServedSm90(const SelectedBackwardParams& params) {
  const auto widths = [&](int k, int v) { return params.key_width == k && params.value_width == v; };
  return SelectedServed(params) && (widths(64, 64) || widths(128, 128) || widths(192, 128));
}

void SelectedBackwardQSm90(cudaStream_t stream, const char* operation, const SelectedBackwardParams& params) {
  if (params.key_width == 64) {
    LaunchSelected<BackwardQuery<64, 64>>(stream, operation, params);
  } else if (params.key_width == 128) {
    LaunchSelected<BackwardQuery<128, 128>>(stream, operation, params);
  } else {
    LaunchSelected<BackwardQuery<192, 128>>(stream, operation, params);
  }
}

}  // namespace longspan
