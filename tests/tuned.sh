#!/usr/bin/env bash
# The same bits whatever the compiler thinks of the processor: builds the program again as GCC tunes it for others (znver3
# and skylake-avx512 unless they are given), runs there the tests of equal bits, and compares the parameters that short
# training runs leave, in each width of vectors, with those of the program as it is.
# tests/tuned.sh BUILD_FOLDER LONGSPAN [PROCESSOR ...]
set -euo pipefail
cd "$(dirname "$0")/.."
# As root and on few cores, too.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
build=${1:?usage: tests/tuned.sh BUILD_FOLDER LONGSPAN [PROCESSOR ...]}
longspan=${2:?usage: tests/tuned.sh BUILD_FOLDER LONGSPAN [PROCESSOR ...]}
shift 2
processors=("${@:-znver3}")
[ $# -gt 0 ] || processors+=(skylake-avx512)
tests=(tile_math_test matmul_test nsa_placement_test nsa_selection_test attention_command_test)
pattern=$(IFS='|'; echo "^(${tests[*]})")
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

# trained LONGSPAN RANKS KEYS...: prints the hash of the parameters
trained() {
  local longspan=$1 ranks=$2
  shift 2
  mpirun -np "$ranks" "$longspan" train --config configs/fibonacci.textproto --overwrite runtime.device=CPU name=run output="$runs" \
    train.steps=5 optimizer.warmup_steps=0 model.hidden=96 "$@" >"$runs/log" 2>&1 || { cat "$runs/log" >&2; return 1; }
  sed -nE 's/^done: .*parameters ([0-9a-f]+),.*/\1/p' "$runs/log"
}

widths=(256)
if grep -qw avx512f /proc/cpuinfo; then widths+=(512); fi
declare -A first
failed=0

# compare LONGSPAN WHAT: short runs leave what the first program's left.
compare() {
  local run hash
  for run in "1" "2 parallel.cp=2" "2 parallel.cp=2 parallel.layout=CONTIGUOUS model.nsa.phi=LINEAR parallel.selected_exchange=FETCH"; do
    # shellcheck disable=SC2086
    hash=$(trained "$1" $run)
    echo "$hash  $2, vectors of $LONGSPAN_VECTOR_BITS bits, ranks $run"
    if [ -z "$hash" ] || [ "$hash" != "${first[$run]:=$hash}" ]; then
      echo "error: expected the parameters ${first[$run]:-one}"
      failed=1
    fi
  done
}

for bits in "${widths[@]}"; do LONGSPAN_VECTOR_BITS=$bits compare "$longspan" "as it is"; done
for processor in "${processors[@]}"; do
  folder=$build/$processor
  mkdir -p "$folder"
  {
    cmake --preset ci -B "$folder" -DLONGSPAN_CUDA=OFF -DCMAKE_CXX_FLAGS="-mtune=$processor" &&
      cmake --build "$folder" --target longspan "${tests[@]}"
  } >"$folder/build.log" 2>&1 || { cat "$folder/build.log" >&2; exit 1; }
  for bits in "${widths[@]}"; do
    export LONGSPAN_VECTOR_BITS=$bits
    if ! ctest --test-dir "$folder" -R "$pattern" --no-tests=error --output-on-failure >"$folder/tests.log" 2>&1; then
      cat "$folder/tests.log"
      failed=1
    fi
    compare "$folder/longspan" "tuned for $processor"
  done
done
exit $failed
