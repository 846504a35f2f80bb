// Forward of the window and the compressed branch in bf16: each query sees one range of key rows. Overwrites o and lse.
//
// A tile of 64 keys is brought to shared memory once for the 128 rows of a block, the next one under way while this one
// is used (key_stage.cuh). Bound by shared memory's reads for the tensor cores.
#include "kernels/attention/sm80/kernels.cuh"
#include "kernels/attention/sm80/key_stage.cuh"

namespace longspan {
namespace {

template <int KW, int VW>
__global__ void __launch_bounds__(kRangeThreads, 1)
    RangeForwardKernel(const __grid_constant__ BranchParams<RangeSight> params) {
  extern __shared__ __align__(128) unsigned char shared[];
  const RangePart part(params);
  WarpAttention<KW, VW> attention;
  attention.Start(params.q, part.row, params.key_width);

  const float scale_log2 = params.scale * CUDART_L2E_F;
  const auto find = [&](int first_key) { return RowFinder(params.table, params.page_rows, first_key, kRangeKeys); };
  const auto take = [&](uint32_t stage, bool masked, const int(&begin)[2], const int(&end)[2]) {
    attention.template Take<kRangeKeys>(stage, stage + KeyStage<kRangeKeys, KW, VW>::kValuesAt, scale_log2, masked,
                                        begin, end);
  };
  WalkRange<KW, VW>(params, part, SharedAddress(shared), find, take);
  attention.Finish();

  const int lane = threadIdx.x % 32;
  for (int i = 0; i < 2; ++i) {
    if (!part.valid[i]) continue;
    const float sum = attention.sum[i], factor = sum == 0 ? 0 : 1 / sum;
    Bf16* const out = static_cast<Bf16*>(params.o) + part.row[i] * params.value_width;
#pragma unroll
    for (int j = 0; j < VW / 8; ++j) {
      const int channel = j * 8 + lane % 4 * 2;
      if (channel >= params.value_width) continue;
      *reinterpret_cast<uint32_t*>(out + channel) =
          PackBf16(attention.o[j][2 * i] * factor, attention.o[j][2 * i + 1] * factor);
    }
    if (lane % 4 == 0) params.lse[part.row[i]] = LogSumExp(attention.max[i], sum);
  }
}

}  // namespace

void RangeForwardSm80(cudaStream_t stream, const char* operation, const BranchParams<RangeSight>& params) {
  DispatchWidths(params.key_width, params.value_width, [&]<int KW, int VW>() {
    LaunchRange(stream, operation, RangeForwardKernel<KW, VW>, kRangeBytes<KW, VW>, params);
  });
}

}  // namespace longspan
