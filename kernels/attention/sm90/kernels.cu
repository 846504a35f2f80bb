// The set of sm90/ for kernels/attention/gpu/variants.h.
#include "kernels/attention/gpu/variants.h"
#include "kernels/attention/sm90/kernels.cuh"

namespace longspan {

const AttentionKernels kSm90Attention = {
    .name = "sm90",
    .oldest = 90,
    .newest = 90,
    .range_forward = {RangeForwardServedSm90, RangeForwardSm90},
    .select = {SelectServedSm90, SelectSm90},
};

}  // namespace longspan
