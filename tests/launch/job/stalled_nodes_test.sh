#!/bin/bash
# stalled_nodes_test.sh LONGSPAN MPIEXEC: on two nodes, which share the run's folder and no memory, a rank that hangs, and one
# that is stopped, is named with its node. The nodes are name spaces of this machine; 77 where that may not be.
set -u
longspan=$1 mpiexec=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

mkdir "$folder"/shm-{a,b}
cat >"$folder/agent" <<END
#!/bin/bash
node=\${1#node} && shift
exec unshare --uts --mount bash -c 'hostname "node\$0" && mount --bind "$folder/shm-\$0" /dev/shm && exec sh -c "\$*"' "\$node" "\$@"
END
chmod +x "$folder/agent"
"$folder/agent" nodea true 2>/dev/null || { echo "skipped: needs the right to make name spaces (root)"; exit 77; }
printf 'node%s slots=2\n' a b >"$folder/hosts"

# check HOW PART...: rank 2, of the second node, meets its end so; the job ends with 76 and says every PART
check() {
  local how=$1 part begin=$EPOCHREALTIME
  shift
  timeout 120 "$mpiexec" --mca plm_rsh_agent "$folder/agent" --hostfile "$folder/hosts" -np 4 -x "LONGSPAN_PLANTED_FAULT=2:halo:forward:$how:1:5" \
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

check hang "error: [rank 0/4 nodea] communication stalled: send_receive of halo, layer 1 forward" "not arrived: rank 2" \
  "rank 2 on nodeb, pid" "main thread at halo, layer 1 forward" "HaloExchange::Forward" "rank 3 on nodeb: waits"
check stop "error: [rank 0/4 nodea] communication stalled: send_receive of halo, layer 1 forward" \
  "rank 2 on nodeb, pid" "its process is stopped by a signal"
[ -z "$(find "$folder"/shm-* -name 'longspan-*')" ] || { find "$folder"/shm-*; failures=1; }
exit $((failures > 0))
