#!/bin/bash
# tests/bench/node_bytes.sh [LONGSPAN [KEY=VALUE..]]: what crosses the network between two nodes of this machine (root; tests/launch/nodes.sh)
# in a step of cp=4 on CPUs, two ranks a node: MiB that the interface of the second counts, in and out, and ms of a step (median),
# on a link as fast as memory and on one of 1 Gbit/s (tc), once a node for both its ranks and, to compare, for each of them.
set -u
# shellcheck source=tests/launch/nodes.sh
source "$(dirname "$0")/../launch/nodes.sh"
longspan=$(readlink -f "${1:-build/ci/longspan}") mpiexec=mpirun
enter_machine "$@"
shift
export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
make_nodes 2
bytes() { node n2 "cat /sys/class/net/eth0/statistics/$1_bytes"; }
# run STEPS KEY=VALUE..: as $ranks_of_node says; sets in, out (bytes of all of it) and ms (the median step)
run() {
  local steps=$1 before_in before_out
  shift
  before_in=$(bytes rx) before_out=$(bytes tx)
  "${mpirun[@]}" -np 4 -x "LONGSPAN_RANKS_OF_NODE=$ranks_of_node" "$longspan" train runtime.device=CPU model.layers=2 model.hidden=128 model.heads=8 model.kv_heads=2 \
    model.key_width=32 model.value_width=32 model.ffn=256 model.vocab=10 data.format=FIBONACCI data.sequence_length=4096 \
    train.sequences_per_step=1 train.eval_interval=0 checkpoint.minutes=0 checkpoint.at_end=false parallel.cp=4 profile.level=STEPS \
    "train.steps=$steps" optimizer.warmup_steps=0 optimizer.schedule=CONSTANT "$@" "output=$folder/runs" name=run --overwrite >"$folder/said" 2>&1 || { tail -n 20 "$folder/said"; exit 1; }
  in=$(($(bytes rx) - before_in)) out=$(($(bytes tx) - before_out))
  ms=$(sed -nE 's/.*"kind":"step".*"ms":([0-9.]+).*/\1/p' "$folder/runs/run/metrics.jsonl" | sort -n | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }')
}
echo "exchange   crosses for  link           MiB in a step  MiB out   ms of a step"
for exchange in GATHER FETCH AUTO; do
  for rate in none 1gbit; do
    if [ "$rate" != none ]; then
      for n in n1 n2; do ip netns exec "$n" tc qdisc add dev eth0 root tbf rate "$rate" burst 256k latency 100ms || exit 1; done
    fi
    for ranks_of_node in 2 1; do
      few_in=0 few_out=0
      # Of AUTO the bytes would be those of two runs that may choose differently.
      if [ "$exchange" != AUTO ]; then
        run 2 "parallel.selected_exchange=$exchange" "$@"
        few_in=$in few_out=$out
      fi
      run 22 "parallel.selected_exchange=$exchange" "$@"
      awk -v e="$exchange" -v c="$ranks_of_node" -v l="$rate" -v i="$(((in - few_in) / 20))" -v o="$(((out - few_out) / 20))" -v ms="$ms" \
        'BEGIN {
          if (e == "AUTO") i = o = "-"; else { i = sprintf("%.2f", i / 2^20); o = sprintf("%.2f", o / 2^20) }
          printf "%-10s %-12s %-14s %13s %8s %14.1f\n", e, c == 2 ? "a node" : "each rank", l == "none" ? "memory" : l, i, o, ms
        }'
      grep "^  exchange   forward" "$folder/said"
    done
    [ "$rate" = none ] || for n in n1 n2; do ip netns exec "$n" tc qdisc del dev eth0 root; done
  done
done
grep -A14 "^transfers of a step" "$folder/said"
