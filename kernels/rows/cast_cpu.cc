// Copies that cast among F32, F64 and BF16, to the nearest, ties to even; other types only to themselves. And zeros.
#include <cstring>

#include "kernels/base/arguments.h"
#include "kernels/base/blocks_cpu.h"
#include "kernels/rows/cpu.h"
#include "runtime/bf16.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

template <typename To, typename From>
void Cast(const Tensor& from, const Tensor& to) {
  const auto* const source = static_cast<const From*>(from.data);
  auto* const target = static_cast<To*>(to.data);
  ForBlocks(to.size(), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) target[i] = static_cast<To>(source[i]);
  });
}

bool IsFloating(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBf16; }

// f.operator()<type>().
template <typename F>
void DispatchFloating(DType dtype, const F& f) {
  if (dtype == DType::kBf16) {
    f.template operator()<HostBf16>();
  } else {
    DispatchFloat(dtype, f);
  }
}

}  // namespace

void CpuRows::Copy(Stream& stream, const Tensor& from, const Tensor& to) {
  constexpr const char* kName = "rows.copy";
  RequireContiguous(kName, "from", from);
  RequireTensor(kName, "to", to, to.dtype, from.shape);
  LS_CHECK(from.dtype == to.dtype || (IsFloating(from.dtype) && IsFloating(to.dtype)),
           "{}: expected equal types or two of F32, F64 and BF16, found {} to {}", kName, DTypeName(from.dtype),
           DTypeName(to.dtype));
  Launch(stream, kName, Cost{0, static_cast<double>(from.bytes() + to.bytes())}, [from, to] {
    if (from.dtype == to.dtype) {
      if (to.size() > 0) std::memcpy(to.data, from.data, to.bytes());
      return;
    }
    DispatchFloating(to.dtype, [&]<typename To>() {
      DispatchFloating(from.dtype, [&]<typename From>() { Cast<To, From>(from, to); });
    });
  });
}

void CpuRows::Zero(Stream& stream, const Tensor& x) {
  constexpr const char* kName = "rows.zero";
  RequireContiguous(kName, "x", x);
  Launch(stream, kName, Cost{0, 1.0 * x.bytes()}, [x] {
    if (x.size() > 0) std::memset(x.data, 0, x.bytes());
  });
}

}  // namespace longspan
