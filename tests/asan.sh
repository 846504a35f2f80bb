#!/usr/bin/env bash
# The address, leak and undefined-behaviour sanitizers of clang 19 on the program, and on the tests of what reads files, owns
# memory, passes messages and computes. tests/asan.sh BUILD_FOLDER, which tests/fuzz.sh may share. 77 where there is no clang
# 19. All tests, which takes longer: cmake --preset asan, cmake --build --preset asan, ctest --preset asan.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: tests/asan.sh BUILD_FOLDER}
tests=(memory_test device_test output_file_test mapped_file_test safetensors_test comm_test exchange_test config_test
       dataset_test dataset_record_test step_loader_test data_command_test attention_command_test
       nsa_c_sequence_test nsa_c_decode_test nsa_c_query_test nsa_c_misuse_test nsa_c_model_test)
# The program's own tests train and compare gradients on one rank and on two.
pattern=$(IFS='|'; echo "^(cli_test|(${tests[*]})\.np[124])$")
tests/sanitizers/build.sh "$build" longspan "${tests[@]}"
ctest --test-dir "$build" -R "$pattern" -j "$(nproc)" --no-tests=error --output-on-failure
