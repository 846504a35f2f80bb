#!/bin/bash
# gpu_failures_test.sh LONGSPAN FAILING_RANK SOURCE_FOLDER MPIEXEC: how a job on GPUs ends when memory is out, a rank dies or
# throws, NCCL fails, or there are too few GPUs or too many ranks: soon, on every rank, with the documented code and a
# message that helps. Two ranks have two GPUs where there are as many.
set -u
longspan=$1
failing_rank=$2
source=$3
mpiexec=$4
failures=0
limit=30 # seconds that a job may take to end
if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "skipped: no GPU"
  exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
said=$scratch/said
IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s , 0 $(($(nvidia-smi -L | grep -c '^GPU') - 1)))}"
export CUDA_VISIBLE_DEVICES=${gpus[0]}
share=(parallel.share_gpu=true)
if [[ ${#gpus[@]} -ge 2 ]]; then
  export CUDA_VISIBLE_DEVICES=${gpus[0]},${gpus[1]}
  share=()
fi
train=("$longspan" train --overwrite --config "$source/configs/fibonacci.textproto" output="$scratch" runtime.device=GPU)
two=("$mpiexec" -n 2)
cp=(parallel.cp=2 "${share[@]}")

wrong() {
  echo "WRONG $1, and it said:"
  tail -c 3000 "$said"
  failures=$((failures + 1))
}

# check NAME CODE PATTERN COMMAND...: COMMAND ends within the limit with CODE and says PATTERN
check() {
  local name=$1 expected=$2 pattern=$3 begin=$EPOCHREALTIME code
  shift 3
  timeout 120 "$@" >"$said" 2>&1
  code=$?
  local seconds=$(((${EPOCHREALTIME/./} - ${begin/./}) / 1000000))
  echo "$name: code $code after $seconds s"
  [[ $code == "$expected" ]] || wrong "$name: expected code $expected, found $code"
  grep -q -E -e "$pattern" "$said" || wrong "$name: expected '$pattern'"
  [[ $seconds -lt $limit ]] || wrong "$name: expected an end within $limit s, found $seconds s"
}

# More than a terabyte of activations. The message has the sizes and what to do.
check "out of memory" 70 \
  "out of GPU memory: the run takes [0-9.]+ [GT]iB of each GPU, .* has [0-9.]+ GiB free; .*raise parallel.cp with more GPUs" \
  "${train[@]}" data.sequence_length=4194304 model.hidden=1024 model.ffn=4096 model.layers=24

nccl=(parallel.transport=NCCL)
check "NCCL fails" 70 "error: \[rank [01]/2 .*comm\.connect_gpus, call [0-9]+ of rank [01]/2 in its group: NCCL: [a-zA-Z]" \
  env NCCL_SOCKET_IFNAME=doesnotexist "${two[@]}" "${train[@]}" "${cp[@]}" "${nccl[@]}"

# A rank does not come where NCCL connects the GPUs: the limit is a step's.
for how in hang stop; do
  check "rank 1 does not come to NCCL ($how)" 76 "communication stalled: connect_gpus of connect, call 0 of ranks 0, 1 has" \
    env LONGSPAN_PLANTED_FAULT=1:connect:none:$how:0:0 "${two[@]}" "${train[@]}" "${cp[@]}" "${nccl[@]}" comm.timeout=3
  grep -qE "not arrived: rank 1" "$said" || wrong "rank 1 does not come to NCCL ($how): expected its name"
done

for transport in NCCL PEER; do
  # Nor to a transfer of the backward, with time enough to connect beside other programs. (Within graphs no host comes to
  # it.) On a GPU that is shared an earlier transfer may be the one that has not ended.
  for how in hang stop; do
    name="rank 1 in the backward ($how, $transport)"
    check "$name" 76 "^  rank 1 on .* in step 5 for .* halo, layer [01] (forward|backward)" \
      env LONGSPAN_PLANTED_FAULT=1:halo:backward:$how:1:5 "${two[@]}" "${train[@]}" "${cp[@]}" \
      parallel.transport=$transport comm.timeout=5 runtime.graphs=OFF
    grep -q "communication stalled: .* of ranks 0, 1 has" "$said" || wrong "$name: expected a stall"
  done

  # The other rank waits inside NCCL, or for the copy.
  for rank in 0 1; do
    check "rank $rank throws ($transport)" 65 "error: \[rank $rank/2 .*wrong on one rank" \
      "${two[@]}" "$failing_rank" $rank $transport
  done
done

# Tokens 0, and while they are trained on one becomes 9999, in the last of 32 sequences: the replica that draws it fails,
# the other waits for its count. Both have graphs that hold transfers.
for transport in NCCL PEER; do
  head -c 8192 /dev/zero >"$scratch/tokens"
  : >"$said"
  (
    for ((i = 0; i < 1000; ++i)); do
      grep -q "step 3/" "$said" && break
      sleep 0.1
    done
    printf '\x0f\x27' | dd of="$scratch/tokens" bs=1 seek=8100 conv=notrunc status=none
  ) &
  check "bad data on one rank ($transport)" 65 "error: \[rank [01]/2 .*token id 9999 is outside the vocabulary of 10" \
    "${two[@]}" "${train[@]}" name=bad parallel.dp=2 "${share[@]}" parallel.transport=$transport runtime.graphs=ON \
    data.format=NANOGPT data.train="$scratch/tokens" data.validation_fraction=0 train.eval_sequences=0 \
    train.sequences_per_step=2 train.steps=1000000 train.log_interval=1
done

check "two ranks, one GPU" 78 "2 ranks for 1 GPU: .*parallel\.share_gpu" \
  env CUDA_VISIBLE_DEVICES="${gpus[0]}" "${two[@]}" "${train[@]}" parallel.cp=2
check "no GPU" 78 "has no GPU" env CUDA_VISIBLE_DEVICES= "${train[@]}"
check "17 ranks (PEER)" 78 "parallel\.transport = PEER: 17 ranks, expected at most 16" \
  "$mpiexec" -n 17 "${train[@]}" parallel.dp=17 train.sequences_per_step=17 parallel.share_gpu=true parallel.transport=PEER

# A rank is killed outright in the middle of training: no code of ours, but the whole job ends.
running() { # one of these processes; what is dead and not yet collected has no command line
  local process
  for process in "$@"; do
    [[ -n $(tr -d '\0' 2>/dev/null <"/proc/$process/cmdline") ]] && return 0
  done
  return 1
}
for transport in NCCL PEER; do
  : >"$said"
  "${two[@]}" "${train[@]}" "${cp[@]}" parallel.transport=$transport train.steps=1000000 train.log_interval=1 >"$said" 2>&1 &
  job=$!
  for ((i = 0; i < 1200; ++i)); do
    if grep -q "step 3/" "$said" || ! running $job; then break; fi
    sleep 0.1
  done
  ranks=()
  for process in /proc/[0-9]*; do
    command=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline")
    [[ $command == "$longspan train "*"output=$scratch "* ]] && ranks+=("${process#/proc/}")
  done
  if grep -q "step 3/" "$said" && [[ ${#ranks[@]} -eq 2 ]]; then
    begin=$EPOCHREALTIME
    kill -KILL "${ranks[1]}"
    for ((i = 0; i < 10 * limit; ++i)); do
      running $job "${ranks[@]}" || break
      sleep 0.1
    done
    milliseconds=$(((${EPOCHREALTIME/./} - ${begin/./}) / 1000))
    if running $job "${ranks[@]}"; then
      wrong "rank killed ($transport): expected mpirun and both ranks to end within $limit s"
    else
      wait $job
      code=$?
      echo "rank killed ($transport): code $code after $milliseconds ms"
      [[ $code != 0 ]] || wrong "rank killed ($transport): expected a code other than 0"
    fi
  else
    wrong "rank killed ($transport): expected two ranks, and step 3 within 120 s; found ${#ranks[@]} ranks"
  fi
  kill -KILL $job "${ranks[@]}" 2>/dev/null
done
exit $((failures > 0))
