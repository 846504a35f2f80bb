#!/usr/bin/env bash
# clang-format on every file, clang-tidy (names) on every source. tests/lint.sh BUILD_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tests/lint.sh BUILD_FOLDER}

mapfile -t files < <(git ls-files '*.h' '*.cc' '*.cu' '*.cuh')
clang-format --dry-run -Werror "${files[@]}"

# Only names are judged: clang 14 does not compile all of C++20 (a lambda that captures a structured binding).
mapfile -t sources < <(git ls-files '*.cc')
bad=$(printf '%s\n' "${sources[@]}" |
  xargs -P "$(nproc)" -n 4 clang-tidy --quiet --extra-arg=-Wno-unknown-warning-option -p "$build" 2>/dev/null |
  grep -F '[readability-identifier-naming' | sort -u || true)
if [ -n "$bad" ]; then
  printf '%s\n' "$bad"
  exit 1
fi
echo "lint: ${#files[@]} files formatted, the names of ${#sources[@]} sources are right"
