#!/bin/bash
# keep_running_test.sh LONGSPAN SOURCE MPIEXEC: launch/keep_running.sh starts a killed job again until it is done, says what
# was lost, and knows what no restart cures.
set -u
longspan=$1 keep_running=$2/launch/keep_running.sh mpiexec=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

tiny=(runtime.device=CPU model.layers=1 model.hidden=16 model.heads=2 model.kv_heads=1 model.key_width=8 model.value_width=8
  model.ffn=24 model.vocab=10 model.nsa.block=8 model.nsa.stride=4 model.nsa.select_block=8 model.nsa.select=3 model.nsa.window=8
  data.format=FIBONACCI data.sequence_length=64 optimizer.warmup_steps=0 optimizer.schedule=CONSTANT train.eval_interval=0
  train.log_interval=100000 train.sequences_per_step=2 parallel.cp=2 "output=$folder")

# expect NAME CODE TEXT: of the last job, which said $folder/said and ended with $code
expect() {
  if [ "$code" != "$2" ] || ! grep -qE -- "$3" "$folder/said"; then
    echo "$1: expected code $2 and '$3'; found code $code and:"
    grep -E '^(keep_running|error|stopped|done)' "$folder/said" || tail -n 20 "$folder/said"
    failures=$((failures + 1))
  fi
}
keep() {
  "$keep_running" --wait 0 "$@" >"$folder/said" 2>&1
  code=$?
}
# await NAME STEP: until the run NAME has saved a step from STEP on
await() {
  local i step
  for ((i = 0; i < 600; ++i)); do
    step=$(ls "$folder/$1/checkpoints" 2>/dev/null | sed -nE 's/^step-0*([0-9]+)$/\1/p' | sort -n | tail -n 1)
    [ "${step:-0}" -ge "$2" ] && return
    sleep 0.05
  done
  echo "$1: no step $2 within 30 s"
}

# Rank 0 is killed twice.
for at in 20 700; do
  await killed "$at"
  kill -9 "$(sed -nE 's/^pid ([0-9]+) .*/\1/p' "$folder/killed/lock")"
done &
keep "$mpiexec" -np 2 "$longspan" train "${tiny[@]}" name=killed train.steps=1200 checkpoint.interval=10 checkpoint.memory_interval=3
wait
expect "killed twice" 0 "^done: .*parameters"
expect "killed twice" 0 "^keep_running: exit code 137 after step [0-9]+, step [0-9]+ is saved"
expect "killed twice" 0 "^  restart    [0-9]+ steps? of [0-9.]+ s done again; [0-9.]+ s after the last line of the metrics"
expect "killed twice" 0 "^keep_running: 2 failures, 2 restarts: [0-9]+ steps of [0-9.]+ s lost, and [0-9.]+ s until training went on; exit code 0"
lost=$(grep -c '"kind":"lost"' "$folder/killed/metrics.jsonl")
expect "killed twice" 0 "2 restarts: $lost steps"
[ ! -e "/dev/shm/longspan-$(cat "$folder/killed/id")" ] || { echo "killed twice: files in memory are left"; failures=$((failures + 1)); }
"$mpiexec" -np 2 "$longspan" train "${tiny[@]}" name=whole train.steps=1200 checkpoint.interval=0 >"$folder/whole.said" 2>&1
parameters() { sed -nE 's/^done: .*parameters ([0-9a-f]+),.*/\1/p' "$1"; }
if [ "$(parameters "$folder/said")" != "$(parameters "$folder/whole.said")" ]; then
  echo "killed twice: other parameters than the unbroken run's"
  failures=$((failures + 1))
fi

# Told to stop, it stops.
(await told 5; kill -USR1 "$(cat "$folder/pid")") &
"$keep_running" "$mpiexec" -np 2 "$longspan" train "${tiny[@]}" name=told train.steps=1000000 checkpoint.interval=5 >"$folder/said" 2>&1 &
echo $! >"$folder/pid"
wait $!
code=$?
wait
expect "told to stop" 75 "^stopped by SIGUSR1 after step"

keep "$longspan" train "${tiny[@]}" parallel.cp=3
expect "a wrong configuration" 78 "parallel.cp"
# Killed before anything is saved, again and again.
keep --stalls 2 bash -c 'kill -9 $$' "$longspan" train "${tiny[@]}" parallel.cp=1 name=none
expect "no progress" 137 "^keep_running: given up after 2 failures, 2 in a row without a step saved"
keep true
expect "no such command" 64 "expected a command with"
exit $((failures > 0))
