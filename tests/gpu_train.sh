#!/usr/bin/env bash
# Trains the 102M preset on this machine's Python sources (or DATA), 65,536 bytes a sequence, in several ways, and prints
# a table: median speed after the first ten steps, memory, losses, what transfers cost.
#
#   tests/gpu_train.sh [BUILD_FOLDER]      default build/gpu, where tests/gpu.sh built `longspan`
#
#   STEPS=N      of the long runs (300)     SHORT=N   of the others (30)     SEQUENCE=N   tokens of a sequence (65536)
#   DATA=FOLDER  text instead of Python's sources
#   RUNS=REGEX   only runs of these names
#
# With two GPUs or more the runs named cp2 cut every sequence over two of them; otherwise they are left out.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
longspan=${1:-build/gpu}/longspan
steps=${STEPS:-300} short=${SHORT:-30} sequence=${SEQUENCE:-65536}
folder=runs/gpu_train
mkdir -p "$folder"
failed=0
rows=()
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
[[ $gpus -gt 0 ]] || { echo "no GPU: nvidia-smi found none"; exit 77; }

# Without the compiled halves and the tests of large packages: they would be most of it.
"$longspan" data "${DATA:-$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')}" --include '*.py' \
  --exclude '*test*' --validation-fraction 0.02 --output "$folder/python" | tail -3 || exit 1

# run NAME RANKS STEPS KEYS...
run() {
  local name=$1 ranks=$2 count=$3 log=$folder/$1.log metrics=$folder/$1/metrics.jsonl code
  shift 3
  [[ $name =~ ${RUNS:-.} ]] || return
  [[ $ranks -le $gpus ]] || { echo "== $name left out: $ranks GPUs needed, found $gpus"; return; }
  echo "== $name: $*"
  mpirun --bind-to none -np "$ranks" "$longspan" train --config configs/nsa_102m.textproto --overwrite name="$name" output="$folder" \
    data.train="$folder/python_train" data.validation="$folder/python_validation" data.sequence_length="$sequence" \
    train.sequences_per_step=1 train.steps="$count" train.log_interval=50 train.eval_sequences=16 \
    optimizer.warmup_steps=$((count / 10)) checkpoint.minutes=0 checkpoint.at_end=false parallel.cp="$ranks" "$@" >"$log" 2>&1
  code=$?
  if [[ $code -ne 0 ]]; then
    failed=1
    tail -15 "$log"
    rows+=("$(printf '%-22s exit code %s' "$name" "$code")")
    return
  fi
  grep -E 'in use|graphs |^step|exposed|eval|offloaded' "$log"
  values() { sed -nE "s/.*\"$1\":([-+0-9.e]+).*/\1/p" "$metrics"; }
  local speed loss held memory exposed
  speed=$(values tokens_per_second | tail -n +11 | sort -g | awk '{ v[NR] = $1 } END { printf "%.0f", v[int((NR + 1) / 2)] }')
  loss=$(grep '"kind":"step"' "$metrics" | sed -nE 's/.*"loss":([0-9.e+-]+).*/\1/p' | tail -5 | awk '{ s += $1 } END { printf "%.4f", s / NR }')
  held=$(grep '"kind":"eval"' "$metrics" | sed -nE 's/.*"loss":([0-9.e+-]+).*/\1/p' | tail -1)
  memory=$(values memory_mib | sort -g | tail -1)
  exposed=$(sed -nE 's/.*exposed communication: .* of a step, ([0-9.]+%):.*/\1/p' "$log")
  rows+=("$(printf '%-22s %5d %6d %10s %9s %10.4f %10.4f %9s' "$name" "$ranks" "$count" "$speed" "$memory" "$loss" "$held" "$exposed")")
}

run nsa 1 "$steps"
run full 1 "$steps" model.attention=FULL
run nsa_graphs_off 1 "$short" runtime.graphs=OFF
run nsa_graphs_on 1 "$short" runtime.graphs=ON
run nsa_selective 1 "$short" train.recompute=SELECTIVE
run nsa_selective_offload 1 "$short" train.recompute=SELECTIVE train.offload=true
run nsa_recompute 1 "$short" train.recompute=FULL
run nsa_recompute_offload 1 "$short" train.recompute=FULL train.offload=true
run nsa_cp2 2 "$steps"
run nsa_cp2_fetch 2 "$short" parallel.selected_exchange=FETCH
run full_cp2 2 "$steps" model.attention=FULL

printf '\n%-22s %5s %6s %10s %9s %10s %10s %9s\n' run ranks steps tokens/s 'MiB/rank' 'last loss' held-out exposed
printf '%s\n' "${rows[@]}"
nvidia-smi --query-gpu=name --format=csv,noheader | head -1
exit $failed
