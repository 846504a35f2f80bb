// One warp's tensor-core step and the copies that feed it, and the fast exponential, as inline PTX (sm_80 and later).
//
// mma.sync m16n8k16, bf16 operands, fp32 sums. With g = lane / 4 and c = 2 * (lane % 4) a lane holds
//   A [16,16]  a[0] (g, c..c+1)  a[1] (g+8, c..c+1)  a[2] (g, c+8..c+9)  a[3] (g+8, c+8..c+9)
//   B [16,8]   b[0] (c..c+1, g)  b[1] (c+8..c+9, g)                       rows are the summed index
//   C [16,8]   c[0..1] (g, c..c+1)  c[2..3] (g+8, c..c+1)
// so C, rounded to pairs of bf16, is A of a following product.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace longspan {

__device__ __forceinline__ void Mma(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two bf16 in one register, the first in the low half.
__device__ __forceinline__ uint32_t PackBf16(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Four 8x8 matrices of bf16: lane 8*i + r gives the address of row r of matrix i; each lane gets elements
// (lane/4, 2*(lane%4)..+1) of each, or with Transposed elements (2*(lane%4)..+1, lane/4).
template <bool Transposed>
__device__ __forceinline__ void LoadMatrices(uint32_t (&to)[4], uint32_t shared_address) {
  if constexpr (Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address)
                 : "memory");
  }
}

// 16 bytes to shared memory behind the program's back, zeros when not `valid` (then `from` is not read).
__device__ __forceinline__ void CopyAsync16(uint32_t shared_address, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address), "l"(from), "r"(bytes)
               : "memory");
}

// The same of 4 bytes.
__device__ __forceinline__ void CopyAsync4(uint32_t shared_address, const void* from, bool valid) {
  const int bytes = valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address), "l"(from), "r"(bytes)
               : "memory");
}

// Closes the group of copies issued so far by this thread.
__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Waits until at most Left of this thread's groups are under way.
template <int Left>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Left) : "memory");
}

// 2^x, one instruction.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace longspan
