#!/usr/bin/env bash
# Builds targets of preset asan. tests/sanitizers/build.sh BUILD_FOLDER TARGET... 77 where there is no clang 19 with libFuzzer.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1
shift
if ! command -v clang++-19 >/dev/null || ! ls /usr/lib/llvm-19/lib/clang/19/lib/*/libclang_rt.fuzzer*.a >/dev/null 2>&1; then
  echo "skipped: needs clang 19 with libFuzzer (Debian and Ubuntu: clang-19, libclang-rt-19-dev)"
  exit 77
fi
mkdir -p "$build"
{
  cmake --preset asan -B "$build" && cmake --build "$build" --target "$@"
} >"$build/build.log" 2>&1 || { tail -n 60 "$build/build.log" >&2; exit 1; }
