#include <cstdlib>
#include <string_view>
#include <type_traits>

#include "kernels/base/tile_math_variants_cpu.h"
#include "runtime/error.h"

namespace longspan {
namespace {

bool HasAvx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

template <typename T>
const TileMath<T>* Of(const TileMathTables& tables) {
  if constexpr (std::is_same_v<T, float>) {
    return tables.f32;
  } else {
    return tables.f64;
  }
}

// 0 = as wide as there are.
int64_t BitsAskedFor() {
  const char* const bits = std::getenv("LONGSPAN_VECTOR_BITS");
  if (bits == nullptr) return 0;
  const std::string_view text = bits;
  if (text != "256" && text != "512") {
    Fail(ExitCode::kConfig, "LONGSPAN_VECTOR_BITS: expected 256 or 512, found '{}'", text);
  }
  return text == "256" ? 256 : 0;
}

}  // namespace

template <typename T>
std::vector<const TileMath<T>*> AllTileMath() {
  std::vector<const TileMath<T>*> all = {Of<T>(TileMathBase())};
#if defined(__x86_64__)
  if (HasAvx512()) all.push_back(Of<T>(TileMathAvx512()));
#endif
  return all;
}

template <typename T>
const TileMath<T>& TileMathOf() {
  static const TileMath<T>* const choice = BitsAskedFor() == 256 ? AllTileMath<T>().front() : AllTileMath<T>().back();
  return *choice;
}

template std::vector<const TileMath<float>*> AllTileMath();
template std::vector<const TileMath<double>*> AllTileMath();
template const TileMath<float>& TileMathOf();
template const TileMath<double>& TileMathOf();

}  // namespace longspan
