// Where the outputs of the three branches lie in memory of the caller's.
#pragma once

#include "model/attention/branches.h"
#include "nsa/attention_context.h"

namespace longspan {

// Of `tokens` queries of the context's heads.
BranchOutputs CutOutputs(const AttentionContext& context, int64_t tokens, Cutter& cutter);

}  // namespace longspan
