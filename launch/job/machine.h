// Where the ranks compute, and in which type: what runtime.device and runtime.dtype come to on this machine.
#pragma once

#include "launch/config/run_config.h"
#include "runtime/tensor.h"

namespace longspan {

struct Machine {
  DeviceKind device;
  DType dtype;
};

// AUTO takes GPUs where this program finds one, and their BF16. Throws Error (configuration) when BF16 is asked for and
// there is no GPU.
Machine ChooseMachine(const RuntimeConfig& config);

}  // namespace longspan
