#!/usr/bin/env bash
# Everything that needs a GPU, in one command and without network: configures, builds and runs the tests of label gpu and
# the benchmarks. A table comes last; the exit status is not 0 when anything failed or nothing ran.
#
#   tests/gpu.sh [BUILD_FOLDER]      default build/gpu; its logs/ holds the whole output
#
#   GPU_TESTS=REGEX       only tests of these names        GPU_SKIP_LABELS=REGEX   not tests of these labels, e.g. slow
#   GPU_JOBS=N            processors that tests share (12) GPU_BENCH=0             no benchmarks
#   GPU_SANITIZE=1        small kernel tests under compute-sanitizer too: memcheck and racecheck
#
# A header-only library that the machine lacks (xxhash.h) may lie in .deps/include, which git ignores.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=${1:-build/gpu}
logs=$build/logs
mkdir -p "$logs"
rows=()
failed=0

# step NAME LOG COMMAND...: runs it, its output in a log, and adds a row to the table.
step() {
  local name=$1 log=$logs/$2 begin=$SECONDS result=PASS
  shift 2
  echo "== $name"
  if ! "$@" >"$log" 2>&1; then
    result=FAIL
    failed=1
  fi
  rows+=("$(printf '%-56s %-8s %8d' "$name" "$result" $((SECONDS - begin)))")
  [[ $result == PASS ]]
}

finish() {
  printf '\n%-56s %-8s %8s\n' "step or test" result seconds
  [[ ${#rows[@]} -gt 0 ]] && printf '%s\n' "${rows[@]}"
  if [[ $failed -eq 0 ]]; then echo "ALL PASS"; else echo "FAILED"; fi
  exit $failed
}

gpus=$(nvidia-smi --query-gpu=name,compute_cap,memory.total --format=csv,noheader) || {
  echo "no GPU: nvidia-smi found none"
  failed=1
  finish
}
echo "$gpus"
capability=$(head -1 <<<"$gpus" | cut -d, -f2 | tr -d ' .')
architecture=$capability-real
[[ $capability == 90 ]] && architecture=90a-real

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
step configure configure.log cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLONGSPAN_CUDA=ON \
  -DCMAKE_CUDA_ARCHITECTURES="$architecture" || { tail -30 "$logs/configure.log"; finish; }
# What does not build does not keep the rest from running.
step build build.log cmake --build "$build" --parallel "$(nproc)" --target gpu_tests -- -k 0 ||
  grep -E -A6 'error|FAILED' "$logs/build.log" | head -60

echo "== tests"
selection=(-L gpu -E '^equivalence_gpu$')
[[ -n ${GPU_TESTS:-} ]] && selection+=(-R "$GPU_TESTS")
[[ -n ${GPU_SKIP_LABELS:-} ]] && selection+=(-LE "$GPU_SKIP_LABELS")
ctest --test-dir "$build" "${selection[@]}" -j "${GPU_JOBS:-12}" --output-on-failure >"$logs/tests.log" 2>&1
[[ $? -eq 0 ]] || failed=1
# Lines like " 3/20 Test #31: name.np4 .......   Passed    0.52 sec", the result also ***Failed, ***Timeout, ***Skipped.
results=$(sed -nE 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: ([^ ]+) \.*( *)(\**)([A-Za-z]+).* ([0-9.]+) sec.*/\1 \4 \5/p' "$logs/tests.log")
passed=0
while read -r name result seconds; do
  [[ -z $name ]] && continue
  case $result in
    Passed) result=PASS passed=$((passed + 1)) ;;
    Skipped) result=SKIP ;;
    *) result=FAIL failed=1 ;;
  esac
  rows+=("$(printf '%-56s %-8s %8s' "$name" "$result" "$seconds")")
done <<<"$results"
if [[ -z ${GPU_TESTS:-} || equivalence_gpu =~ $GPU_TESTS ]]; then
  step "equivalence: GPU = several ranks = CPU" equivalence.log tests/model/equivalence.sh gpu \
    "$build/tests/model/equivalence" && passed=$((passed + 1))
  cat "$logs/equivalence.log"
fi
if [[ $passed -eq 0 ]]; then
  failed=1
  rows+=("$(printf '%-56s %-8s' "tests that passed: none" FAIL)")
fi
[[ $failed -eq 0 ]] || grep -E '\[  FAILED  \]|Failure|rror|xpected|what\(\)|Which is|found' "$logs/tests.log" | head -70

# The smallest cases of each kernel family: the tools slow kernels down 10 to 1000 times.
small_tests=(
  "dense/dense_gpu_test DenseGpu.RmsNorm:DenseGpu.Rope:DenseGpu.SwiGluAndAdd:DenseGpu.Gate"
  "rows/rows_gpu_test RowsGpu.GatherAndAdd:RowsGpu.CopiesCastToTheNearest:RowsGpu.MarksThePlacesOfIds"
  "train/train_gpu_test TrainGpu.AdamW:TrainGpu.TargetsOutsideTheVocabularyAreErrors"
  "attention/compress_gpu_test CompressGpu.OddSizes:CompressGpu.NoTokensAtAll"
  "attention/select_gpu_test SelectGpu.ShortSequences:SelectGpu.HashIsTheReferences"
  "attention/branch_gpu_test BranchGpu.BlockSizes:BranchGpu.Pieces:CombineGpu.ForwardAndBackward"
  "attention/branch_backward_gpu_test BranchBackwardGpu.BlockSizes"
)
# sanitized TOOL PROGRAM FILTER: passes when a test ran and the tool found nothing. cuBLASLt's kernels are not ours to
# check, and racecheck takes their asynchronous copies for hazards.
sanitized() {
  local sanitizer output code options=()
  [[ $1 == racecheck ]] && options=(--kernel-name-exclude 'regex=nvjet|cublas|cutlass|xmma')
  sanitizer=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer) || {
    echo "error: compute-sanitizer not found"
    return 1
  }
  output=$(timeout 120 "$sanitizer" --tool "$1" "${options[@]}" --error-exitcode 9 "$build/tests/kernels/$2" --gtest_filter="$3" 2>&1)
  code=$?
  echo "$output"
  [[ $code -eq 0 ]] && grep -q '\[  PASSED  \] [1-9]' <<<"$output"
}
if [[ ${GPU_SANITIZE:-0} != 0 ]]; then
  for tool in memcheck racecheck; do
    for small in "${small_tests[@]}"; do
      read -r program filter <<<"$small"
      name=${program##*/}
      step "$tool: $name" "$tool-$name.log" sanitized $tool "$program" "$filter" ||
        grep -E '^=========|FAILED|^error' "$logs/$tool-$name.log" | head -20
    done
  done
fi

# benchmark NAME COMMAND...
benchmark() {
  [[ ${GPU_BENCH:-1} != 0 && -x $2 ]] || return
  step "$1" "$1.log" "${@:2}"
  tail -60 "$logs/$1.log"
}
benchmark bench_nsa "$build/longspan" bench nsa --full --json "$logs/bench_nsa.json"
benchmark matmul_gpu_bench "$build/tests/bench/matmul_gpu_bench"
finish
