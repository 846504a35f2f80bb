#!/usr/bin/env bash
# Runs a training job until it is done: starts it again, with --resume, when it fails, and says how many steps and seconds
# were lost.
#
#   launch/keep_running.sh [--failures N] [--stalls N] [--wait SECONDS] mpirun -np 8 longspan train --config F output=O name=N
#   launch/keep_running.sh srun -n 16 longspan train --config F
#
# Gives up after N failures in all (100) or N in a row after which no step was saved (3). What no restart cures ends it at
# once: wrong usage, data or configuration (64, 65, 78). So does a run that stopped in good order because it was told to
# (75), and one whose losses are not finite (79). Signals that it gets it hands on to the launcher. Exits as the last run did.
set -u

failures=100 stalls=3 wait=5
while [ $# -gt 0 ]; do
  case $1 in
    --failures) failures=${2:?}; shift 2 ;;
    --stalls) stalls=${2:?}; shift 2 ;;
    --wait) wait=${2:?}; shift 2 ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 64; }

# The run's folder, as the program sees it: of OUTPUT, NAME in the configuration that these arguments make.
program=("$@")
folder=
for ((i = 0; i < $#; ++i)); do
  if [ "${program[i]}" = train ] && [ "$i" -gt 0 ]; then
    settled=$("${program[i - 1]}" "${program[@]:i}" --print-config) || { code=$?; printf '%s\n' "$settled"; exit "$code"; }
    value() { sed -nE "s/^$1 = \"?([^\"#]*[^\"# ])\"? +#.*/\1/p" <<<"$settled"; }
    folder=$(value output)/$(value name)
  fi
done
[ -n "$folder" ] || { echo "keep_running: expected a command with \"longspan train\" in it, found: $*" >&2; exit 64; }

# The last step that is saved, and the last taken: lines of metrics after the checkpoint are lost.
saved() { ls "$folder/checkpoints" 2>/dev/null | sed -nE 's/^step-0*([0-9]+)$/\1/p' | sort -n | tail -n 1; }
taken() { sed -nE 's/^\{.*"kind":"step".*"step":([0-9]+).*/\1/p' "$folder/metrics.jsonl" 2>/dev/null | tail -n 1; }
seconds_of() { sed -nE "/\"kind\":\"step\"/{/\"step\":$1[,}]/s/.*\"elapsed\":([0-9.]+).*/\1/p}" "$folder/metrics.jsonl" 2>/dev/null | tail -n 1; }

child=
hand_on() {
  told=1 signalled=1
  [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null
}
told='' signalled=''
for signal in USR1 USR2 TERM; do
  # shellcheck disable=SC2064
  trap "hand_on $signal" "$signal"
done
trap "hand_on TERM" INT  # which what runs in the background ignores

code=0 failed=0 stalled=0 lost_steps=0 lost_seconds=0
command=("$@")
while :; do
  before=$(saved)
  "${command[@]}" &
  child=$!
  signalled=1
  while [ -n "$signalled" ]; do  # a signal ends the waiting, not the job
    signalled=
    wait "$child"
    status=$?
    [ "$status" -eq 127 ] || code=$status
  done
  child=
  case $code in 0 | 64 | 65 | 75 | 78 | 79) break ;; esac
  [ -z "$told" ] || break
  now=$(saved) last=$(taken)
  steps=$((${last:-0} - ${now:-0}))
  [ "$steps" -ge 0 ] || steps=0
  end=$(seconds_of "${last:-0}") begin=$(seconds_of "${now:-0}")
  seconds=$(awk -v a="${end:-0}" -v b="${begin:-0}" 'BEGIN { s = a - b; printf "%.1f", (s > 0 ? s : 0) }')
  failed=$((failed + 1))
  lost_steps=$((lost_steps + steps))
  lost_seconds=$(awk -v a="$lost_seconds" -v b="$seconds" 'BEGIN { printf "%.1f", a + b }')
  if [ "${now:-0}" = "${before:-0}" ]; then stalled=$((stalled + 1)); else stalled=0; fi
  echo "keep_running: exit code $code after step ${last:-0}, step ${now:-0} is saved: $steps steps, $seconds s lost"
  if [ "$failed" -ge "$failures" ] || [ "$stalled" -ge "$stalls" ]; then
    echo "keep_running: given up after $failed failures, $stalled in a row without a step saved"
    break
  fi
  resumes=
  again=()
  for argument in "$@"; do
    [ "$argument" = --overwrite ] || again+=("$argument")
    [ "$argument" != --resume ] || resumes=1
  done
  [ -n "$resumes" ] || again+=(--resume)
  command=("${again[@]}")
  sleep "$wait"
done
[ "$failed" -eq 0 ] || echo "keep_running: $failed failures, $lost_steps steps and $lost_seconds s lost in all; exit code $code"
exit "$code"
