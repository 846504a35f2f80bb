// The variants of tile_math_cpu.cc that a build has, for tile_math_choice_cpu.cc.
#pragma once

#include "kernels/base/tile_math_cpu.h"

namespace longspan {

struct TileMathTables {
  const TileMath<float>* f32;
  const TileMath<double>* f64;
};

const TileMathTables& TileMathBase();    // for what the whole program is built for
const TileMathTables& TileMathAvx512();  // x86-64 only

}  // namespace longspan
