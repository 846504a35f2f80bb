// Environment: the variables that change what a run does, besides its configuration. Launchers hand on some of them to
// other nodes, and some not.
#pragma once

#include <map>
#include <string>

#include "parallel/comm/comm.h"

namespace longspan {

using Environment = std::map<std::string, std::string>;

// Of this process: NCCL_*, OMP_*, UCX_*, LONGSPAN_*, CUDA_VISIBLE_DEVICES, what a user sets of Open MPI's and PMIx's
// parameters, and what SLURM says of the job.
Environment ReadEnvironment();

// "A=1 B='x y'"
std::string EnvironmentText(const Environment& environment);

// Collective over `world`, on host memory: a warning that names each variable that ranks have differently, with two
// values and ranks; "" where there is none. What differs by its nature (SLURM's, CUDA_VISIBLE_DEVICES) may.
std::string DifferentEnvironment(Communicator& world, const Environment& own);

}  // namespace longspan
