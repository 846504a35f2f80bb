#!/usr/bin/env bash
# clang-format on every file, clang-tidy (names) on every source. tests/lint.sh BUILD_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tests/lint.sh BUILD_FOLDER}

mapfile -t files < <(git ls-files '*.h' '*.cc' '*.cu' '*.cuh')
clang-format --dry-run -Werror "${files[@]}"

mapfile -t sources < <(git ls-files '*.cc')
printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy --quiet --extra-arg=-Wno-unknown-warning-option -p "$build" 2>/dev/null
echo "lint: ${#files[@]} files formatted, ${#sources[@]} sources named well"
