#!/usr/bin/env bash
# Fuzzes the parsers of files with libFuzzer, under the address and undefined-behaviour sanitizers: builds the target
# tests/fuzz/TARGET_fuzz.cc with clang 19 and runs it from the corpus in tests/fuzz/corpus/TARGET. What it finds on the way
# stays in BUILD_FOLDER/found; a crash is left in BUILD_FOLDER as crash-*. 77 where there is no clang 19.
# tests/fuzz.sh BUILD_FOLDER TARGET [SECONDS] [libFuzzer options]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tests/fuzz.sh BUILD_FOLDER TARGET [SECONDS] [libFuzzer options]} target=${2:?a target} seconds=${3:-20}
shift $(($# < 3 ? $# : 3))
tests/sanitizers/build.sh "$build" "${target}_fuzz"
mkdir -p "$build/found/$target"
"$build/tests/fuzz/${target}_fuzz" "$build/found/$target" "tests/fuzz/corpus/$target" -max_total_time="$seconds" -timeout=10 \
  -rss_limit_mb=2048 -max_len=4096 -artifact_prefix="$build/" -error_exitcode=1 -timeout_exitcode=1 -print_final_stats=1 "$@" 2>&1 | tail -n 40
