#!/usr/bin/env bash
# The library as it is installed, in a folder that knows nothing of Longspan: C11 and C++, pkg-config and CMake, shared and
# static; the examples; what it needs and what it shows. install_test.sh BUILD_FOLDER
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${1:?usage: install_test.sh BUILD_FOLDER}" && pwd)
for tool in pkg-config cc c++ nm readelf; do
  command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
fail() { echo "error: $*" >&2; exit 1; }

cmake --install "$build" --prefix "$folder/first" --component nsa >install.log
mv first prefix  # it may be moved
lib=$(dirname "$(find "$folder/prefix" -name libnsa.so)")
export PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

# What it shows and needs.
others=$(nm -D --defined-only "$lib/libnsa.so" | awk '$3 !~ /^nsa_[a-z_]*@@NSA_0$/ && $3 != "NSA_0" {print $3}')
[ -z "$others" ] || fail "libnsa.so shows $others"
others=$(nm -g --defined-only "$lib/libnsa.a" | awk 'NF == 3 && $3 !~ /^nsa_/ {print $3}')
[ -z "$others" ] || fail "libnsa.a shows $others"
readelf -d "$lib/libnsa.so" | grep -q 'SONAME.*\[libnsa\.so\.0\]' || fail "libnsa.so has another soname than libnsa.so.0"
if ldd "$lib/libnsa.so" | grep -E 'libmpi|libnccl|libprotobuf|not found'; then fail "libnsa.so needs these"; fi
for text in 'cuda_runtime' '<cuda'; do
  ! grep -q "#include.*$text" prefix/include/nsa/*.h || fail "a header includes CUDA's"
done

# pkg-config.
cp "$source"/nsa/examples/{decode,fibonacci}.c "$source/tests/nsa/usage.c" .
warnings="-Wall -Wextra -pedantic -Werror"
for program in decode fibonacci usage; do
  cc -std=c11 $warnings $program.c $(pkg-config --cflags --libs nsa) -lm -o $program
  ./$program
  c++ -x c++ -std=c++11 $warnings -Wno-missing-field-initializers $program.c -x none $(pkg-config --cflags --libs nsa) -o $program.cxx
  ./$program.cxx
  libs=$(pkg-config --static --libs nsa)
  cc -std=c11 $program.c $(pkg-config --cflags nsa) ${libs/-lnsa/-l:libnsa.a} -o $program.static
  LD_LIBRARY_PATH= ./$program.static
  if ldd $program.static | grep libnsa; then fail "$program.static needs the shared library"; fi
done

# A model that the program trained and exported: its tokens.
if [ -x "$build/longspan" ]; then
  "$build/longspan" train --config "$source/configs/fibonacci.textproto" runtime.device=CPU train.steps=20 name=run output=. >run.log
  "$build/longspan" export run exported >>run.log
  cp "$source/nsa/examples/generate.c" .
  cc -std=c11 $warnings generate.c $(pkg-config --cflags --libs nsa) -o generate
  CUDA_VISIBLE_DEVICES= ./generate exported 30 1 1 2 3 >made
  CUDA_VISIBLE_DEVICES= "$build/longspan" generate run --ids --prompt "1 1 2 3" --tokens 30 --temperature 0 2>>run.log | cmp - made ||
    fail "the library writes on with $(cat made)"
fi

# CMake.
cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.25)
project(user C CXX)
find_package(nsa 0.1 REQUIRED)
add_executable(shared decode.c)
target_link_libraries(shared nsa::nsa m)
add_executable(static decode.c)
target_link_libraries(static nsa::nsa_static)
END
cmake -B build -DCMAKE_PREFIX_PATH="$folder/prefix" >cmake.log && cmake --build build >>cmake.log || { cat cmake.log >&2; exit 1; }
build/shared && build/static

# Python.
if command -v python3 >/dev/null; then
  export NSA_LIBRARY=$lib/libnsa.so.0 PYTHONDONTWRITEBYTECODE=1
  python3 "$source/nsa/examples/nsa.py"
  python3 "$source/nsa/examples/model.py"
  if python3 -c 'import torch' 2>/dev/null; then python3 "$source/nsa/examples/torch_nsa.py"; fi
fi
