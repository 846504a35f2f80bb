#!/usr/bin/env bash
# Installs what is missing, builds with warnings as errors, checks style, runs all tests.
# tests/run.sh [ctest options], e.g. tests/run.sh -R exchange
set -euo pipefail
cd "$(dirname "$0")/.."

launch/packages.sh test
# The GPU backend where there is a GPU to run it; LONGSPAN_CUDA=AUTO compiles it wherever nvcc is (as CI does).
cuda=OFF
nvidia-smi -L >/dev/null 2>&1 && cuda=AUTO
cmake --preset ci -DLONGSPAN_CUDA="${LONGSPAN_CUDA:-$cuda}"
cmake --build --preset ci
tests/lint.sh build/ci
# Ranks and cores are counted by the tests' PROCESSORS; GPU tests run where there is a GPU.
ctest --preset ci -j "$(nproc)" "$@"
