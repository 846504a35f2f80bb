#!/bin/bash
# Several nodes on one machine, for tests that source this: network name spaces behind a bridge, each with a host name, an
# address, an sshd and a /dev/shm of its own. Files are common to all, as on a cluster.
#
#   source nodes.sh; enter_machine "$@"; make_nodes 4; "${mpirun[@]}" -np 8 longspan ..     # on n1 .. n4, two slots each
#
# Where this may not be (not root, tools missing) the test ends with 77, which is skipped, and the reason.

# enter_machine ARGUMENT...: goes on as the same script with these arguments, in name spaces that end with it and take along
# whatever still runs in them. Sets $folder, a folder of the test's.
enter_machine() {
  local tool
  if [ -z "${LONGSPAN_TEST_MACHINE:-}" ]; then
    for tool in unshare ip tc ssh ssh-keygen /usr/sbin/sshd; do
      command -v "$tool" >/dev/null || { echo "skipped: $tool is not here; launch/packages.sh all-tests installs it"; exit 77; }
    done
    unshare --net --uts --mount --ipc --pid --fork --mount-proc ip link add br0 type bridge 2>/dev/null ||
      { echo "skipped: needs the right to make name spaces and bridges (root)"; exit 77; }
    LONGSPAN_TEST_FOLDER=$(mktemp -d)
    LONGSPAN_TEST_MACHINE=1 LONGSPAN_TEST_FOLDER=$LONGSPAN_TEST_FOLDER \
      unshare --net --uts --mount --ipc --pid --fork --mount-proc --kill-child bash "$0" "$@"
    local code=$?
    rm -rf "$LONGSPAN_TEST_FOLDER"
    exit "$code"
  fi
  folder=$LONGSPAN_TEST_FOLDER
  mount -t tmpfs run /run && mkdir -p /run/netns /run/sshd || exit 1
  hostname head
  ip link set lo up && ip link add br0 type bridge && ip addr add 10.99.0.254/24 dev br0 && ip link set br0 up || exit 1
  { echo "127.0.0.1 localhost"; echo "10.99.0.254 head"; for i in {1..8}; do echo "10.99.0.$i n$i"; done; } >"$folder/etc_hosts"
  mount --bind "$folder/etc_hosts" /etc/hosts
}

# make_nodes N [SLOTS]: n1 .. nN, and `mpirun` over them: with SLOTS (2) ranks each, started by ssh.
make_nodes() {
  local i
  ssh-keygen -q -t ed25519 -N '' -f "$folder/key" && cp "$folder/key.pub" "$folder/authorized_keys"
  cat >"$folder/ssh_config" <<END2
IdentityFile $folder/key
UserKnownHostsFile /dev/null
StrictHostKeyChecking no
LogLevel ERROR
END2
  for ((i = 1; i <= $1; ++i)); do
    ip netns add "n$i" && ip link add "v$i" type veth peer name eth0 netns "n$i" && ip link set "v$i" master br0 up &&
      ip -n "n$i" addr add "10.99.0.$i/24" dev eth0 && ip -n "n$i" link set eth0 up && ip -n "n$i" link set lo up || exit 1
    mkdir "$folder/shm-n$i"
    # shellcheck disable=SC2016
    ip netns exec "n$i" unshare --uts --mount bash -c '
      hostname "$1" && mount --bind "$2/shm-$1" /dev/shm || exit
      exec /usr/sbin/sshd -D -f /dev/null -h "$2/key" -o AuthorizedKeysFile="$2/authorized_keys" -o StrictModes=no \
        -o PermitRootLogin=yes -o UsePAM=no -o PidFile=none -E "$2/sshd-$1"' node "n$i" "$folder" &
    disown  # a test that waits does not wait for it
    echo "n$i slots=${2:-2}"
  done >"$folder/hosts"
  for ((i = 1; i <= $1; ++i)); do
    for _ in {1..100}; do node "n$i" true 2>/dev/null && continue 2; sleep 0.1; done
    echo "n$i: no sshd after 10 s"; cat "$folder/sshd-n$i"
    exit 1
  done
  mpirun=("${mpiexec:-mpirun}" --mca plm_rsh_agent "ssh -F $folder/ssh_config" --hostfile "$folder/hosts"
    --mca btl_tcp_if_include 10.99.0.0/24 --mca oob_tcp_if_include 10.99.0.0/24 -x OMP_NUM_THREADS)
}

# node NODE COMMAND: on a node, by ssh.
node() { ssh -F "$folder/ssh_config" "$@"; }
