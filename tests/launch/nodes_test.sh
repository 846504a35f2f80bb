#!/bin/bash
# nodes_test.sh LONGSPAN SOURCE MPIEXEC: several nodes (nodes.sh). Four with cp across them train with the bits of one; ranks
# dealt out over nodes are warned of; a slow link, a slow node, and a node whose disk is full are named; where a node's link
# is cut in the middle, all processes of all nodes end, and the message names the node. 77 where that may not be.
set -u
source "$(dirname "$0")/nodes.sh"
longspan=$1 source=$2 mpiexec=$3
enter_machine "$@"
failures=0
# expect NAME CODE FILE TEXT...: the last command ended with $code and said each of the texts
expect() {
  local name=$1 wanted=$2 file=$3 text missing=
  shift 3
  for text in "$@"; do grep -qE -e "$text" "$file" || missing+=" '$text'"; done
  [ "$code" = "$wanted" ] && [ -z "$missing" ] && return
  echo "$name: expected code $wanted, found $code; not said:${missing:- nothing}; of what was said:"
  tail -n 60 "$file"
  failures=$((failures + 1))
}

make_nodes 4
tiny=(runtime.device=CPU model.layers=1 model.hidden=16 model.heads=2 model.kv_heads=1 model.key_width=8 model.value_width=8
  model.ffn=24 model.vocab=10 model.nsa.block=8 model.nsa.stride=4 model.nsa.select_block=8 model.nsa.select=3 model.nsa.window=8
  data.format=FIBONACCI data.sequence_length=64 optimizer.warmup_steps=0 optimizer.schedule=CONSTANT train.eval_interval=0
  train.log_interval=100000 train.sequences_per_step=2 checkpoint.minutes=0 "output=$folder/runs")
parameters() { sed -nE 's/^done: .*parameters ([0-9a-f]+),.*/\1/p' "$1"; }
# train LOG OPTION.. -- KEY=VALUE..: over the nodes
train() {
  local log=$folder/$1 options=()
  shift
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  "${mpirun[@]}" "${options[@]}" "$longspan" train "${tiny[@]}" "$@" >"$log" 2>&1
  code=$?
}

# The same bits on four nodes, where each cp group has ranks on two, as on one.
train four -np 8 -- parallel.cp=4 train.steps=12 name=four
expect "four nodes" 0 "$folder/four" "^ +0(-1)? +n1 " "^ +2-7 +n2 n3 n4: as n1" "^  versions +Open MPI" "^  environment .*OMP_NUM_THREADS=1" "^done:"
grep -q "^warning" "$folder/four" && { echo "four nodes: $(grep "^warning" "$folder/four")"; failures=$((failures + 1)); }
"$mpiexec" -np 8 "$longspan" train "${tiny[@]}" parallel.cp=4 train.steps=12 name=one >"$folder/one" 2>&1
[ -n "$(parameters "$folder/four")" ] && [ "$(parameters "$folder/four")" = "$(parameters "$folder/one")" ] ||
  { echo "four nodes: parameters $(parameters "$folder/four"), one node: $(parameters "$folder/one")"; failures=$((failures + 1)); }
# However chosen blocks travel; and the report tells what crossed the network.
train fetched -np 8 -- parallel.cp=4 parallel.selected_exchange=FETCH train.steps=12 name=fetched
expect "four nodes, FETCH" 0 "$folder/fetched" "parameters $(parameters "$folder/one")," "from other nodes \(far\): 0\.[0-9]*[1-9][0-9]* MiB"
grep -q "from other nodes" "$folder/one" && { echo "one node: bytes of other nodes"; failures=$((failures + 1)); }
grep -q '"environment":{.*"OMP_NUM_THREADS":"1"' "$folder/runs/four/metrics.jsonl" || { echo "metrics.jsonl has no environment"; failures=$((failures + 1)); }

# Dealt out in turns each group lies on two nodes instead of one.
train dealt --map-by node -np 8 -- parallel.cp=2 parallel.dp=4 train.sequences_per_step=4 train.steps=1 name=dealt
expect "dealt out" 0 "$folder/dealt" "^warning: the 4 cp groups of 2 ranks lie on 8 nodes in all where 4 would do.*mpirun --map-by slot"

# A slow adapter.
ip netns exec n3 tc qdisc add dev eth0 root tbf rate 20mbit burst 32k latency 200ms || exit 1
"${mpirun[@]}" --map-by node -np 4 "$longspan" verify --links runtime.device=CPU --json "$folder/links.json" >"$folder/links" 2>&1
code=$?
ip netns exec n3 tc qdisc del dev eth0 root
expect "a slow link" 0 "$folder/links" "^  slow link: rank 2 \(n3\) -> rank [013] \(n[124]\): 0\.00" \
  "^  collectives: [0-9]+ results, all exact" "^verify: good"
[ "$(grep -A20 '"slow"' "$folder/links.json" | grep -c '"from": 2')" -eq 3 ] || { echo "a slow link: not three in the JSON"; failures=$((failures + 1)); }

# A slow node: both its ranks.
train slow --map-by node -np 4 -x LONGSPAN_PLANTED_FAULT=2:window:forward:sleep:1:5 -- parallel.cp=4 train.steps=60 name=slow
"$longspan" report "$folder/runs/slow" >"$folder/slow.report" 2>&1
expect "a slow node" 0 "$folder/slow.report" "rank 2 is slow by its own doing" "^  on node n3, which has 1 rank: 2"

# No room in one node's memory: training goes on.
node n3 'mount -t tmpfs -o size=64m tmpfs /dev/shm' || exit 1
train full --map-by node -np 4 -- parallel.cp=4 train.steps=1500 checkpoint.memory_interval=10 name=full &
for ((i = 0; i < 600; ++i)); do node n3 'ls -d /dev/shm/longspan-*/step-*' >/dev/null 2>&1 && break; sleep 0.1; done
node n3 'head -c 100M /dev/zero >/dev/shm/other' 2>/dev/null
for ((i = 0; i < 600; ++i)); do grep -q "No space left" "$folder/full" && break; sleep 0.1; done
touch "$folder/runs/full/stop"
wait $!
code=$(grep -q "^stopped by" "$folder/full" && echo 75)
expect "a full disk" 75 "$folder/full" "^warning: step [0-9]+ is not kept in memory: \[rank 2/4 n3\] /dev/shm/.*No space left on device"
# No folder that is common to all: refused before anything is lost.
node n3 "umount /dev/shm; mount -t tmpfs -o size=1m tmpfs $folder/runs" || exit 1
train apart --map-by node -np 4 -- parallel.cp=4 train.steps=3 name=apart
expect "an output folder of its own" 78 "$folder/apart" "^error: .*output: .*/runs/apart of rank 0 is not there for rank 2 on n3"
node n3 "umount $folder/runs"

# (An orted that has something to send on the dead link stays until TCP gives up.)
left() { ps -eo pid,comm | grep -wE 'longspan|mpirun|mpiexec|orterun|keep_running.sh'; }
since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }
# cut NAME COMMAND..: a job that trains, and is cut from n3 in the middle, as n3 is from the folder that all see; sets $code,
# and says how long it took to say so and to end. 4 to 6 s and 8 to 10 where the machine has time.
cut() {
  local name=$1 i job left begin verdict='' gone
  shift
  "$@" >"$folder/$name" 2>&1 &
  job=$!
  for ((i = 0; i < 600; ++i)); do grep -q '"step":10,' "$folder/runs/$name/metrics.jsonl" 2>/dev/null && break; sleep 0.1; done
  node n3 "mount -t tmpfs tmpfs $folder/runs"
  ip -n n3 link set eth0 down
  begin=$EPOCHREALTIME
  for ((i = 0; i < 900; ++i)); do
    [ -n "$verdict" ] || ! grep -qE 'lost communication|communication stalled' "$folder/$name" || verdict=$(since "$begin")
    left >/dev/null || break
    sleep 0.1
  done
  gone=$(since "$begin")
  left=$(left) && { echo "$name: left after $gone s: $left"; failures=$((failures + 1)); kill -9 "$job"; }
  wait "$job"
  code=$?
  echo "$name: verdict ${verdict:-never} s after the cut, all processes of all nodes gone after $gone s, code $code"
  awk -v verdict="${verdict:-99}" -v gone="$gone" 'BEGIN { exit !(verdict <= 10 && gone <= 15) }' ||
    { echo "$name: expected a verdict within 10 s, and no process after 15"; failures=$((failures + 1)); }
  ip -n n3 link set eth0 up
  node n3 "umount $folder/runs"
}
# mpirun notices first, with the options of the repository.
long=(--map-by node -np 4 "$longspan" train "${tiny[@]}" parallel.cp=4 train.steps=1000000)
cut noticed "${mpirun[@]}" --tune "$source/launch/many_nodes.conf" "${long[@]}" name=noticed
expect "a cut link" 205 "$folder/noticed" "lost communication" "on node n3"
# The ranks notice first, with Open MPI's own options; their launcher would wait for the node.
cut stalled "$source/launch/keep_running.sh" --failures 1 "${mpirun[@]}" "${long[@]}" comm.timeout=4 name=stalled
expect "a cut link, by the ranks" 76 "$folder/stalled" "^error: .*communication stalled" "^  rank 2 on n3: no word of it" \
  "^with errorcode 76" "^keep_running: the ranks have ended .* and the launcher has not"
exit $((failures > 0))
