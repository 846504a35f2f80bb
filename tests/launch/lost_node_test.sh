#!/bin/bash
# lost_node_test.sh LONGSPAN MPIEXEC: a run on three nodes (nodes.sh) goes on from memory when its ranks were killed and one
# node with all that it held is gone, with the unbroken run's bits. 77 where nodes may not be made.
set -u
source "$(dirname "$0")/nodes.sh"
longspan=$1 mpiexec=$2
enter_machine "$@"
failures=0
fail() { echo "$1"; failures=1; }

make_nodes 3
job=("${mpirun[@]}" -np 6 "$longspan" train runtime.device=CPU
  model.layers=1 model.hidden=16 model.heads=2 model.kv_heads=1 model.key_width=8 model.value_width=8 model.ffn=24 model.vocab=10
  model.nsa.block=8 model.nsa.stride=4 model.nsa.select_block=8 model.nsa.select=3 model.nsa.window=8 data.format=FIBONACCI
  data.sequence_length=64 optimizer.warmup_steps=0 optimizer.schedule=CONSTANT train.eval_interval=0 train.log_interval=100000
  train.sequences_per_step=6 parallel.cp=2 checkpoint.minutes=0 train.steps=100 "output=$folder/runs")
parameters() { sed -nE 's/^done: .*parameters ([0-9a-f]+),.*/\1/p' "$1"; }

"${job[@]}" name=whole >"$folder/whole" 2>&1 || { tail "$folder/whole"; fail "the unbroken run failed"; }
for lost in n1 n3; do
  rm -rf "$folder/runs/run"
  "${job[@]}" name=run checkpoint.memory_interval=3 >"$folder/killed" 2>&1 &
  for ((i = 0; i < 1200; ++i)); do
    step=$(sed -nE 's/^\{.*"kind":"step".*"step":([0-9]+).*/\1/p' "$folder/runs/run/metrics.jsonl" 2>/dev/null | tail -n 1)
    [ "${step:-0}" -lt 30 ] || break
    sleep 0.05
  done
  for rank in $(pgrep -f "^$longspan train .*output=$folder/runs"); do kill -9 "$rank"; done
  wait
  held=("$folder/shm-$lost"/longspan-*/step-*/shard-*)
  [ "${#held[@]}" -ge 4 ] || fail "node $lost held ${held[*]}"
  rm -rf "$folder/shm-$lost"/*
  "${job[@]}" name=run checkpoint.memory_interval=3 --resume >"$folder/said" 2>&1 || fail "the resumed run failed"
  grep -qE "^  resume .*/dev/shm/longspan-[0-9a-f]{16}/step-[0-9]+ \(in memory\), after step [1-9]" "$folder/said" || fail "not resumed from memory"
  [ "$(parameters "$folder/said")" = "$(parameters "$folder/whole")" ] || fail "other parameters than the unbroken run's"
  [ -z "$(find "$folder"/shm-* -name 'longspan-*')" ] || fail "files in memory are left: $(find "$folder"/shm-* -name 'longspan-*')"
  [ "$failures" -eq 0 ] || { grep -vE '^ {2}[a-z.]+ +[0-9]' "$folder/said" | head -n 40; exit 1; }
done
