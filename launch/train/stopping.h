// Stopping: when a run ends before its last step, as all ranks agree: by a signal, by train.max_minutes, by a file
// named `stop` in the run's folder.
#pragma once

#include <algorithm>
#include <string>

#include "launch/config/run_config.h"
#include "launch/job/job.h"

namespace longspan {

class Stopping {
 public:
  // The minutes count from `start` (WallSeconds); signals are watched (WatchStopSignals). All outlive it; `folder` is
  // the run's. `first` of the program: a file from before asks nothing.
  Stopping(Job& job, const RunConfig& config, const std::string& folder, double start, bool first);

  // What this rank would have: a number, of which the largest of all ranks decides, once it is told to Agree. 0 is to
  // go on.
  double wish();
  void Agree(double largest) { agreed_ = std::max(agreed_, static_cast<int>(largest)); }
  // Both. Collective; true when the run is to stop.
  bool Poll();

  bool agreed() const { return agreed_ != 0; }
  // By SIGTERM or SIGINT: the processes may have a second left.
  bool hurried() const;
  std::string reason() const;  // "SIGUSR1"

 private:
  Job& job_;
  const RunConfig& config_;
  const std::string file_;
  const double start_;
  double looked_ = 0;  // for the file
  bool found_ = false;
  int agreed_ = 0;
};

}  // namespace longspan
