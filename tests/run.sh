#!/usr/bin/env bash
# Installs what is missing, builds with warnings as errors, checks style, runs all tests.
# tests/run.sh [ctest options], e.g. tests/run.sh -R exchange
set -euo pipefail
cd "$(dirname "$0")/.."

launch/packages.sh test
cmake --preset ci
cmake --build --preset ci
tests/lint.sh build/ci
# Ranks and cores are counted by the tests' PROCESSORS; GPU tests run where there is a GPU.
ctest --preset ci -j "$(nproc)" "$@"
