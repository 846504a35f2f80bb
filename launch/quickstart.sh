#!/usr/bin/env bash
# From a fresh clone to a trained model: installs what is missing, builds, makes a dataset of the C and C++ headers of this
# machine, trains a small NSA model over 4 MPI ranks (cp=2 x dp=2), shows the report. Needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== packages"
launch/packages.sh

echo "== build"
cmake --preset cpu -DBUILD_TESTING=OFF -B build/quickstart >build-quickstart.log 2>&1 &&
  cmake --build build/quickstart --target longspan >>build-quickstart.log 2>&1 ||
  { cat build-quickstart.log >&2; exit 1; }
longspan=build/quickstart/launch/longspan

echo "== data: the headers of this machine"
data=runs/quickstart-data
mkdir -p "$data"
"$longspan" data /usr/include --include '*.h' --include '*.hpp' --output "$data/headers"

echo "== train"
# More ranks than cores must give way to each other; a container's root may run mpirun.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMP_NUM_THREADS=1
mpirun -np 4 "$longspan" train --config configs/quickstart.textproto data.train="$data/headers" "$@"

cat <<MSG
== what happened
A byte-level transformer with Native Sparse Attention was trained on the headers of this machine. Each sequence was cut over two
ranks (cp=2), two sequences ran side by side (dp=2).
  runs/quickstart/metrics.jsonl        loss, gradient norm, speed and selection hashes of every step
  runs/quickstart/profile/report.txt   where the time went, by rank
  runs/quickstart/config.textproto     every setting; change one with key.path=value, e.g.
    mpirun -np 4 $longspan train --config configs/quickstart.textproto data.train=$data/headers parallel.layout=CONTIGUOUS
MSG
