#!/usr/bin/env bash
# clang-format on every file, clang-tidy (names) on the sources of the backends that BUILD_FOLDER, of preset ci, compiles: the
# program's, with --all the tests' too. An error of a tool is a failure. tests/lint.sh BUILD_FOLDER [--all]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tests/lint.sh BUILD_FOLDER [--all]}
skip=^tests/
[ "${2:-}" = --all ] && skip='^$'

mapfile -t files < <(git ls-files '*.h' '*.cc' '*.cu' '*.cuh')
clang-format --dry-run -Werror "${files[@]}"

# How each source is compiled, alone: rooms are built as one (LONGSPAN_UNITY). What is generated lies in the build.
if ! grep -qx "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$build/CMakeCache.txt"; then
  echo "error: $build is no build of $PWD" >&2
  exit 1
fi
database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
cuda=$(sed -n 's/^LONGSPAN_CUDA:STRING=//p' "$build/CMakeCache.txt")
cmake --preset ci -B "$database" -DLONGSPAN_UNITY=OFF -DLONGSPAN_CUDA="$cuda" >/dev/null
# Options of GCC's that clang-tidy does not know.
sed -i "s| -fno-gnu-unique||g; s|$database|$(realpath "$build")|g" "$database/compile_commands.json"

# Which backend is compiled differs from build to build; clang-tidy takes any other source for an error.
mapfile -t sources < <(comm -12 \
  <(sed -nE "s|^ *\"file\": \"$PWD/(.*\.cc)\",?$|\1|p" "$database/compile_commands.json" | sort -u) \
  <(git ls-files '*.cc' | sort) | grep -vE "$skip")
# Warnings are for GCC to give.
if ! findings=$(printf '%s\n' "${sources[@]}" |
  xargs -P "$(nproc)" -n 4 clang-tidy-19 --quiet --extra-arg=-w -p "$database" 2>&1); then
  printf '%s\n' "$findings"
  exit 1
fi
echo "lint: ${#files[@]} files formatted, the names of ${#sources[@]} sources are right"
