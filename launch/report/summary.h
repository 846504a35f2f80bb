// What the profiles of a run say, in numbers: the one source of every report. Over the training steps that all readable
// ranks have, of a long run a sample of them; seconds are those of a step, as a mean over steps, unless said otherwise.
// What ranks, stages and transfers took is of the steps that are seen: of one that ran as CUDA graphs the trace knows
// no more than how long these took.
//
// A rank's own time is its step without transfers: what it computes, waits for its data, or is kept from running. It is
// what a rank is compared by; the time for which it waits for others is theirs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/report/metrics.h"
#include "launch/report/planned.h"
#include "launch/report/profile_data.h"

namespace longspan {

// What exceeds the median rank's time by less (work: of that time; transfers: of a step), or whose end would save less
// of a step, is not named as slow.
inline constexpr double kLeastExcess = 0.15, kLeastSaving = 0.03;

inline double Ms(double seconds) { return 1e3 * seconds; }

// Over ranks.
struct Spread {
  double min = 0, median = 0, max = 0, mean = 0;  // of an even number the lower median
  int slowest = 0;                                // rank
  std::vector<double> by_rank;                    // in the order of the summary's ranks
  double imbalance() const { return mean > 0 ? max / mean - 1 : 0; }
};

// The own work of one stage and pass.
struct StageRow {
  std::string stage;
  proto::Pass pass = proto::NONE;
  int layer = -1;  // -1: all
  Spread seconds;
  double flops = 0, bytes = 0;  // of a step, mean of ranks
};

struct TransferRow {
  std::string stage, name;
  proto::Pass pass = proto::NONE;
  bool beside = false;  // the compute stream: it may be hidden behind kernels
  // Of a step, means of ranks. Bytes are those received: over `moving` they are the bus bandwidth of NCCL's tests.
  double calls = 0, bytes = 0, waiting = 0, moving = 0;
  double far = 0;      // of the bytes, those from other nodes; 0 where that is not known (NCCL)
  double exposed = 0;  // of both: what no kernel hid
};

// The most bytes that ranks held for a use, "all of these" at a time on the device, or, as the system says after each
// step, "in use on the GPU" since the job began or "in use by the process".
struct MemoryOfUse {
  std::string use;
  bool host = false;  // page-locked memory of the host; else of the device
  double min = 0, max = 0;
};

// Of messages on host memory from a rank to the next: bytes a second, newest and best of all.
struct LinkRow {
  int from = 0, to = 0;
  double newest = 0, best = 0;
};

// Of a rank's GPU, its readings from the first step to the last (runtime/gpu_monitor.h). What it does not have is 0.
struct GpuRow {
  int rank = 0;
  int64_t readings = 0;
  double sm_clock = 0, lowest = 0, most_sm_clock = 0;  // MHz: mean, least, what the GPU can
  double memory_clock = 0;                             // MHz, mean
  double power = 0, power_limit = 0;                   // watts, mean and newest
  double temperature = 0;                              // degrees Celsius, the most
  double held = 0;                                     // of the readings: clocks were held down
  std::string held_by;                                 // by what, most often; "" where they were not
  uint64_t corrected = 0, uncorrected = 0;             // memory errors that came since the first reading
};

// Where the steps of a rank went. Parts add up to `step`.
struct RankRow {
  int rank = 0;
  std::string host;
  double step = 0;
  double work = 0;     // kernels
  double waiting = 0;  // for the last rank to begin a transfer
  double moving = 0;   // data, as far as it is not hidden
  double data = 0;     // waiting for the loader
  double other = 0;    // the rest: the host between kernels, or kept from running
  double hidden = 0;   // transfers behind kernels: not part of the step
  double own() const { return work + data + other; }
  double awaited = 0;  // by others: what steps would save if this rank never came last
  double cpu = 0;      // seconds for which work ran on a processor, of a CPU's
};

enum class SlowClass { kCompute, kThrottled, kHost, kData, kLink };

struct Straggler {
  int rank = 0;
  SlowClass what = SlowClass::kCompute;
  int64_t first_step = 0, last_step = 0;  // slow from .. to
  bool since_start = false, to_end = false;
  double excess = 0;  // seconds over the median rank's own time, of a step in that time
  double ratio = 1;   // of their own times
  double saving = 0;  // seconds of a step in that time, if it were like the median
  double saving_share = 0;
  std::string stage;  // that has most of the excess; empty: it is spread
  proto::Pass pass = proto::NONE;
  int layer = -1;
  double stage_share = 0;                   // of the excess
  std::vector<int64_t> single;              // one-off: the steps, at most a few
  std::string link;                         // of a slow link: whose, "of n2" or "between n2 and n3"
  std::string held_by;                      // of a GPU that was throttled: by what
  double sm_clock = 0, usual_sm_clock = 0;  // and its MHz, beside the median rank's
};

// Seconds of rank 0, over all starts of the program.
struct Ledger {
  double total = 0, startup = 0, training = 0, data = 0, checkpoint = 0, evaluation = 0, lost = 0, stopped = 0,
         other = 0;
  int64_t lost_steps = 0;
  int restarts = 0;
};

struct Finding {
  double seconds = 0;  // of a step
  std::string what;    // a sentence
  std::string advice;  // what to try
};

struct Summary {
  proto::Header header;  // of the lowest rank
  std::string folder;
  int expected = 0;
  bool ended = false;
  std::vector<std::string> problems;
  double clock_error = 0;
  int64_t first_step = 0, last_step = 0, steps = 0;
  double step = 0, step_median = 0;  // seconds, mean over ranks; of the slowest rank's
  int64_t seen = 0;                  // of the steps; 0 where all ran as graphs, and all that is known is of these
  std::vector<RankRow> ranks;
  RankRow mean;  // of ranks
  std::vector<StageRow> stages, layers;
  std::vector<TransferRow> transfers;
  std::vector<LinkRow> links;
  std::vector<GpuRow> gpus;  // of ranks whose GPU was read
  std::vector<MemoryOfUse> memory;
  std::vector<PlanRow> plan;  // empty: there is none
  // Of the metrics: means over steps, bytes of a forward pass of one sequence; and the newest recorded selection.
  double coverage = 0, borrowed = 0;
  int64_t selection_step = 0;  // 0: none
  std::vector<SelectionMetric> selection;
  double dense_flops = 0;             // of all ranks, as if every query attended to all before it; 0: not known
  std::vector<Straggler> stragglers;  // most saving first
  Ledger ledger;
  std::vector<Finding> costs;  // largest first
  double exposed() const { return mean.waiting + mean.moving; }
};

Summary Summarize(const ProfileData& data);

// The training steps of the summary that were kept, rank by rank: [ranks][steps].
using StepTable = std::vector<std::vector<const ProfilePeriod*>>;
StepTable CommonSteps(const ProfileData& data);
StepTable SeenSteps(const StepTable& steps);  // of them; all where none is seen
RankRow RowOf(const ProfilePeriod& step);     // of one
double LowerMedian(std::vector<double> values);

// The readings between two times of the common clock; `readings` is 0 where there are none.
GpuRow GpuBetween(const RankProfile& rank, double begin, double end);
// Says so of a rank whose work takes long in these steps while its GPU's clocks are held down below those of others.
void FindThrottling(const ProfileData& data, const StepTable& steps, size_t rank, size_t begin, size_t end,
                    Straggler* found);

std::vector<Straggler> FindStragglers(const ProfileData& data, const StepTable& steps);
// Nodes whose messages to neighbours take long beside those of others, as far as that costs steps; and GPUs all of
// whose transfers move slowly. Links within a node are its memory: what makes them slow is its processors.
std::vector<Straggler> FindSlowLinks(const ProfileData& data, const StepTable& steps);
Ledger LedgerOf(const ProfileData& data);
std::vector<Finding> LargestCosts(const Summary& summary);

const char* ClassName(SlowClass what);
std::string StageName(const std::string& stage, proto::Pass pass, int layer = -1);  // "window forward, layer 3"
std::string WhereOf(const Straggler& straggler);  // its stage or link; "" where it is spread

}  // namespace longspan
