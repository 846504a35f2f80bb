// RankReport: what is known of a rank of a job that hangs: its flight recorder's ring, as of a moment, the state of its
// process and, where that could still be asked, the place and the native stacks of its threads. Ranks give each other
// theirs as files. All times are seconds ago, so that clocks of nodes need not agree.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "parallel/comm/recorder.h"
#include "runtime/place.h"
#include "runtime/tensor.h"

namespace longspan {

struct RankReport {
  struct Group {
    uint32_t id;
    int instance, size, rank;
    bool device;
    int64_t arrived;  // the last call of the group that this rank entered
  };
  struct Transfer {
    int64_t sequence, received, common;  // as FlightRing::Record
    int group;                           // of `groups`
    int layer;
    int peer;
    Pass pass;
    DType dtype;
    std::string operation, stage;
    double enqueued;                      // seconds ago
    std::optional<double> started, done;  // the same
  };
  // The last message between this rank of `group` and `peer` that this rank entered; 0: none that is known.
  int64_t Arrived(int group, int peer) const;
  // The first transfer that waits: entered and not done.
  const Transfer* waiting() const;

  int rank = 0;
  int size = 0;
  int pid = 0;
  std::string node;
  HostPhase phase = HostPhase::kLoad;
  double phase_seconds = 0;  // since it began
  int64_t step = 0;
  std::vector<Group> groups;
  std::vector<Transfer> transfers;  // oldest first
  // Of the process; `stopped` and `gone` are also what `state` says.
  std::string state;
  bool stopped = false, gone = false;
  double driver_silent = 0;  // seconds since its GPU's driver was asked, and has not answered
  std::string threads;       // their places and stacks, lines; "" where they could not be asked
};

// Of a ring that its rank may still write.
RankReport ReadRing(const FlightRing& ring);
// What /proc says of the process `pid` of this node: sets state, stopped and gone.
void AddState(RankReport* report);

// "send_receive of halo, layer 2 forward, call 117"
std::string Describe(const RankReport::Transfer& transfer);
// "; its GPU's driver has not answered for 5.1 s", or ""
std::string DescribeDriver(const RankReport& report);
// "in step 5", "saving"
std::string DescribePhase(const RankReport& report);

// What a file has of a report, and who wrote it.
std::string SavedText(const RankReport& report, int by);
struct SavedReport {
  RankReport report;
  int by = 0;
};
std::optional<SavedReport> LoadReport(const std::string& path);  // nothing where there is none yet

// All of it as text, the newest transfer first.
std::string ReportText(const RankReport& report);

}  // namespace longspan
