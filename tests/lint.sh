#!/usr/bin/env bash
# clang-format on every file, clang-tidy (names) on the sources that BUILD_FOLDER compiles: the program's, with --all the
# tests' too. An error of a tool is a failure. tests/lint.sh BUILD_FOLDER [--all]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tests/lint.sh BUILD_FOLDER [--all]}
skip=^tests/
[ "${2:-}" = --all ] && skip='^$'

mapfile -t files < <(git ls-files '*.h' '*.cc' '*.cu' '*.cuh')
clang-format --dry-run -Werror "${files[@]}"

# Which backend is compiled differs from build to build; clang-tidy takes any other source for an error.
mapfile -t sources < <(comm -12 \
  <(sed -nE "s|^ *\"file\": \"$PWD/(.*\.cc)\",?$|\1|p" "$build/compile_commands.json" | sort -u) \
  <(git ls-files '*.cc' | sort) | grep -vE "$skip")
if [ ${#sources[@]} -eq 0 ]; then
  echo "error: $build/compile_commands.json names no source of $PWD" >&2
  exit 1
fi
# Options of GCC's that clang-tidy does not know.
database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
sed 's/ -fno-gnu-unique//g' "$build/compile_commands.json" >"$database/compile_commands.json"
# Warnings are for GCC to give.
if ! findings=$(printf '%s\n' "${sources[@]}" |
  xargs -P "$(nproc)" -n 4 clang-tidy-19 --quiet --extra-arg=-w -p "$database" 2>&1); then
  printf '%s\n' "$findings"
  exit 1
fi
echo "lint: ${#files[@]} files formatted, the names of ${#sources[@]} sources are right"
