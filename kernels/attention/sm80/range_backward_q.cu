// d_q of the window and the compressed branch in bf16: each query sees one range of key rows. Adds to d_q.
//
// Cut as the forward (range_forward); q, d_o and d_q of a warp's rows stay in registers.
#include "kernels/attention/sm80/kernels.cuh"
#include "kernels/attention/sm80/key_stage.cuh"

namespace longspan {
namespace {

// Rows of the buffer, less those of the compressed branch that hold two documents: nobody sees them, so they may hold
// anything.
class SeenRowFinder {
 public:
  __device__ SeenRowFinder(const BranchParams<RangeSight>& params, int first, int count)
      : rows_(params.table, params.page_rows, first, count), sight_(params.sight), first_(first) {}
  __device__ int64_t at(int i) const {
    if (sight_.block > 1 && sight_.doc_start != nullptr) {
      const int token = (first_ + i - sight_.lead) * sight_.stride;
      if (token < 0 || sight_.doc_start[token + sight_.block - 1] > token) return -1;
    }
    return rows_.at(i);
  }

 private:
  RowFinder rows_;
  const RangeSight& sight_;
  int first_;
};

template <int KW, int VW>
__global__ void __launch_bounds__(kRangeThreads, 1)
    RangeBackwardQKernel(const __grid_constant__ BackwardParams<RangeSight> params) {
  extern __shared__ __align__(128) unsigned char shared[];
  const RangePart part(params);
  WarpBackwardQ<KW, VW> backward;
  backward.Start(params, part.row);

  const float scale_log2 = params.scale * CUDART_L2E_F;
  const auto find = [&](int first_key) { return SeenRowFinder(params, first_key, kRangeKeys); };
  const auto take = [&](uint32_t stage, bool, const int(&begin)[2], const int(&end)[2]) {
    backward.template Take<kRangeKeys>(stage, stage + KeyStage<kRangeKeys, KW, VW>::kValuesAt, scale_log2, begin, end);
  };
  WalkRange<KW, VW>(params, part, SharedAddress(shared), find, take);

  for (int i = 0; i < 2; ++i) {
    if (!part.valid[i]) continue;
    float* const out = params.d_q + part.row[i] * params.key_width;
#pragma unroll
    for (int j = 0; j < KW / 8; ++j) {
      const int channel = j * 8 + threadIdx.x % 4 * 2;
      if (channel >= params.key_width) continue;
      float2* const to = reinterpret_cast<float2*>(out + channel);
      const float2 old = *to;
      *to =
          make_float2(old.x + params.scale * backward.d_q[j][2 * i], old.y + params.scale * backward.d_q[j][2 * i + 1]);
    }
  }
}

}  // namespace

void RangeBackwardQSm80(cudaStream_t stream, const char* operation, const BackwardParams<RangeSight>& params) {
  DispatchBackwardWidths(params.key_width, params.value_width, [&]<int KW, int VW>() {
    LaunchRange(stream, operation, RangeBackwardQKernel<KW, VW>, kRangeBytes<KW, VW>, params);
  });
}

}  // namespace longspan
