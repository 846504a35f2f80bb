// What each subcommand is told. command_line fills these; main calls the command (launch/train/trainer.h, and here
// verify.h, attention.h, data.h), which returns the exit code or throws Error.
//
// When a command with a configuration runs, MPI is initialised (launch/job/world.h) and the configuration fits the
// ranks.
#pragma once

#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "runtime/tensor.h"

namespace longspan {

struct TrainOptions {
  RunConfig config;
};

struct VerifyOptions {
  RunConfig config;
};

struct AttentionOptions {
  std::string input;   // --case: safetensors file with the operator's tensors
  std::string output;  // --out: safetensors file to write
  DeviceKind device = DeviceKind::kCpu;
  bool share_gpu = false;  // several ranks may use one GPU
  LayoutKind layout = LayoutKind::kHeadTail;
  SelectedExchange selected_exchange = SelectedExchange::kGather;
};

}  // namespace longspan
