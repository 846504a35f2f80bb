// Watchdog: a thread of each rank that looks, ten times a second, whether transfers go on (parallel/comm/recorder.h),
// and ends a job that hangs with a message that names the culprit (launch/job/verdict.h).
//
// A rank that waits in one transfer for longer than its limit raises an alarm, and so does one whose GPU's driver does
// not answer for that long while nothing goes on (the driver is asked by another thread, launch/job/device_poll.h).
// Every rank that hears of it, in the shared memory of its node or in the run's folder, writes down what is known of it
// (launch/job/rank_report.h); for one that does not, because its process is stopped, another rank of its node does.
// Nothing is sent by what hangs. The lowest rank that wrote its own says the verdict and ends the job, with exit
// code 76. When the process of a rank of the same node ends before its time, the others say so at once, with exit
// code 70.
//
// Files: /dev/shm/longspan-watch-ID/rankNNNNN is a rank's ring, which outlives a killed process and is removed by one
// that ends, or by the next job of this user. In the run's folder (SetFolder) stall-ID/verdict.txt is the message and
// stall-ID/rankNNNNN.txt all that was known of a rank.
#pragma once

#include <memory>
#include <string>

#include "launch/config/run_config.h"

namespace longspan {

class Watchdog {
 public:
  // Collective over all ranks, with MPI running. Where there is one rank, nothing is watched. A rank whose ring cannot
  // be made says so, and is not watched.
  explicit Watchdog(const CommConfig& limits);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // That ranks of all nodes see. Until then those of one node know nothing of other nodes.
  void SetFolder(const std::string& folder);

 private:
  class Guard;
  std::unique_ptr<Guard> guard_;
};

}  // namespace longspan
