#!/bin/bash
# stalled_nodes_test.sh LONGSPAN MPIEXEC: on two nodes (nodes.sh), which share the run's folder and no memory, a rank that
# hangs, and one that is stopped, is named with its node. 77 where nodes may not be made.
set -u
source "$(dirname "$0")/../nodes.sh"
longspan=$1 mpiexec=$2
enter_machine "$@"
failures=0
make_nodes 2

# check HOW PART...: rank 2, of the second node, meets its end so; the job ends with 76 and says every PART
check() {
  local how=$1 part begin=$EPOCHREALTIME
  shift
  timeout 120 "${mpirun[@]}" -np 4 -x "LONGSPAN_PLANTED_FAULT=2:halo:forward:$how:1:5" \
    "$longspan" train runtime.device=CPU model.layers=2 model.hidden=16 model.heads=2 model.kv_heads=1 model.key_width=8 \
    model.value_width=8 model.ffn=24 model.vocab=10 model.nsa.block=8 model.nsa.stride=4 model.nsa.select_block=8 model.nsa.select=3 \
    model.nsa.window=8 data.format=FIBONACCI data.sequence_length=64 optimizer.warmup_steps=0 optimizer.schedule=CONSTANT \
    train.eval_interval=0 train.log_interval=100000 train.sequences_per_step=4 parallel.cp=2 checkpoint.minutes=0 train.steps=1000000 \
    "output=$folder/runs" name=run --overwrite comm.timeout=2 >"$folder/said" 2>&1
  local code=$?
  echo "$how: code $code, end after $(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s, start and five steps included"
  for part in "$@"; do
    grep -qF -- "$part" "$folder/said" || { echo "  lacks: $part"; code=-1; }
  done
  [ "$(grep -c '^error: ' "$folder/said")" = 1 ] || { echo "  has several verdicts"; code=-1; }
  pgrep -f "^$longspan train .*output=$folder/runs" && { echo "  processes are left"; code=-1; }
  [ "$code" = 76 ] && return
  tail -n 60 "$folder/said"
  failures=$((failures + 1))
}

check hang "error: [rank 0/4 n1] communication stalled: send_receive of halo, layer 1 forward" "not arrived: rank 2" \
  "rank 2 on n2, pid" "main thread at halo, layer 1 forward" "HaloExchange::Forward" "rank 3 on n2: waits"
check stop "error: [rank 0/4 n1] communication stalled: send_receive of halo, layer 1 forward" \
  "rank 2 on n2, pid" "its process is stopped by a signal"
[ -z "$(find "$folder"/shm-* -name 'longspan-*')" ] || { find "$folder"/shm-*; failures=1; }
exit $((failures > 0))
