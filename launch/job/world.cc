#include "launch/job/world.h"

#include <fmt/format.h>
#include <mpi.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <new>
#include <string>
#include <thread>

#include "runtime/error.h"
#include "runtime/planted_fault.h"

namespace longspan {
namespace {

bool MpiIsRunning() {
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  return initialised != 0 && finalised == 0;
}

// MPI's, else the launcher's.
int ProcessRank() {
  if (!MpiIsRunning()) return AskLauncher().rank;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

// The first of these environment variables that is set; 0 when none is.
int FromEnvironment(std::initializer_list<const char*> variables) {
  for (const char* variable : variables) {
    if (const char* value = std::getenv(variable)) return std::atoi(value);
  }
  return 0;
}

// Without it Open MPI would end within MPI_Init, with a code and a text of its own.
void RequirePmi() {
  const bool by_srun = FromEnvironment({"SLURM_STEP_NUM_TASKS"}) > 1;
  for (const char* told : {"PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"}) {
    if (std::getenv(told)) return;
  }
  if (!by_srun) return;
  Fail(
      ExitCode::kConfig,
      "srun started {} processes without telling MPI of it: start them with srun --mpi=pmix (srun --mpi=list says what "
      "it has), or with mpirun within the allocation",
      AskLauncher().ranks);
}

std::atomic<bool> end_left_to_others = false;
std::string added_to_error;

[[noreturn]] void EndAllRanks(ExitCode code, const std::string& message) {
  while (end_left_to_others) std::this_thread::sleep_for(std::chrono::seconds(1));
  // A wrong configuration fails on all ranks alike: rank 0 gets the time to say so for all. Before MPI runs it is the
  // launcher that ends the others then, and takes its time.
  if (ProcessRank() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(MpiIsRunning() ? 500 : 3000));
  std::fflush(stdout);
  fmt::print(stderr, "error: {}{}\n", message, added_to_error);
  int size = 1;
  if (MpiIsRunning()) MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size > 1) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::exit(static_cast<int>(code));
}

}  // namespace

Launched AskLauncher() {
  return {FromEnvironment({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}),
          FromEnvironment({"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"})};
}

World::World() : exceptions_(std::uncaught_exceptions()) {
  RequirePmi();
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  SetProcessIdentity(rank_, size_, NodeName());
  PlantedFault::Get().BeginStep(rank_, 0, 0);  // one that is to strike before the first step
  // Started by another MPI's mpirun, each process believes to be the only one.
  const Launched launched = AskLauncher();
  if (size_ == 1 && launched.ranks > 1) {
    Fail(ExitCode::kConfig,
         "the launcher started {} processes, but MPI ({}) knows of this one only; start them with the mpirun of this "
         "MPI",
         launched.ranks, MpiVersion());
  }
}

World::~World() {
  if (std::uncaught_exceptions() == exceptions_) MPI_Finalize();
}

std::string NodeName() {
  char name[MPI_MAX_PROCESSOR_NAME] = "";
  int length = 0;
  MPI_Get_processor_name(name, &length);
  return {name, static_cast<size_t>(length)};
}

std::string MpiVersion() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string version(text, static_cast<size_t>(length));
  return version.substr(0, version.find_first_of(",\n"));
}

void LeaveEndToOthers() { end_left_to_others = true; }

void AddToError(const std::string& lines) { added_to_error += lines; }

int RunAndReport(const std::function<int()>& run) {
  try {
    return run();
  } catch (const Error& error) {
    EndAllRanks(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    EndAllRanks(ExitCode::kRankFailed, ProcessPrefix() + "out of memory");
  } catch (const std::exception& error) {
    EndAllRanks(ExitCode::kRankFailed, ProcessPrefix() + error.what());
  }
}

}  // namespace longspan
