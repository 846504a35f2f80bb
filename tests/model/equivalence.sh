#!/usr/bin/env bash
# One GPU = several ranks = the CPU: a table, a row for each way to run the same step (tests/model/equivalence.cc). Its
# exit status is not 0 when a row is off; 77 when GPU rows were asked for and there is no GPU.
#
#   tests/model/equivalence.sh [cpu|gpu|all] [PROGRAM] [MPIEXEC]      default all build/gpu/tests/model/equivalence mpirun
set -uo pipefail
which=${1:-all}
program=${2:-build/gpu/tests/model/equivalence}
mpiexec=${3:-mpirun}
seconds=120 # that a row may take
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
log=$(mktemp)
trap 'rm -f "$log"' EXIT
rows=()
failed=0
no_gpu=0

format='%-6s %-5s %7s  %-8s %-11s  %-38s %9s %9s %8s  %-10s  %-6s %7s\n'

# row DEVICE DTYPE DP CP EXCHANGE TRANSPORT
row() {
  [[ $1 == GPU && $no_gpu -eq 1 ]] && return
  local line status
  line=$(timeout --kill-after=10 "$seconds" "$mpiexec" -n $(($3 * $4)) "$program" "$@" 2>"$log")
  status=$?
  if [[ $status -eq 77 ]]; then
    no_gpu=1
    return
  fi
  if [[ $status -ne 0 ]]; then
    failed=1
    echo "== $* (exit status $status)"
    tail -40 "$log"
  fi
  # A row that was not printed, or ended badly after it, says so.
  [[ $(tr -cd '\t' <<<"$line" | wc -c) -eq 11 ]] || line=$(printf '%s\t%s\t%s x %s\t%s\t%s\t-\t-\t-\t-\t-\tFAIL\t-' "$@")
  [[ $status -ne 0 ]] && line=${line/PASS/FAIL}
  rows+=("$line")
}

for dtype in F32 BF16; do
  if [[ $which != gpu ]]; then
    row CPU $dtype 2 1 GATHER AUTO
    row CPU $dtype 1 2 GATHER AUTO
    row CPU $dtype 2 2 FETCH AUTO
    row CPU $dtype 1 4 FETCH AUTO
  fi
  if [[ $which != cpu ]]; then
    row GPU $dtype 1 1 GATHER AUTO
    row GPU $dtype 2 1 GATHER AUTO
    row GPU $dtype 1 2 GATHER AUTO
    row GPU $dtype 1 2 GATHER PEER
    row GPU $dtype 1 2 GATHER NCCL
    row GPU $dtype 1 2 FETCH STAGED
    row GPU $dtype 2 2 FETCH AUTO
    row GPU $dtype 1 4 FETCH AUTO
    row GPU $dtype 1 8 GATHER AUTO
  fi
done

printf '\nOne step of a small NSA model against one CPU rank: RMS error / RMS of the gradient that is most off, and of the losses\n'
# shellcheck disable=SC2059
printf "$format" device dtype 'dp x cp' exchange transport 'worst gradient' error losses allowed repeated result seconds
for line in "${rows[@]}"; do
  IFS=$'\t' read -ra fields <<<"$line"
  # shellcheck disable=SC2059
  printf "$format" "${fields[@]}"
done
if [[ $no_gpu -eq 1 ]]; then echo "no GPU: its rows were left out"; fi
if [[ $which == gpu && $no_gpu -eq 1 ]]; then exit 77; fi
if [[ $failed -eq 0 && ${#rows[@]} -gt 0 ]]; then echo "ALL PASS"; else echo "FAILED"; fi
[[ $failed -eq 0 && ${#rows[@]} -gt 0 ]]
