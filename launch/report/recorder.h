// Recorder: writes this rank's profile while the run goes on.
//
// A run is cut into periods: training steps, evaluations, saves. Of each period the recorder takes the spans of the
// trace and has them written (launch/report/profile_writer.h). The file gets them every few seconds: what a killed run
// has done until then is in its profile.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm/comm.h"
#include "runtime/trace.h"

namespace longspan {

enum class ProfileLevel { kOff, kSteps, kFull };
enum class RunPeriod { kStep, kEvaluation, kCheckpoint };

// What the recorder does not know itself.
struct RunFacts {
  std::string version;  // of the program
  int dp = 0, cp = 0;   // this rank's indices in the mesh
  int dp_size = 1, cp_size = 1;
  int64_t first_step = 1;                 // of this start of the program, or of the stage of the run that begins
  bool next_stage = false;                // the program has trained the stage before it
  double startup_seconds = 0;             // since that start
  double step_flops = 0, peak_flops = 0;  // of all ranks; peak: a second
};

// All that was recorded of a period.
struct PeriodRecord {
  RunPeriod what = RunPeriod::kStep;
  int64_t step = 0;
  bool full = false;  // every span is written
  double begin = 0, seconds = 0, cpu = 0;
  int64_t memory_bytes = 0;
  std::vector<TraceSpan> spans;
};

class GpuMonitor;
class ProfileWriter;

class Recorder {
 public:
  struct Args {
    Communicator& world;  // all ranks, on host memory
    Device& device;
    Stream& compute;       // quiet while the recorder is made and compares clocks
    std::string gpu = {};  // address of the GPU whose clocks are recorded (runtime/gpu_monitor.h); "": of none
    std::string folder;    // of the run
    ProfileLevel level = ProfileLevel::kSteps;
    int64_t first_full = 1, full_steps = 0;  // steps in full detail, counted from the start of the program
    bool append = false;                     // to what the run has of its earlier part
    RunFacts facts;
  };
  // Collective. A profile that cannot be written is a warning: the run goes on without this rank's.
  explicit Recorder(Args args);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // Whether that step is recorded in full detail.
  bool InFull(int64_t step) const;
  // One period after another. One that did not end is forgotten.
  void Begin(RunPeriod what, int64_t step);
  void UnderWay();  // all of a step's work has been enqueued, and a GPU is busy with it
  void End(int64_t memory_bytes = 0);
  // A period until it goes.
  class Stretch {
   public:
    Stretch(Recorder& recorder, RunPeriod what, int64_t step) : recorder_(recorder) { recorder.Begin(what, step); }
    ~Stretch() { recorder_.End(); }
    Stretch(const Stretch&) = delete;
    Stretch& operator=(const Stretch&) = delete;

   private:
    Recorder& recorder_;
  };

  // Above 0 on rank 0 when the clocks are to be compared again, which is collective, between periods.
  double wish() const;
  void CompareAgain();
  void Finish();  // all that has been recorded is in the file

  static std::string PathOf(const std::string& folder, int rank);  // of a rank's file

 private:
  void CompareClocksNow();
  void Forget();
  void Gather(int64_t resolved);
  void TakeReadings();
  void AddMemory();
  void Write();

  const Args args_;
  const bool gpu_;
  std::unique_ptr<Communicator> clocks_;
  std::unique_ptr<ProfileWriter> writer_;  // null: nothing is recorded
  std::unique_ptr<GpuMonitor> monitor_;
  double written_ = 0, compared_ = 0, step_seconds_ = 0, period_cpu_ = 0;
  int64_t period_ = 0;
  bool in_period_ = false;
  std::map<int64_t, PeriodRecord> open_;  // whose spans are still coming in
};

}  // namespace longspan
