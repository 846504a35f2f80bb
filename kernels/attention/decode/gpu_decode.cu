// What decoding's kernels serve, the memory that they want, and a step's attention.
#include <algorithm>

#include "kernels/attention/cost.h"
#include "kernels/attention/decode/gpu_decode.h"
#include "kernels/attention/decode/select.cuh"

namespace longspan {
namespace {

constexpr int64_t kMaxHidden = 8192;  // of the MLP, as shared memory allows without asking

// Of a thread block on the current device.
int64_t MaxShared() {
  int device = 0, bytes = 0;
  CudaCheck(cudaGetDevice(&device), "decode");
  CudaCheck(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "decode");
  return bytes;
}

// How a branch's keys are cut, and what there is room for, in sequences of up to `max_tokens` tokens.
AttendParams Cut(const DecodeSizes& sizes, int64_t max_tokens) {
  const NsaConfig& nsa = sizes.nsa;
  AttendParams p = {};
  const auto narrow = [](int64_t x) { return static_cast<int>(x); };
  p.heads = narrow(sizes.heads);
  p.groups = narrow(sizes.groups);
  p.key_width = narrow(sizes.key_width);
  p.value_width = narrow(sizes.value_width);
  p.block = narrow(nsa.block);
  p.stride = narrow(nsa.stride);
  p.lead = narrow(nsa.lead());
  p.cells = narrow(nsa.block / nsa.stride);
  p.block_cells = narrow(nsa.select_block / nsa.stride);
  p.select_block = narrow(nsa.select_block);
  p.select = narrow(nsa.select);
  p.init = narrow(nsa.init);
  p.local = narrow(nsa.local);
  p.window = narrow(std::min<int64_t>(nsa.window, INT32_MAX / 2));
  p.split_rows = kSplitKeys / p.block_cells * p.block_cells;
  p.split_blocks = kSplitKeys / p.select_block;
  p.compressed_splits = narrow(CeilDiv(max_tokens / nsa.stride + 1, p.split_rows));
  p.window_splits = narrow(CeilDiv(std::min(nsa.window, max_tokens), kSplitKeys));
  p.selected_splits = narrow(CeilDiv(nsa.select, p.split_blocks));
  p.sum_blocks = narrow(CeilDiv(max_tokens, nsa.select_block) + 1);
  return p;
}

struct AttendScratchCut {
  ScratchCut cut;
  int64_t o, stats, block_sums, first_sums;
  AttendScratchCut(const AttendParams& p, int64_t queries) {
    const int64_t splits = queries * p.heads * p.splits(), groups = queries * p.groups * p.head_room();
    o = cut.Add(splits * p.value_width * int64_t{sizeof(float)});
    stats = cut.Add(splits * int64_t{sizeof(float2)});
    block_sums = cut.Add(groups * p.sum_blocks * int64_t{sizeof(float)});
    first_sums = cut.Add(groups * p.compressed_splits * int64_t{sizeof(float)});
  }
};

}  // namespace

bool GpuDecode::Serves(const DecodeSizes& sizes) const {
  const int64_t key_width = sizes.key_width, value_width = sizes.value_width;
  const bool floats = sizes.dtype == DType::kF32 || sizes.dtype == DType::kBf16;
  const bool widths = key_width % 8 == 0 && value_width % 8 == 0 && key_width <= kMaxSplitKeyWidth &&
                      value_width <= kMaxSplitValueWidth;
  if (!floats || !widths || sizes.nsa.select_block > kSplitKeys || sizes.nsa.phi_hidden > kMaxHidden) return false;
  return std::max(SplitBytes(sizes.dtype, key_width, value_width), SummarizeBytes(sizes)) <= MaxShared();
}

int64_t GpuDecode::AttendScratch(const DecodeSizes& sizes, int64_t queries, int64_t max_tokens) const {
  return AttendScratchCut(Cut(sizes, max_tokens), queries).cut.bytes;
}

void GpuDecode::Attend(Stream& stream, const DecodeAttendArgs& args) {
  const DecodeSizes& sizes = args.sizes;
  AttendParams p = Cut(sizes, args.step.max_tokens);
  p.step = ViewOf(args.step);
  p.q = args.q.data;
  p.gates = args.gates.data;
  p.out = args.o.data;
  p.selected = GpuData<int32_t>(args.selected);
  p.scale_log2 = static_cast<float>(args.scale * 1.4426950408889634);
  const DecodeRows* const rows[] = {&args.summaries, &args.selected_rows, &args.window_rows};
  for (const int branch : {0, 1, 2}) {
    p.k[branch] = rows[branch]->k.data;
    p.v[branch] = rows[branch]->v.data;
    p.ring_pages[branch] = static_cast<int>(rows[branch]->ring_pages);
  }
  const int64_t queries = args.step.queries.dim(0), pass = std::min(queries, args.pass_queries);
  const AttendScratchCut cut(p, pass);
  LS_CHECK(cut.cut.bytes <= args.scratch.bytes(), "decode.attend: scratch: expected {} bytes or more, found {}",
           cut.cut.bytes, args.scratch.bytes());
  const int64_t shared = std::max(SelectBytes(p), CombineBytes(p));
  LS_CHECK(shared <= MaxShared(), "decode.attend: expected sequences of fewer than {} tokens on a GPU",
           args.step.max_tokens);
  auto* const scratch = GpuData<char>(args.scratch);
  p.o = reinterpret_cast<float*>(scratch + cut.o);
  p.stats = reinterpret_cast<float2*>(scratch + cut.stats);
  p.block_sums = reinterpret_cast<float*>(scratch + cut.block_sums);
  p.first_sums = reinterpret_cast<float*>(scratch + cut.first_sums);
  LaunchGpu(stream, "decode.attend", DecodeAttendCost(args), [&](cudaStream_t cuda) {
    for (int64_t first = 0; first < queries; first += pass) {
      const int count = static_cast<int>(std::min(pass, queries - first));
      p.first_query = static_cast<int>(first);
      LaunchAttend(cuda, sizes.dtype, p, count);
      LaunchCombine(cuda, sizes.dtype, p, count);
    }
  });
}

std::unique_ptr<DecodeOps> MakeGpuDecode() { return std::make_unique<GpuDecode>(); }

}  // namespace longspan
