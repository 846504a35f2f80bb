// The parameters of an attention case: strings of a safetensors file's metadata (launch/commands/attention_case.h has
// the keys).
#pragma once

#include <map>
#include <string>

#include "launch/commands/attention_case.h"

namespace longspan {

// Sets nsa, rope_theta and scale of the case (scale 0: not given). Throws Error (data) naming `path`, the key, the
// value and the rule; an unknown key names the nearest right one.
void ReadAttentionMetadata(const std::string& path, const std::map<std::string, std::string>& metadata,
                           AttentionCase* out);

const char* PhiName(Phi phi);

}  // namespace longspan
