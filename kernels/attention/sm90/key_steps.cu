// How the work of passes that own keys is planned, and the sum of its parts (key_steps.cuh).
#include "kernels/attention/sm90/key_steps.cuh"

namespace longspan {
namespace {

constexpr int64_t kMinSteps = 64;    // of a part
constexpr int64_t kManyTiles = 128;  // about as many as the GPU has multiprocessors

// Unless one part had all of a tile's steps.
template <int KW, int VW>
__global__ void __launch_bounds__(256)
    SumPartsKernel(const __grid_constant__ BackwardRange params, const __grid_constant__ KeysWork work) {
  constexpr int kWidth = KW + VW;
  __shared__ SpanGpu steps[kMaxSegments];
  __shared__ bool written[kMaxParts];
  const int segments = params.queries.count;
  const KeysItem item(params, work, blockIdx.x, blockIdx.y, 0);
  if (threadIdx.x < segments) steps[threadIdx.x] = StepsOf(params, threadIdx.x, item.tile);
  __syncthreads();
  for (int part = threadIdx.x; part < work.parts; part += blockDim.x) {
    const KeysItem here(params, work, item.tile, item.group, part);
    written[part] = Walk(steps, segments, here.part, work.period).count > 0;
  }
  __syncthreads();
  int parts = 0;
  for (int part = 0; part < work.parts; ++part) parts += written[part];
  if (parts <= 1) return;

  const RowFinder finder(params.table, params.page_rows, item.keys.begin, kTileKeys);
  for (int i = blockIdx.z * blockDim.x + threadIdx.x; i < kTileKeys * kWidth / 4; i += gridDim.z * blockDim.x) {
    const int row = i / (kWidth / 4), channel = i % (kWidth / 4) * 4;
    const bool of_key = channel < KW;
    float* const d_x = of_key ? params.d_k : params.d_v;
    if (item.keys.begin + row >= item.keys.end || d_x == nullptr) continue;
    const int64_t place = finder.at(row);
    if (place < 0) continue;
    float4 sum = {};
    for (int part = 0; part < work.parts; ++part) {
      if (!written[part]) continue;
      const int64_t partial = work.Partial(params.groups, item.tile, item.group, part);
      const float4 here = reinterpret_cast<const float4*>(work.partial)[partial * kTileKeys * kWidth / 4 + i];
      sum = {sum.x + here.x, sum.y + here.y, sum.z + here.z, sum.w + here.w};
    }
    const float factor = of_key ? params.scale : 1;
    auto* const to = reinterpret_cast<float4*>(d_x + (place * params.groups + item.group) * (of_key ? KW : VW) +
                                               (of_key ? channel : channel - KW));
    const float4 old = *to;
    *to = {old.x + factor * sum.x, old.y + factor * sum.y, old.z + factor * sum.z, old.w + factor * sum.w};
  }
}

}  // namespace

BackwardRange CutInSteps(const BackwardRange& params) {
  BackwardRange cut = params;
  cut.queries = Recut(params.queries, kWalkRows / params.group_heads());
  return cut;
}

// The parts from the first on that may see a key tile's first row, whatever the documents, to the call's last.
int PartsAfter(const BackwardRange& cut, const KeysWork& work, int tile) {
  const QueryTilesGpu& queries = cut.queries;
  const RangeSight& sight = cut.sight;
  const int64_t compressed = int64_t{tile} * kTileKeys - sight.lead;
  const int64_t position = compressed <= 0 ? 0 : compressed * sight.stride + sight.block - 1;
  int64_t first = queries.tiles();
  for (int i = 0; i < queries.count; ++i) {
    const int64_t offset = std::max<int64_t>(0, position - queries.begin[i]);
    if (offset < queries.length[i]) first = std::min(first, queries.first_tile[i] + offset / queries.tile);
  }
  return work.parts - static_cast<int>(first / work.steps);
}

// Few tiles of keys that many queries see are cut in parts. Where few queries see a tile most parts would be empty, and
// asking is not free: then they are cut only where they do not fill the GPU.
KeysWork PlanKeys(const BackwardRange& cut) {
  KeysWork work;
  work.tiles = static_cast<int>(CeilDiv(cut.key_rows, kTileKeys));
  const int64_t steps = cut.queries.tiles(), most = kMaxParts / (int64_t{work.tiles} * cut.groups);
  const int64_t of_tile =
      std::min(steps, CeilDiv(int64_t{cut.sight.window} + int64_t{kTileKeys} * cut.sight.stride - 1, cut.queries.tile));
  const bool fills = int64_t{work.tiles} * cut.groups >= kManyTiles;
  const bool cuts = std::min(of_tile / kMinSteps, most) > 1 && !(fills && cut.sight.window < kShortWindow);
  work.steps = static_cast<int>(CeilDiv(steps, cuts ? std::min(steps / kMinSteps, most) : 1));
  work.parts = static_cast<int>(CeilDiv(steps, work.steps));
  work.period = static_cast<int>(cut.sight.window < kShortWindow ? of_tile : steps);
  for (int tile = 0; work.parts > 1 && 2 * tile < work.tiles; ++tile) {
    const int other = work.tiles - 1 - tile;
    work.slots = std::max(work.slots, PartsAfter(cut, work, tile) + (other > tile ? PartsAfter(cut, work, other) : 0));
  }
  return work;
}

int64_t PartialBytes(const BackwardRange& cut, const KeysWork& work) {
  if (work.parts == 1) return 0;
  return CeilDiv(int64_t{work.tiles}, 2) * cut.groups * work.slots * kTileKeys * (cut.key_width + cut.value_width) *
         static_cast<int64_t>(sizeof(float));
}

KeysMaps MapKeys(const char* operation, const BackwardRange& cut) {
  const auto map = [&](const void* x, int width, int64_t row, int rows) {
    return RowsMap(operation, static_cast<const Bf16*>(x) + row * cut.heads * width, rows, cut.heads, width,
                   cut.queries.tile, cut.group_heads());
  };
  KeysMaps maps;
  ForSegments(cut.queries, [&](int i, int64_t row, int rows) {
    maps.q[i] = map(cut.q, cut.key_width, row, rows);
    maps.d_o[i] = map(cut.d_o, cut.value_width, row, rows);
  });
  maps.k = RowMapsOf(operation, cut.k, cut.key_width, cut);
  maps.v = RowMapsOf(operation, cut.v, cut.value_width, cut);
  return maps;
}

void SumParts(cudaStream_t stream, const BackwardRange& cut, const KeysWork& work) {
  const dim3 grid(work.tiles, cut.groups, 8);
  if (cut.key_width == 64) {
    SumPartsKernel<64, 64><<<grid, 256, 0, stream>>>(cut, work);
  } else {
    SumPartsKernel<128, 128><<<grid, 256, 0, stream>>>(cut, work);
  }
}

}  // namespace longspan
