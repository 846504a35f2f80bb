#!/bin/bash
# processor_test.sh LONGSPAN: on a processor that lacks what the program was built for, a sentence and exit code 78.
longspan=$1
command -v qemu-x86_64 >/dev/null || { echo "skipped: qemu-x86_64 (package qemu-user) is not installed"; exit 77; }
failures=0
# check PROCESSOR CODE PATTERN
check() {
  local output code
  output=$(qemu-x86_64 -cpu "$1" "$longspan" --version 2>&1)
  code=$?
  if [[ $code != "$2" ]] || ! grep -q -E -e "$3" <<<"$output"; then
    echo "$1: expected code $2 and '$3', found code $code and:"
    echo "$output"
    failures=$((failures + 1))
  fi
}
check Nehalem 78 "^error: this processor lacks avx2, fma, .* built; build it for this one: cmake -DLONGSPAN_NATIVE=ON$"
check Haswell 0 "^longspan [0-9.]+ \(revision"
exit $failures
