// The profiles of a run's ranks, read and put on one clock: what every report is made from.
//
// A transfer is known by its group and sequence number, on all ranks that take part. None can end before the last of
// them has begun: until then a rank waits, from then on data moves.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "launch/report/profile.pb.h"
#include "runtime/gpu_monitor.h"

namespace longspan {

struct ProfileCell {
  std::string stage;
  proto::Pass pass = proto::NONE;
  proto::Kind kind = proto::WORK;
  int layer = -1;  // -1: of none, or of all
  int64_t count = 0;
  double seconds = 0, cpu = 0, flops = 0, bytes = 0;
};

struct ProfileSpan {
  std::string name, stage;
  proto::Pass pass = proto::NONE;
  proto::Kind kind = proto::WORK;
  int layer = -1;
  double begin = 0, seconds = 0;  // on the common clock: since rank 0 began
};

struct ProfileTransfer {
  ProfileSpan span;
  uint32_t group = 0;
  int64_t sequence = 0;
  double bytes = 0;  // received
  double far = 0;    // of them from other nodes; 0 where that is not known (NCCL)
  double wait = 0;   // of span.seconds: for the last rank
  double late = 0;   // by which all began later than without this rank, the last of them; else 0
};

struct ProfilePeriod {
  proto::Period::What what = proto::Period::STEP;
  int64_t step = 0;
  double begin = 0, seconds = 0, cpu = 0;
  std::vector<ProfileCell> cells;
  std::vector<ProfileTransfer> transfers;
  std::vector<ProfileSpan> spans;  // of steps in full detail
  double memory = 0;               // bytes
  // From 0, among those of its kind that ran alike, as graphs or not; 0 for the first steps in full detail, too.
  int64_t number = 0;
};

// What all periods of a session add up to: seconds, and the most bytes in use after one.
struct ProfileTotals {
  int64_t steps = 0, seen = 0, last_step = 0;
  double seconds = 0, steps_seconds = 0, data = 0, checkpoint = 0, evaluation = 0;
  double memory = 0;
};

// A start of the program, from a run's first to its last resumption, or of a stage of the run (data.stages).
struct ProfileSession {
  uint64_t id = 0;
  bool next_stage = false;    // the program has trained the one before
  double begin = 0, end = 0;  // unix seconds; the end of what is recorded
  double startup = 0;         // seconds before it
  int64_t first_step = 0, last_step = 0;
  std::vector<double> step_seconds;  // from first_step on
};

// A message to another rank on host memory.
struct ProfileLink {
  double begin = 0;  // on the common clock
  int peer = 0;
  double seconds = 0, bytes = 0;
};

// Of a GPU, readings that followed each other: one, or of a long run several.
struct ProfileGpu {
  explicit ProfileGpu(const GpuReading& reading);
  void Add(const ProfileGpu& later);

  GpuReading first, last;  // `at` on the common clock
  int64_t readings = 1;
  double sm_clock, memory_clock, power;  // means
  double lowest;                         // of sm_clock
  double temperature;                    // the most
  int64_t held_readings;                 // in which clocks were held down,
  uint64_t held;                         // by what most of the time
};

// The readings of a run however long, in a few megabytes: of a long one, stretches of as many readings each.
class ProfileGpus {
 public:
  static constexpr size_t kMost = 4096;
  void Add(const GpuReading& reading);

  std::vector<ProfileGpu> list;  // in order of time

 private:
  int64_t each_ = 1;
};

struct RankProfile {
  static constexpr size_t kMostPeriods = 2048, kMostTimelines = 8;
  // To the newest session.
  void Add(ProfilePeriod period);

  int rank = 0;
  proto::Header header;
  bool ended = false;  // in good order
  // Of the newest session; of a long one, one of as many, and the first that have spans.
  std::vector<ProfilePeriod> periods;
  ProfileTotals totals;                  // of all of them
  std::vector<ProfileCell> layers;       // sums over its training steps
  std::vector<ProfileLink> links;        // to the next rank, as measured now and then
  std::vector<proto::Memory> peaks;      // of memory by use
  ProfileGpus gpu;                       // its readings
  std::vector<std::string> problems;     // that the rank had with its profile
  std::vector<ProfileSession> sessions;  // oldest first
  double clock_error = 0;                // seconds, the largest

 private:
  int64_t each_ = 1;  // of how many periods one is kept
  size_t timelines_ = 0;
  std::map<std::pair<proto::Period::What, bool>, int64_t> numbers_;  // the next
};

struct ProfileData {
  std::string folder;                 // of the run
  int expected = 0;                   // ranks
  std::vector<RankProfile> ranks;     // those with a readable profile of the newest session
  std::vector<std::string> problems;  // what is missing or broken, a sentence each
  double clock_error = 0;             // seconds, at most, between any rank and rank 0
};

// Throws Error (io) where there is no profile at all.
ProfileData ReadProfiles(const std::string& run_folder);

// Not run as CUDA graphs, of which the trace has no more than their time.
bool IsSeen(const ProfilePeriod& step);

// Of a span that is one; null where it is not known.
const ProfileTransfer* TransferOf(const ProfilePeriod& period, const ProfileSpan& span);

const char* PassName(proto::Pass pass);  // "forward", "backward", ""

}  // namespace longspan
