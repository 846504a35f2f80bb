#!/bin/bash
# slow_link_test.sh LONGSPAN MPIEXEC: four nodes train, the adapter of one becomes slow (tc tbf), and the report of the
# running job comes to name that node's link. Prints after how many seconds and steps.
set -u
source "$(dirname "$0")/nodes.sh"
enter_machine "$@"
longspan=$1 mpiexec=$2
make_nodes 4 1
run=$folder/runs/run
report() { "$longspan" report "$run" --json 2>/dev/null; }
links() { report | sed -nE 's/^ *"link": "(.+)",$/\1/p'; }  # that are blamed, most first
steps() { cat "$run/metrics.jsonl" 2>/dev/null | grep -c '"kind":"step"'; }
end() {
  touch "$run/stop" 2>/dev/null
  wait "$job" 2>/dev/null
  [ $# -eq 0 ] || { echo "$1"; report; tail -n 20 "$folder/said"; exit 1; }
}

"${mpirun[@]}" -np 4 -x OMPI_MCA_mpi_yield_when_idle=1 "$longspan" train runtime.device=CPU data.format=FIBONACCI \
  model.vocab=16 model.layers=1 model.hidden=64 model.heads=4 model.kv_heads=2 model.ffn=128 model.nsa.window=64 \
  model.nsa.select=6 data.sequence_length=1024 optimizer.schedule=CONSTANT optimizer.warmup_steps=0 train.eval_interval=0 \
  checkpoint.minutes=0 checkpoint.at_end=false train.log_interval=100000 parallel.cp=2 name=run "output=$folder/runs" \
  train.steps=100000 >"$folder/said" 2>&1 &
job=$!
for ((i = 0; i < 600; ++i)); do
  [ "$(steps)" -lt 10 ] || [ -z "$(report)" ] || break
  kill -0 "$job" 2>/dev/null || end "the run has ended"
  sleep 0.2
done
for side in "ip netns exec n2 tc qdisc add dev eth0" "tc qdisc add dev v2"; do
  $side root tbf rate 200mbit burst 64kbit latency 400ms || end "tc failed"
done
planted=$(date +%s%N) before=$(steps)
for ((i = 0; i < 120; ++i)); do
  blamed=$(links | head -n 1)
  [ "$blamed" != "of n2" ] || break
  sleep 0.5
done
[ "$blamed" = "of n2" ] || end "expected the link of n2 to be blamed most, found: $blamed"
echo "named $((($(date +%s%N) - planted) / 1000000)) ms and $(($(steps) - before)) steps after it became slow"
end
