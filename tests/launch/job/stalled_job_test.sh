#!/bin/bash
# stalled_job_test.sh PROGRAM MPIEXEC: how a job of four ranks, two a cp group, ends whose ranks may wait for 2 s, and that
# one that only seems to hang goes on.
set -u
program=$1
mpiexec=$2
failures=0

# check CASE CODE PART...: the job ends with CODE and says every PART; prints the seconds from the fault to the verdict and
# to the end
check() {
  local what=$1 code=$2 output found part line times
  shift 2
  times=$(mktemp)
  output=$(timeout 60 "$mpiexec" -n 4 "$program" "$what" 2>&1 |
    while IFS= read -r line; do echo "$EPOCHREALTIME $line" >>"$times" && echo "$line"; done; exit "${PIPESTATUS[0]}")
  found=$?
  awk -v end="$EPOCHREALTIME" -v what="$what" -v code="$found" '/ the fault$/ { fault = $1 } / error: / { verdict = $1 }
    END { printf "%s: code %d, verdict after %s s, end after %.1f s\n", what, code, verdict ? sprintf("%.1f", verdict - fault) : "-", end - fault }' "$times"
  rm "$times"
  for part in "$@"; do
    grep -qF -- "$part" <<<"$output" || { echo "  lacks: $part"; found=-1; }
  done
  [ "$found" = "$code" ] && return
  echo "$output"
  failures=$((failures + 1))
}

check none 0
check evaluate 0
check extra 76 "all_reduce of test, call " "ranks called different operations under this number" "rank 0: all_reduce" \
  "rank 1: barrier" "rank 1 on "
# MPI refuses a message that is longer than expected before anybody has waited.
for what in size type; do
  check $what 70 "all_reduce, call 6 of rank " "MPI_ERR_TRUNCATE" "ranks called different operations under this number" \
    "rank 0: all_reduce of test, call 6, F32, " "rank 1: all_reduce of test, call 6, F"
done
check save 76 "(comm.save_timeout = 1)" "not arrived: rank 1" "saving after step 1 for"
check circle 76 "ranks wait for each other in different operations" "all_reduce of test" "barrier of test"
check spin 76 "not arrived: rank 2" "main thread at test" "StalledJob::Spin"
# A rank does not come where GPUs are connected. The limit is a step's, and not that of loading.
check connect 0
export LONGSPAN_PLANTED_FAULT=2:connect:none:hang:0:0
check connect 76 "connect_gpus of connect, call 0 of ranks 0 to 3 has not ended" "(comm.timeout = 2)" "not arrived: rank 2" \
  "connecting GPUs for" "main thread at connect" "PlantedFault::Befall"
# The driver of rank 0's GPU does not answer, which says the verdict: on another rank, and on itself.
export LONGSPAN_PLANTED_FAULT=0:poll:none:hang:0:1
check spin 76 "not arrived: rank 2" "rank 0 on " "; its GPU's driver has not answered for "
check driver 76 "hosts wait for their GPUs" "rank 0 on " "; its GPU's driver has not answered for "
unset LONGSPAN_PLANTED_FAULT

"$mpiexec" -n 4 "$program" suspend &
job=$!
for ((i = 0; i < 400; ++i)); do
  sleep 0.05
  ranks=$(pgrep -P "$job")
  [ "$(wc -w <<<"$ranks")" -lt 4 ] || break
done
sleep 0.5
kill -STOP $ranks
sleep 3
kill -CONT $ranks
wait "$job" || { echo "a job that was suspended for a while did not go on"; failures=$((failures + 1)); }
exit $((failures > 0))
