#!/usr/bin/env bash
# Installs what is missing, builds with warnings as errors, checks style, runs the tests.
# tests/run.sh [--all] [ctest options], e.g. tests/run.sh -R exchange
#
# --all adds what takes long or needs more packages or rights (label all; 77 = skipped, with the reason), in under 40
# minutes on two cores instead of 15.
set -euo pipefail
cd "$(dirname "$0")/.."

all=
if [ "${1:-}" = --all ]; then
  all=--all
  shift
fi
launch/packages.sh "${all:+all-}tests"
# The GPU backend where there is a GPU to run it; LONGSPAN_CUDA=AUTO compiles it wherever nvcc is (as CI does).
cuda=OFF
nvidia-smi -L >/dev/null 2>&1 && cuda=AUTO
cmake --preset ci -DLONGSPAN_CUDA="${LONGSPAN_CUDA:-$cuda}"
cmake --build --preset ci
tests/lint.sh build/ci $all
# Ranks and cores are counted by the tests' PROCESSORS; GPU tests run where there is a GPU.
ctest --preset "ci${all:+-all}" -j "$(nproc)" "$@"
