#!/usr/bin/env bash
# Runs a training job until it is done: starts it again, with --resume, when it fails, and says how many steps and seconds
# were lost, as the run itself found out (metrics.jsonl).
#
#   launch/keep_running.sh [--failures N] [--stalls N] [--wait SECONDS] mpirun -np 8 longspan train --config F output=O name=N
#   launch/keep_running.sh srun -n 16 longspan train --config F
#
# Gives up after N failures in all (100) or N in a row after which no step was saved, on the disk or in this node's memory
# (3). What no restart cures ends it at
# once: wrong usage, data or configuration (64, 65, 78). So does a run that stopped in good order because it was told to
# (75), and one whose losses are not finite (79). Signals that it gets it hands on to the launcher. Exits as the last run did.
set -u

failures=100 stalls=3 wait=5
patience=4  # a little more than the seconds in which ranks end by themselves after a verdict
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

# The last step that is saved, and the last taken.
saved() { ls "$folder/checkpoints" "/dev/shm/longspan-$(cat "$folder/id" 2>/dev/null)" 2>/dev/null | sed -nE 's/^step-0*([0-9]+)$/\1/p' | sort -n | tail -n 1; }
taken() { sed -nE 's/^\{.*"kind":"step".*"step":([0-9]+).*/\1/p' "$folder/metrics.jsonl" 2>/dev/null | tail -n 1; }
# What the restarts so far cost: their number, steps, seconds of these, and seconds from a run's last line to the next run's start.
costs() {
  sed -nE '/"kind":"resume"/{s/.*"down_seconds":([0-9.e+-]+).*"lost_seconds":([0-9.e+-]+),"lost_steps":([0-9]+).*/\3 \2 \1/p}' "$folder/metrics.jsonl" 2>/dev/null |
    awk '{ steps += $1; seconds += $2; down += $3 } END { printf "%d %d %.2f %.1f", NR, steps, seconds, down }'
}

# The verdicts of ranks that hung (launch/job/watchdog.h). Where a node is lost the launcher may wait for it for ever after
# they have ended: end_launcher PID N ends it once there are more than N.
verdicts() { compgen -G "$folder/stall-*/verdict.txt" | wc -l; }
end_launcher() {
  while kill -0 "$1" 2>/dev/null; do
    sleep 0.5
    [ "$(verdicts)" -gt "$2" ] || continue
    sleep "$patience"
    kill -0 "$1" 2>/dev/null || return
    echo "keep_running: the ranks have ended $patience s ago and the launcher has not: it is killed"
    kill -KILL "$1"
  done
}

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

code=0 failed=0 stalled=0
restarts_before=''  # until the first start has ended: one that resumes is no restart of ours
command=("$@")
while :; do
  before=$(saved)
  hung=$(verdicts)
  "${command[@]}" &
  child=$!
  end_launcher "$child" "$hung" &
  guard=$!
  signalled=1
  while [ -n "$signalled" ]; do  # a signal ends the waiting, not the job
    signalled=
    wait "$child"
    status=$?
    [ "$status" -eq 127 ] || code=$status
  done
  child=
  kill "$guard" 2>/dev/null
  [ "$(verdicts)" -eq "$hung" ] || code=76
  [ -n "$restarts_before" ] || read -r restarts_before steps_before seconds_before down_before <<<"$(costs)"
  case $code in 0 | 64 | 65 | 75 | 78 | 79) break ;; esac
  [ -z "$told" ] || break
  now=$(saved) last=$(taken)
  failed=$((failed + 1))
  if [ "${now:-0}" = "${before:-0}" ]; then stalled=$((stalled + 1)); else stalled=0; fi
  echo "keep_running: exit code $code after step ${last:-0}, step ${now:-0} is saved"
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
read -r restarts steps seconds down <<<"$(costs)"
[ "$failed" -eq 0 ] || awk -v f="$failed" -v r="$((restarts - restarts_before))" -v n="$((steps - steps_before))" -v s="$seconds" -v s0="$seconds_before" \
  -v d="$down" -v d0="$down_before" -v c="$code" 'BEGIN {
    printf "keep_running: %d failures, %d restarts: %d steps of %.2f s lost, and %.1f s until training went on; exit code %d\n", f, r, n, s - s0, d - d0, c }'
exit "$code"
