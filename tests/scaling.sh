#!/usr/bin/env bash
# How Longspan scales over the GPUs of one machine, as two tables: each part takes under ten minutes on eight of them.
#
#   tests/scaling.sh attention [BUILD_FOLDER]     default build/gpu, where tests/gpu.sh built `longspan`
#   tests/scaling.sh training [BUILD_FOLDER]
#
# attention  One layer (H=64 G=4 K=V=128) on 128k tokens over 1, 2, 4, 8 ranks, both layouts and exchanges: milliseconds,
#            efficiency against one rank, what of the transfers kernels do not hide; then a million tokens with
#            recomputation over all. Whatever the ranks, the same blocks must be chosen.
# training   The 1.16B model: 64k tokens on replicas, 256k over four ranks, 512k and 1M over all; the 7.3B model on 1M
#            tokens, three steps. Beside each the step that `longspan plan` expects.
#
#   RANKS=N       as many (all GPUs)     RUNS=REGEX   only trainings of these names
#   DEVICE=cpu    small sizes on a CPU, to try the script
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
part=${1:?usage: tests/scaling.sh attention|training [BUILD_FOLDER]}
longspan=${2:-build/gpu}/longspan
device=${DEVICE:-gpu}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

if [[ $device == cpu ]]; then
  ranks=${RANKS:-4}
else
  ranks=${RANKS:-$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')}
  [[ $ranks -gt 0 ]] || { echo "no GPU: nvidia-smi found none"; exit 77; }
  nvidia-smi --query-gpu=name --format=csv,noheader | sort | uniq -c
fi

on_ranks() { mpirun --bind-to none -np "$@"; }
say() { printf '%s\n' "$*"; }
broken() {
  failed=1
  say "FAILED: $1"
  tail -n 5 "$2"
}

attention() {
  local layer=(bench layer --device "$device" --phi MEAN) short=(--tokens 131072 --runs 7) long=(--tokens 1048576 --runs 3) p
  if [[ $device == cpu ]]; then
    layer+=(--shape "4,2,16,16")
    short=(--tokens 2048 --runs 2)
    long=(--tokens 4096 --runs 1)
  else
    layer+=(--shape "64,4,128,128")
  fi
  for ((p = 1; p <= ranks; p *= 2)); do
    local both=(--layout "HEAD_TAIL,CONTIGUOUS" --selected-exchange "GATHER,FETCH")
    [[ $p -gt 1 ]] || both=()
    on_ranks "$p" "$longspan" "${layer[@]}" "${short[@]}" "${both[@]}" --json "$folder/short.$p.json" >"$folder/log" 2>&1 ||
      broken "$p ranks" "$folder/log"
  done
  on_ranks "$ranks" "$longspan" "${layer[@]}" "${long[@]}" --recompute --json "$folder/long.$ranks.json" >"$folder/log" 2>&1 ||
    broken "recomputation" "$folder/log"
  python3 - "$folder" <<'PYTHON' || failed=1
import glob, json, sys
files = glob.glob(sys.argv[1] + "/*.json")
reports = sorted((json.load(open(f)) for f in files), key=lambda r: (r["recompute"], r["ranks"]))
head = ("ranks", "tokens", "layout", "exchange", "forward", "eff.", "exposed", "backward", "eff.", "exposed", "covered",
        "MiB")
row = "{:>5} {:>8} {:>10} {:>8} {:>9} {:>6} {:>8} {:>9} {:>6} {:>8} {:>8} {:>7}"
print(row.format(*head))
one, chosen, failed = None, {}, not reports
for report in reports:
    for case in report["cases"]:
        tokens, forward, backward = case["sizes"]["tokens"], case["forward"], case["backward"]
        if report["ranks"] == 1 and not report["recompute"]:
            one = case
        def efficiency(name):
            if not one or report["recompute"]:
                return "-"
            return "{:.1f}%".format(100 * one[name]["ms"] / report["ranks"] / case[name]["ms"])
        print(row.format(report["ranks"], tokens, case["layout"], case["selected_exchange"],
                         "{:.2f}".format(forward["ms"]), efficiency("forward"), "{:.2f}".format(forward["exposed_ms"]),
                         "{:.2f}".format(backward["ms"]), efficiency("backward"),
                         "{:.2f}".format(backward["exposed_ms"]), "{:.0f}%".format(100 * case["coverage"]),
                         "{:.0f}".format(case["memory_mib"])) + (" recomputed" if report["recompute"] else ""))
        if chosen.setdefault(tokens, case["selection"]) != case["selection"]:
            failed = True
            print("FAILED: {} ranks chose other blocks".format(report["ranks"]))
sys.exit(failed)
PYTHON
}

# train NAME RANKS CONFIG STEPS KEYS...: a row of the table. Sequences are generated; nothing is saved.
train() {
  local name=$1 count=$2 config=$3 steps=$4 log=$folder/$1.log
  shift 4
  [[ $name =~ ${RUNS:-.} ]] || return
  local keys=("$@" data.format=FIBONACCI)
  if [[ $device == cpu ]]; then
    keys+=(runtime.device=CPU model.layers=1 model.hidden=32 model.heads=2 model.kv_heads=1 model.key_width=8 model.value_width=8
      model.ffn=32 model.vocab=16)
  fi
  on_ranks "$count" "$longspan" train --config "$config" --overwrite name="$name" output="$folder" train.steps="$steps" \
    train.eval_interval=0 train.log_interval=1 checkpoint.minutes=0 checkpoint.at_end=false optimizer.schedule=CONSTANT \
    optimizer.learning_rate=1e-5 optimizer.warmup_steps=0 "${keys[@]}" >"$log" 2>&1 || { broken "$name" "$log"; return; }
  local rates=()
  [[ $device == cpu ]] || rates=(--rates configs/rates/h100.json --link-gbps 250)
  "$longspan" plan --config "$config" --world "$count" "${rates[@]}" "${keys[@]}" >"$folder/$name.plan" 2>&1 ||
    broken "plan of $name" "$folder/$name.plan"
  python3 - "$folder/$name/metrics.jsonl" "$folder/$name.plan" "$name" "$count" <<'PYTHON' || failed=1
import json, re, statistics, sys
steps = [r for r in map(json.loads, open(sys.argv[1])) if r["kind"] == "step"]
seconds = [after["elapsed"] - before["elapsed"] for before, after in zip(steps, steps[1:])]
steps = steps[1:]  # the first warms up
plan = open(sys.argv[2]).read()
found = re.search(r"^  step(?:, none hidden)? +([0-9.]+) ms", plan, re.M)  # one rank has nothing to hide
speed = statistics.median(s["tokens_per_second"] for s in steps)
print("{:<16} {:>5} {:>10.0f} {:>9} {:>9.0f} {:>9} {:>8.4f}".format(
    sys.argv[3], sys.argv[4], speed, "{:.0f}".format(1e3 * statistics.median(seconds)),
    max(s["memory_mib"] for s in steps), found.group(1) if found else "-", steps[-1]["loss"]))
PYTHON
  {
    say "$name"
    "$longspan" report "$folder/$name" | sed -n '/^ranks, ms/,/^$/p'
  } >>"$folder/ranks"
}

training() {
  local k=1024 big=configs/nsa_1b.textproto four=$((ranks < 4 ? ranks : 4))
  [[ $device == gpu ]] || k=2
  printf '%-16s %5s %10s %9s %9s %9s %8s\n' run ranks tokens/s 'step ms' MiB/rank 'plan ms' loss
  train 1b_64k_1 1 "$big" 6 data.sequence_length=$((64 * k)) train.sequences_per_step=1 parallel.cp=1 train.recompute=FULL
  train 1b_64k_dp "$ranks" "$big" 6 data.sequence_length=$((64 * k)) train.sequences_per_step="$ranks" parallel.cp=1 train.recompute=FULL
  train 1b_256k_cp4 "$ranks" "$big" 5 data.sequence_length=$((256 * k)) train.sequences_per_step=$((ranks / four)) parallel.cp="$four" \
    train.recompute=FULL
  train 1b_512k "$ranks" "$big" 4 data.sequence_length=$((512 * k)) train.sequences_per_step=1 parallel.cp="$ranks" train.recompute=FULL
  train 1b_1m "$ranks" "$big" 3 data.sequence_length=$((1024 * k)) train.sequences_per_step=1 parallel.cp="$ranks" train.recompute=FULL
  train 8b_1m "$ranks" configs/nsa_8b.textproto 3 data.sequence_length=$((1024 * k)) parallel.cp="$ranks"
  say
  cat "$folder/ranks" 2>/dev/null
}

case $part in
  attention) attention ;;
  training) training ;;
  *) echo "expected attention or training, found $part"; exit 64 ;;
esac
if [[ $failed -eq 0 ]]; then say "ALL PASS"; else say FAILED; fi
exit $failed
