#!/usr/bin/env bash
# Fuzzes the parsers of files with libFuzzer, under the address and undefined-behaviour sanitizers: builds the target
# tests/fuzz/TARGET_fuzz.cc with clang 19 and runs it from the corpus in tests/fuzz/corpus/TARGET. What it finds on the way
# stays in BUILD_FOLDER; a crash is left there as crash-*. 77 where there is no clang 19.
# tests/fuzz.sh BUILD_FOLDER TARGET [SECONDS] [libFuzzer options]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tests/fuzz.sh BUILD_FOLDER TARGET [SECONDS] [libFuzzer options]} target=${2:?a target} seconds=${3:-20}
shift $(($# < 3 ? $# : 3))
if ! command -v clang++-19 >/dev/null || ! ls /usr/lib/llvm-19/lib/clang/19/lib/*/libclang_rt.fuzzer*.a >/dev/null 2>&1; then
  echo "skipped: needs clang 19 with libFuzzer (Debian and Ubuntu: clang-19, libclang-rt-19-dev)"
  exit 77
fi
mkdir -p "$build/found/$target"
{
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DLONGSPAN_CUDA=OFF -DLONGSPAN_FUZZ=ON \
    -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19 \
    -DCMAKE_CXX_FLAGS="-O1 -g1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all" &&
    cmake --build "$build" --target "${target}_fuzz"
} >"$build/$target.log" 2>&1 || { tail -n 60 "$build/$target.log" >&2; exit 1; }
"$build/tests/fuzz/${target}_fuzz" "$build/found/$target" "tests/fuzz/corpus/$target" -max_total_time="$seconds" -timeout=10 \
  -rss_limit_mb=2048 -max_len=4096 -artifact_prefix="$build/" -error_exitcode=1 -timeout_exitcode=1 -print_final_stats=1 "$@" 2>&1 | tail -n 40
