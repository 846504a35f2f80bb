// Hopper's own instructions as inline PTX (sm_90a): products by whole warpgroups, copies by the copy engine, barriers
// in shared memory that both report to, registers that move between warpgroups.
//
// A tile in shared memory is cut in chunks of 64 channels of bf16, each [rows][128 bytes] with the 16-byte pieces of a
// row swizzled (Swizzled below; the copy engine's 128-byte swizzle is the same), and begins at a multiple of 1024
// bytes.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/base/ptx_sm80.cuh"

namespace longspan {

// ---- Products: wgmma m64nNk16, bf16 operands, fp32 sums -------------------------------------------------------------
//
// Warp w of the warpgroup has rows 16w..16w+15 of A and of the sums, which it holds like mma.sync's: with g = lane / 4
// and c = 2 * (lane % 4), d[4i..4i+1] are (g, 8i + c..c+1) and d[4i+2..4i+3] are (g+8, 8i + c..c+1). So the sums of 16
// columns, rounded to pairs of bf16, are A of a following product. The order: WgmmaFence, products, WgmmaCommit,
// WgmmaWait, Pin. Until then nothing may touch the sums, nor A where it is registers.

__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most Left of the committed groups are under way.
template <int Left>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}

// Keeps the compiler from moving uses of the registers across this place.
template <int N>
__device__ __forceinline__ void Pin(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N, int M>
__device__ __forceinline__ void Pin(uint32_t (&a)[N][M]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int j = 0; j < M; ++j) asm volatile("" : "+r"(a[i][j])::"memory");
  }
}

// Keeps a WgmmaWait that follows behind what x is computed from: the assembler moves one before work that needs no
// products, which then is done beside none. Where x is NaN this takes a few cycles.
__device__ __forceinline__ void WaitAfter(float x) {
  asm volatile("{ .reg .pred p; setp.nan.f32 p, %0, %0;\n@p nanosleep.u32 0; }" ::"f"(x) : "memory");
}

constexpr uint32_t kChunkRowBytes = 128;

// Byte offset of 16-byte piece `piece` (0..7) of row `row` of a chunk.
__device__ __forceinline__ uint32_t Swizzled(int row, int piece) {
  return row * kChunkRowBytes + ((piece ^ (row & 7)) << 4);
}

// An operand of which 16 consecutive values of the summed index lie in one row: Q and K in Q K^T. The next 16 are 32
// bytes on, the next 64 a chunk on. Eight rows and the next are `group_bytes` apart: 1024 in a chunk as above.
__device__ __forceinline__ uint64_t AlongRows(uint32_t shared_address, uint32_t group_bytes = 1024) {
  return 1ull << 62 | uint64_t{group_bytes >> 4} << 32 | 1ull << 16 | (shared_address & 0x3FFFF) >> 4;
}
// An operand whose summed index is the row: V in P V. The next 16 are two groups on; `chunk_bytes` between chunks.
__device__ __forceinline__ uint64_t AcrossRows(uint32_t shared_address, uint32_t chunk_bytes,
                                               uint32_t group_bytes = 1024) {
  return 1ull << 62 | uint64_t{group_bytes >> 4} << 32 | uint64_t{chunk_bytes >> 4} << 16 |
         (shared_address & 0x3FFFF) >> 4;
}

#define LONGSPAN_8(d, i)                                                                                      \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define LONGSPAN_32(d, i) LONGSPAN_8(d, i), LONGSPAN_8(d, i + 8), LONGSPAN_8(d, i + 16), LONGSPAN_8(d, i + 24)
#define LONGSPAN_SUMS_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define LONGSPAN_SUMS_16 LONGSPAN_SUMS_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define LONGSPAN_SUMS_32                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LONGSPAN_SUMS_64                                                             \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d = A B + (add ? d : 0), both AlongRows.
__device__ __forceinline__ void Wgmma(float (&d)[64], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LONGSPAN_SUMS_64 "}, %64, %65, p, 1, 1, 0, 0; }"
      : LONGSPAN_32(d, 0), LONGSPAN_32(d, 32)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ __forceinline__ void Wgmma(float (&d)[32], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LONGSPAN_SUMS_32 "}, %32, %33, p, 1, 1, 0, 0; }"
      : LONGSPAN_32(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ __forceinline__ void Wgmma(float (&d)[16], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" LONGSPAN_SUMS_16 "}, %16, %17, p, 1, 1, 0, 0; }"
      : LONGSPAN_8(d, 0), LONGSPAN_8(d, 8)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ __forceinline__ void Wgmma(float (&d)[8], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %10, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {" LONGSPAN_SUMS_8 "}, %8, %9, p, 1, 1, 0, 0; }"
      : LONGSPAN_8(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ __forceinline__ void Wgmma(float (&d)[4], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %6, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 0; }"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
// Both AcrossRows: of A the rows that d has lie in a row.
__device__ __forceinline__ void WgmmaAcross(float (&d)[32], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LONGSPAN_SUMS_32 "}, %32, %33, p, 1, 1, 1, 1; }"
      : LONGSPAN_32(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
// A AlongRows, B AcrossRows.
__device__ __forceinline__ void WgmmaAlongAcross(float (&d)[64], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LONGSPAN_SUMS_64 "}, %64, %65, p, 1, 1, 0, 1; }"
      : LONGSPAN_32(d, 0), LONGSPAN_32(d, 32)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
// A in registers, B AcrossRows.
__device__ __forceinline__ void Wgmma(float (&d)[64], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LONGSPAN_SUMS_64
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1; }"
      : LONGSPAN_32(d, 0), LONGSPAN_32(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}
__device__ __forceinline__ void Wgmma(float (&d)[32], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LONGSPAN_SUMS_32
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1; }"
      : LONGSPAN_32(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}

#undef LONGSPAN_8
#undef LONGSPAN_32
#undef LONGSPAN_SUMS_8
#undef LONGSPAN_SUMS_16
#undef LONGSPAN_SUMS_32
#undef LONGSPAN_SUMS_64

// ---- Barriers in shared memory --------------------------------------------------------------------------------------
//
// A phase ends when `arrivals` threads have arrived and every byte that they announced is there.

__device__ __forceinline__ void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals));
}
// After the last InitBarrier, by the thread that made them; then __syncthreads.
__device__ __forceinline__ void PublishBarriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void Arrive(uint32_t barrier_address, int arrivals = 1) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0], %1;" ::"r"(barrier_address), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void Arrive(uint64_t* barrier) { Arrive(SharedAddress(barrier)); }
__device__ __forceinline__ void ArriveAndExpect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(bytes)
               : "memory");
}
// Until the phase of this parity has ended; the one before the first counts as ended, of parity 1.
__device__ __forceinline__ void WaitBarrier(uint32_t barrier_address, uint32_t parity) {
  asm volatile(
      "{ .reg .pred p;\n"
      "W%=: mbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n"
      "@p bra D%=;\n bra W%=;\n D%=: }" ::"r"(barrier_address),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void WaitBarrier(uint64_t* barrier, uint32_t parity) {
  WaitBarrier(SharedAddress(barrier), parity);
}

// N buffers in turn, with the parity of the phase in which the present one is filled.
template <int N>
struct Ring {
  int at = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next() {
    if (++at == N) at = 0, parity ^= 1;
  }
};

// Barrier `id` (1..15) of `threads` threads, of which those that Arrive do not wait.
__device__ __forceinline__ void SyncNamed(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void ArriveNamed(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- Copies ---------------------------------------------------------------------------------------------------------

// What this thread's ordinary accesses did to shared memory becomes visible to products and the copy engine: before the
// barrier that hands it over.
__device__ __forceinline__ void FenceForAsync() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The box of the map at (x, y, z) to shared memory; its bytes count at the barrier. Places outside of the tensor give
// 0.
__device__ __forceinline__ void CopyBox(uint32_t shared_address, const CUtensorMap* map, int x, int y, int z,
                                        uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
          "r"(shared_address),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(SharedAddress(barrier))
      : "memory");
}

// Of a map of four dimensions.
__device__ __forceinline__ void CopyBox(uint32_t shared_address, const CUtensorMap* map, int x, int y, int z, int w,
                                        uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
      "[%6];" ::"r"(shared_address),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(SharedAddress(barrier))
      : "memory");
}

// By which the second-level cache lets go first what an access touches.
__device__ __forceinline__ uint64_t PassCachePolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ void CopyBox(uint32_t shared_address, const CUtensorMap* map, int x, int y, int z,
                                        uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3, "
      "%4}], [%5], %6;" ::"r"(shared_address),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}
// The same of a map of five dimensions.
__device__ __forceinline__ void CopyBox(uint32_t shared_address, const CUtensorMap* map, int x, int y, int z, int u,
                                        int w, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5, %6}], "
      "[%7];" ::"r"(shared_address),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(u), "r"(w), "r"(SharedAddress(barrier))
      : "memory");
}

// Bytes, a multiple of 16 as both addresses are.
__device__ __forceinline__ void CopyBytes(uint32_t shared_address, const void* from, int bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address),
      "l"(from), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}

// The box from shared memory; places outside of the tensor are left out. A thread's stores since its last commit are a
// group.
__device__ __forceinline__ void StoreBox(const CUtensorMap* map, uint32_t shared_address, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(map), "r"(x),
               "r"(y), "r"(z), "r"(shared_address)
               : "memory");
}
// The box is added to what is there, each number at once and in no order with others'.
__device__ __forceinline__ void AddBox(const CUtensorMap* map, uint32_t shared_address, int x, int y, int z) {
  asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(map),
               "r"(x), "r"(y), "r"(z), "r"(shared_address)
               : "memory");
}
__device__ __forceinline__ void CommitStores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until at most Left of this thread's groups still read shared memory; or are under way.
template <int Left>
__device__ __forceinline__ void WaitForStoresRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Left) : "memory");
}
template <int Left>
__device__ __forceinline__ void WaitForStores() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(Left) : "memory");
}

// Four 8x8 matrices of bf16 to shared memory: lane 8*i + r gives the address of row r of matrix i; a lane has elements
// (lane/4, 2*(lane%4)..+1) of each.
__device__ __forceinline__ void StoreMatrices(uint32_t shared_address, const uint32_t (&from)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address), "r"(from[0]),
               "r"(from[1]), "r"(from[2]), "r"(from[3])
               : "memory");
}

__device__ __forceinline__ void StoreShared(uint32_t shared_address, float first, float second) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(shared_address), "f"(first), "f"(second) : "memory");
}
__device__ __forceinline__ uint4 LoadShared(uint32_t shared_address) {
  uint4 x;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(shared_address)
               : "memory");
  return x;
}

__device__ __forceinline__ uint2 LoadShared2(uint32_t shared_address) {
  uint2 x;
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(x.x), "=r"(x.y) : "r"(shared_address) : "memory");
  return x;
}
__device__ __forceinline__ void StoreShared(uint32_t shared_address, uint32_t x, uint32_t y) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(shared_address), "r"(x), "r"(y) : "memory");
}

// Adds to two floats of memory, at a multiple of 8 bytes, and does not wait for what was there.
__device__ __forceinline__ void AddToMemory(float* to, float first, float second) {
  asm volatile("red.relaxed.gpu.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(first), "f"(second) : "memory");
}

// The same under a policy.
__device__ __forceinline__ void AddToMemory(float* to, float first, float second, uint64_t policy) {
  asm volatile("red.relaxed.gpu.global.add.L2::cache_hint.v2.f32 [%0], {%1, %2}, %3;" ::"l"(to), "f"(first),
               "f"(second), "l"(policy)
               : "memory");
}

// ---- Turns: counts in memory by which blocks that run beside each other keep an order -------------------------------

__device__ __forceinline__ unsigned LoadAcquire(const unsigned* from) {
  unsigned x;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
  return x;
}
// Who finds it sees what this thread did before.
__device__ __forceinline__ void StoreRelease(unsigned* to, unsigned x) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}
__device__ __forceinline__ void AddRelease(unsigned* to, unsigned x) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}
// What the copy engine did to memory, once waited for, comes before what this thread does next.
__device__ __forceinline__ void FenceForAsyncGlobal() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

// ---- Registers ------------------------------------------------------------------------------------------------------

// By whole warpgroups: this one gives registers back, or takes them, until it has Count a thread.
template <int Count>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

}  // namespace longspan
