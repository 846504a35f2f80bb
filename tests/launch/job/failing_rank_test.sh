#!/bin/bash
# failing_rank_test.sh PROGRAM MPIEXEC: a rank that throws ends the whole job within seconds, with its code and its name.
set -u
program=$1
mpiexec=$2
failures=0

# check NAME RANK CODE MESSAGE COUNT: the job ends within 10 s with CODE and says MESSAGE, COUNT times
check() {
  local output code start=$SECONDS
  output=$(timeout 60 "$mpiexec" -n 4 "$program" "$2" 2>&1)
  code=$?
  local seconds=$((SECONDS - start)) count
  count=$(grep -c -E "$4" <<<"$output")
  if [[ $code != "$3" || $count != "$5" || $seconds -ge 10 ]]; then
    echo "$1: expected code $3 and $5 x '$4' within 10 s; found code $code after $seconds s and:"
    echo "$output"
    failures=$((failures + 1))
  fi
}

check "no rank fails" -1 0 "error" 0
check "rank 0 fails" 0 65 "^error: \[rank 0/4 .*\] .*wrong on one rank" 1
check "rank 3 fails" 3 65 "^error: \[rank 3/4 .*\] .*wrong on one rank" 1
check "all ranks fail, rank 0 speaks" 4 78 "^error: \[rank 0/4 .*\] .*wrong on every rank" 1
check "all ranks fail, no other speaks" 4 78 "^error: \[rank [1-3]/4" 0
exit $((failures > 0))
