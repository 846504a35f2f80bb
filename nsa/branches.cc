#include "nsa/branches.h"

namespace longspan {

BranchOutputs CutOutputs(const AttentionContext& context, int64_t tokens, Cutter& cutter) {
  BranchOutputs out;
  for (int branch : {kCmp, kSlc, kWin}) {
    out.o[branch] = cutter.Cut(context.dtype, {tokens, context.heads, context.value_width});
    out.lse[branch] = cutter.Cut(context.gradient_dtype, {tokens, context.heads});
  }
  out.selected = cutter.Cut(DType::kI32, {tokens, context.groups, context.nsa.select});
  return out;
}

}  // namespace longspan
