// In place of sm90/ in a build that is not for Hopper: a set that no device runs.
#include "kernels/attention/gpu/variants.h"

namespace longspan {

const AttentionKernels kSm90Attention = {.name = "sm90", .oldest = 90, .newest = 0};

}  // namespace longspan
