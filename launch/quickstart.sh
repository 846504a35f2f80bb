#!/usr/bin/env bash
# From a fresh clone to a trained model: installs what is missing, builds, makes a dataset of the C and C++ headers of this
# machine, trains a small NSA model over 4 MPI ranks (cp=2 x dp=2), shows the report and a text that it writes. Needs no
# GPU; uses those it finds.
# launch/quickstart.sh [key.path=value ...]; with LONGSPAN_BUILD=FOLDER it takes the longspan there and builds none.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== packages"
launch/packages.sh

gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
ranks=4 cp=2 dp=2 cuda=OFF
if [ "$gpus" -gt 0 ]; then
  echo "$gpus GPUs found: the build has CUDA, and every rank takes a GPU"
  cuda=AUTO
  if [ "$gpus" -lt 2 ]; then ranks=1 cp=1 dp=1; elif [ "$gpus" -lt 4 ]; then ranks=2 dp=1; fi
fi

build=$(realpath -m "${LONGSPAN_BUILD:-build/quickstart}")
if [ -z "${LONGSPAN_BUILD:-}" ]; then
  echo "== build"
  mkdir -p build
  {
    cmake --preset cpu -B "$build" -DBUILD_TESTING=OFF -DLONGSPAN_CUDA=$cuda &&
      cmake --build "$build" --target longspan
  } >build/quickstart.log 2>&1 || { cat build/quickstart.log >&2; exit 1; }
fi
export PATH=$build:$PATH
longspan --version

echo "== data: the C and C++ headers of this machine"
data=runs/quickstart-data/headers
mkdir -p runs/quickstart-data
longspan data /usr/include/c++ "/usr/include/$(g++ -print-multiarch)" --validation-fraction 0.03 --output "$data"

echo "== train"
# A container's root may run mpirun; more ranks than cores must give way to each other.
train=(mpirun -np "$ranks" --oversubscribe)
[ "$(id -u)" -ne 0 ] || train+=(--allow-run-as-root)
[ "$ranks" -le "$(nproc)" ] || train+=(--mca mpi_yield_when_idle 1)
train+=(longspan train --config configs/quickstart.textproto "parallel.cp=$cp" "parallel.dp=$dp"
        "data.train=${data}_train" "data.validation=${data}_validation")
"${train[@]}" --overwrite "$@"

run=runs/quickstart
for given in "$@"; do
  case $given in
    name=*) run=$(dirname "$run")/${given#name=} ;;
    output=*) run=${given#output=}/$(basename "$run") ;;
  esac
done
steps=$(sed -n 's/^ *steps: \([0-9]*\)$/\1/p' "$run/config.textproto" | head -1)

echo "== what it learned: the loss on held-out headers, and text that it writes on from a first line"
longspan eval "$run"
echo
longspan generate "$run" runtime.device=CPU --prompt $'template <typename T>\n' --tokens 240 --top-p 0.9 --seed 1

cat <<MSG

== what happened
A byte-level transformer with Native Sparse Attention was trained on the headers of this machine. Each sequence was cut over
$cp ranks (cp), $dp ran side by side (dp).
  $run/metrics.jsonl        loss, gradient norm, speed and selection hashes of every step
  $run/profile/report.txt   where the time went, by rank and stage: the report above; longspan report shows more
  $run/profile/report.html  the same with charts, for a browser
  $run/config.textproto     every setting; change one with key.path=value and a name= of its own
  $run/checkpoints          what was saved: $(cat "$run/checkpoints/latest"); longspan checkpoint info, eval, generate read it
It goes on to twice as many steps with

cd $(printf %q "$PWD") && export PATH=$(printf %q "$build"):\$PATH
${train[*]} ${*:+$* }--resume train.steps=$((2 * steps))

  cmake --install ${build#"$PWD/"} --prefix ~/.local puts longspan into ~/.local/bin
MSG
