#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing: packages.sh to build and run, packages.sh tests for
# tests/run.sh, packages.sh all-tests for tests/run.sh --all.
set -euo pipefail

needed=(g++ cmake ninja-build git openmpi-bin libopenmpi-dev protobuf-compiler libprotobuf-dev libcli11-dev libfmt-dev
        nlohmann-json3-dev libxxhash-dev libsentencepiece-dev zlib1g-dev libzstd-dev libhwloc-dev libjs-chart.js pkg-config)
case ${1:-} in
  *tests) needed+=(libgtest-dev libeigen3-dev clang-format clang-tidy-19 libomp-19-dev) ;;&
  all-tests) needed+=(qemu-user clang-19 libclang-rt-19-dev chromium python3 iproute2 openssh-client openssh-server munge slurmctld
                      slurmd slurm-client) ;;
esac

missing=()
for package in "${needed[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "error: these packages are needed and apt-get is not here to install them: ${missing[*]}" >&2
  exit 1
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "error: run as root, or install: ${missing[*]}" >&2; exit 1; }
  sudo=sudo
fi
echo "installing: ${missing[*]}"
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
