// What the ranks could do at best, and what a step asks of them: for the share of peak in the metrics.
#pragma once

#include "kernels/ops.h"

namespace longspan {

// FLOP/s of large matrix products of `dtype` on this rank's device, now: the best of some tries, ten milliseconds or
// so. Takes memory of the device meanwhile (GPU 100 MiB, CPU 3 MiB).
double MeasurePeak(Device& device, Ops& ops, Stream& stream, DType dtype);

// FLOPs of all spans of this process's trace since its last reset. Waits for them.
double TracedFlops();

}  // namespace longspan
