// World: MPI as long as a command runs, and the end of all ranks when one fails.
#pragma once

#include <functional>
#include <string>

namespace longspan {

// Initialises MPI (calls from one thread) and gives errors this rank's name. Finalises MPI when it goes, but not while
// an exception passes: the other ranks may be waiting inside a transfer, and would be waited for. One a process.
class World {
 public:
  World();
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  int rank() const { return rank_; }
  int size() const { return size_; }

 private:
  int rank_ = 0;
  int size_ = 1;
  int exceptions_;  // in flight at construction
};

// What the launcher (mpirun, srun) says before MPI runs; 0 of 0 without one.
struct Launched {
  int rank = 0;
  int ranks = 0;
};
Launched AskLauncher();

std::string NodeName();    // as MPI, which must run, calls this node
std::string MpiVersion();  // "Open MPI v4.1.4"

// From now on another thread ends the job and says why: errors of RunAndReport neither speak nor end anything.
void LeaveEndToOthers();

// Lines, each after an end of line, that the error which ends this process is to say besides its own.
void AddToError(const std::string& lines);

// Runs `run` and returns its exit code. What it throws is printed once, and ends this process, and with it all ranks of
// the job, with the error's exit code: another rank may be waiting for this one.
int RunAndReport(const std::function<int()>& run);

}  // namespace longspan
