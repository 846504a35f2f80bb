#!/usr/bin/env bash
# What saving costs: trains the 1.16B model on short sequences, saves every INTERVAL steps, and compares, within the run, the
# steps while a save was written with those while none was. Prints a table: their milliseconds (from line to line of the
# metrics), what a save delays training by, and how fast it was written beside a copy of the same bytes by dd.
#
#   tests/saving.sh [BUILD_FOLDER [KEY=VALUE...]]      default build/gpu, where tests/gpu.sh built `longspan`
#
#   INTERVAL=N  steps between saves (20)     STEPS=N  of the run (70)     MEMORY=1  to /dev/shm instead of the disk
#   FOLDER=PATH on the disk to write to (runs/saving)
set -euo pipefail
cd "$(dirname "$0")/.."
longspan=${1:-build/gpu}/longspan interval=${INTERVAL:-20} steps=${STEPS:-70} folder=${FOLDER:-runs/saving}
shift $(($# < 1 ? $# : 1))
rules=(checkpoint.interval="$interval")
[[ -z ${MEMORY:-} ]] || rules=(checkpoint.memory_interval="$interval")
log=$folder/log metrics=$folder/saving/metrics.jsonl
mkdir -p "$folder"
trap 'rm -rf "$folder/saving/checkpoints" "$folder/copy"' EXIT
"$longspan" train --config configs/nsa_1b.textproto --overwrite name=saving output="$folder" data.format=FIBONACCI data.sequence_length=8192 \
  train.sequences_per_step=2 train.steps="$steps" train.eval_interval=0 train.compare_interval=0 train.log_interval=10 runtime.graphs=OFF \
  optimizer.schedule=CONSTANT optimizer.warmup_steps=0 checkpoint.minutes=0 checkpoint.at_end=false checkpoint.keep_last=1 "${rules[@]}" "$@" \
  >"$log" 2>&1 || { code=$?; tail -n 20 "$log"; exit "$code"; }
grep -E '^longspan train|^  (data|memory|total|checkpoints|memory tier) |^(warning|saved)|checkpoint\.' "$log" || true

shard=$(find "$folder/saving/checkpoints" -name shard-00000.safetensors 2>/dev/null | sort | tail -n 1 || true)
mib=0 disk=-
if [[ -n $shard ]]; then
  mib=$(du -cm --apparent-size "${shard%/*}"/*.safetensors | tail -n 1 | cut -f 1)
  disk=$(LC_ALL=C dd if="$shard" of="$folder/copy" bs=16M count=256 conv=fdatasync 2>&1 | awk '/copied/ { for (i = 1; i <= NF; ++i) if ($i == "s,") printf "%.0f", $1 / $(i - 1) / 1048576 }')
fi

# A step belongs to a save when it came after the step that was saved, and began before the save had ended. The first five
# do not count. What they took beyond the median of the five steps without a save before and the five after it is the delay:
# clocks drift as a GPU grows warm.
{
  sed -nE 's/^saved step ([0-9]+) after ([0-9.]+) s.*/saved \1 \2/p' "$log"
  sed -nE 's/.*"elapsed":([0-9.e+-]+).*"kind":"step".*"step":([0-9]+).*/step \2 \1/p' "$metrics"
} | awk -v interval="$interval" -v memory="${MEMORY:-0}" -v mib="$mib" -v disk="$disk" '
  $1 == "saved" { save[++saves] = $2; took[$2] = $3; sum += $3 }
  $1 == "step" { at[$2] = $3; last = $2 }
  function median(v, n,   i, j, x) {
    for (i = 2; i <= n; ++i) { x = v[i]; for (j = i - 1; j > 0 && v[j] > x; --j) v[j + 1] = v[j]; v[j + 1] = x }
    return n == 0 ? 0 : v[int((n + 1) / 2)]
  }
  END {
    # Saves to memory are not in the log: two steps after them are looked at.
    if (memory) for (s = interval; s + 2 < last; s += interval) { save[++saves] = s; took[s] = at[s + 2] - at[s] }
    for (i = 1; i <= saves; ++i) for (k = save[i] + 1; k <= last && at[k - 1] < at[save[i]] + took[save[i]]; ++k) owner[k] = i
    for (k = 6; k <= last; ++k) {
      ms = 1000 * (at[k] - at[k - 1])
      if (k in owner) with[++m] = ms; else without[++n] = ms
    }
    base = median(without, n)
    for (i = 1; i <= saves; ++i) {
      near = 0
      for (k = save[i]; k > 5 && near < 5; --k) if (!(k in owner)) beside[++near] = 1000 * (at[k] - at[k - 1])
      most = near + 5
      for (k = save[i] + 1; k <= last && near < most; ++k) if (!(k in owner)) beside[++near] = 1000 * (at[k] - at[k - 1])
      usual = median(beside, near)
      for (k = save[i] + 1; k in owner && owner[k] == i; ++k) delay += 1000 * (at[k] - at[k - 1]) - usual
    }
    printf "\n%-34s %8s %10s\n", "steps", "number", "median ms"
    printf "%-34s %8d %10.1f\n", "no save under way", n, base
    printf "%-34s %8d %10.1f\n", "behind a save", m, median(with, m)
    if (saves == 0 || base == 0) exit
    printf "\na save delays training by %.1f ms: %.2f%% of a step, %.3f%% of the %d steps between saves\n",
           delay / saves, 100 * delay / saves / base, 100 * delay / saves / base / interval, interval
    if (!memory) printf "%d saves of %d MiB in %.1f s each: %.0f MiB/s; dd of the same bytes with fdatasync: %s MiB/s\n",
                        saves, mib, sum / saves, mib * saves / sum, disk
  }'
