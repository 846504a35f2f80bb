// A job in which one rank fails while the others wait for it: failing_rank RANK [config]. Run by failing_rank_test.sh.
#include <mpi.h>

#include <cstdlib>
#include <string>

#include "launch/world.h"
#include "runtime/error.h"

int main(int argc, char** argv) {
  return longspan::RunAndReport([&] {
    const longspan::World world;
    const int failing = argc > 1 ? std::atoi(argv[1]) : -1;
    if (failing == world.size()) longspan::Fail(longspan::ExitCode::kConfig, "wrong on every rank");
    if (failing == world.rank()) longspan::Fail(longspan::ExitCode::kData, "wrong on one rank");
    MPI_Barrier(MPI_COMM_WORLD);
    return 0;
  });
}
