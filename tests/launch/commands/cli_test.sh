#!/bin/bash
# cli_test.sh LONGSPAN SOURCE_FOLDER MPIEXEC: exit codes and messages of the command line, and what must not touch MPI.
set -u
longspan=$1
source=$2
mpiexec=$3
failures=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# check CODE PATTERN ARGUMENT...: `longspan ARGUMENT...` exits with CODE and prints PATTERN
check() {
  local expected=$1 pattern=$2 output code
  shift 2
  output=$(timeout 300 "$longspan" "$@" 2>&1)
  code=$?
  if [[ $code != "$expected" ]] || ! grep -q -E -e "$pattern" <<<"$output"; then
    echo "longspan $*: expected code $expected and '$pattern', found code $code and:"
    echo "$output"
    failures=$((failures + 1))
  fi
}

fibonacci=$source/configs/fibonacci.textproto

# With this MPI cannot start (the last check of the block proves it): these commands do not need it.
export OMPI_MCA_pml=not_there
check 0 "Exit codes"
check 0 "Exit codes" --help
check 0 "^longspan [0-9.]+ \(revision" --version
for command in train verify attention data "data info" checkpoint "checkpoint info" "checkpoint verify" report bench "bench nsa"; do
  check 0 "Usage: longspan $command" $command --help
  check 0 "^Examples:$" $command --help
  check 0 "^  (mpirun -np [0-9]+ )?longspan $command [^ ]" $command --help
done
check 0 "^model.vocab = 10 +# .*fibonacci.textproto:[0-9]+$" train --config "$fibonacci" --print-config
check 0 "^train.steps = 7 +# command line$" train --config "$fibonacci" train.steps=7 optimizer.warmup_steps=0 --print-config
check 0 "^train.steps = 200 +# default$" verify data.train=x --print-config
check 78 "^train.steps = 200 +# default$" train --print-config
check 0 "^ +3 +1 +1 +32\.\.95$" train --config "$fibonacci" parallel.cp=2 --dry-run --world 4
check 0 "parameters" train --config "$fibonacci" --dry-run
check 0 "^ +total" train --config "$fibonacci" --dry-run
check 0 "^ +\.\.\.  118 more$" train --config "$fibonacci" --dry-run --world 128 train.sequences_per_step=128
check 0 "of 100 MiB available" train --config "$fibonacci" --dry-run --device-memory 100MiB
check 78 "^error: .*--device-memory 1.0 MiB: rank 0 takes [0-9.]+ MiB; shorten" train --config "$fibonacci" --dry-run \
  --device-memory 1MiB
check 64 "device-memory" train --config "$fibonacci" --dry-run --device-memory much
check 78 "runtime.device = CPU: this machine has .* 4 ranks would take" train --config "$fibonacci" --dry-run --world 4 \
  runtime.device=CPU model.layers=400 model.hidden=65536 model.ffn=65536
# A plan for another machine is none that fails here.
check 0 "^ +total" train --config "$fibonacci" --dry-run model.layers=400 model.hidden=65536 model.ffn=65536
# Two megabytes of tokens, of which the last is 9.
head -c 2000000 /dev/zero >"$scratch/tokens"
printf '\x09\x00' | dd of="$scratch/tokens" bs=1 seek=1999998 conv=notrunc status=none
tokens=(data.format=NANOGPT data.train="$scratch/tokens" data.validation_fraction=0 train.eval_sequences=0)
check 0 "^Data: .*tokens .*1000000 tokens" train --config "$fibonacci" --dry-run "${tokens[@]}"
check 65 "^error: .*data.train: .*tokens: document 0, offset 999999: token id 9 .* model.vocab = 9" \
  train --config "$fibonacci" --dry-run "${tokens[@]}" model.vocab=9
check 74 "no/such/file" train --config "$fibonacci" --dry-run "${tokens[@]}" data.train=no/such/file
check 64 "hint: longspan --help" trian
check 64 "no such command: trian; did you mean train\?" trian --config x
check 64 "no such command: verfiy; did you mean verify\?" verfiy
check 64 "no such command: atention; did you mean attention\?" atention
check 64 "no such command: date; did you mean data\?" date
check 64 "hint: longspan train --help" train --conifg x
check 64 "hint: keys are written without dashes: train.steps=3" train --train.steps=3
check 64 "needs|requires" train --world 4
check 64 "--case" attention --out x
check 64 "^error: --layout: expected HEAD_TAIL or CONTIGUOUS, found sideways$" attention --case a --out b --layout sideways
check 64 "^error: --device: expected cpu or gpu, found tpu$" attention --case a --out b --device tpu
check 64 "^error: --selected-exchange: expected GATHER or FETCH, found 1$" attention --case a --out b --selected-exchange 1
check 64 "^error: --world: expected a whole number from 1 to 1048576, found x$" train --world x --dry-run
check 64 "^error: --validation-fraction: expected a number from 0 to below 1, found 2$" data --validation-fraction 2 x
check 65 "^error: $source/configs: no file in it matches --include '\*\.xyz' --include '\*\.abc' --exclude 'b/'$" \
  data --output "$scratch/none" --include '*.xyz' --include '*.abc' --exclude b/ "$source/configs"
mkdir "$scratch/empty"
check 65 "^error: $scratch/empty: holds no file$" data --output "$scratch/none" "$scratch/empty"
check 0 "^parallel.dp = 10 " train --config "$fibonacci" --print-config --dry-run --world 010 parallel.dp=010 \
  train.sequences_per_step=20
check 78 "command line: train.step = 3: no such key; did you mean train.steps\?" train --config "$fibonacci" train.step=3
check 78 "has 2 problems" train --config "$fibonacci" train.step=3 model.layers=x
check 78 "parallel.cp = 3 and data.sequence_length = 128 disagree" train --config "$fibonacci" parallel.cp=3
check 78 "parallel.cp = 2: must divide the number of ranks, 3" train --config "$fibonacci" parallel.cp=2 --dry-run --world 3
check 74 "no/such/file" train --config no/such/file
check 1 "" train --config "$fibonacci" output="$scratch"
unset OMPI_MCA_pml
check 74 "^error: \\[rank 0/1 .*\\] no/such/case: cannot open" attention --case no/such/case --out b

# A world that is not dp x cp is refused on every rank, and said once.
output=$(timeout 300 "$mpiexec" -n 3 "$longspan" train --config "$fibonacci" parallel.cp=2 output="$scratch" 2>&1)
code=$?
if [[ $code != 78 || $(grep -c "must divide the number of ranks, 3" <<<"$output") != 1 ]]; then
  echo "wrong world: expected code 78 and one message, found code $code and:"
  echo "$output"
  failures=$((failures + 1))
fi

# What fails before MPI runs is said once as well.
for arguments in "trian" "train --config no/such/file" "train --config $fibonacci model.layerz=3"; do
  # shellcheck disable=SC2086
  output=$(timeout 300 "$mpiexec" -n 3 "$longspan" $arguments 2>&1)
  if [[ $(grep -c "^error: " <<<"$output") != 1 ]]; then
    echo "mpirun longspan $arguments: expected one error, found:"
    echo "$output"
    failures=$((failures + 1))
  fi
done

# An error is no part of the line that moves.
mkdir "$scratch/in"
echo text >"$scratch/in/a"
head -c 20000000 /dev/zero | tr '\0' b >"$scratch/in/b"
ln -s /dev/full "$scratch/full.bin.partial"
output=$(LONGSPAN_PROGRESS=bar "$longspan" data --output "$scratch/full" "$scratch/in" 2>&1)
code=$?
if [[ $code != 74 || $output != *"tokenising ["* ]] || ! grep -q "^error: .*full.bin.partial: .*No space left" <<<"$output"; then
  echo "an error below a bar: expected code 74, the bar and a line with the error, found code $code and:"
  echo "$output"
  failures=$((failures + 1))
fi

# One rank speaks, and plans for as many as there are.
output=$(timeout 300 "$mpiexec" -n 4 "$longspan" train --config "$fibonacci" parallel.cp=2 --dry-run 2>&1)
if [[ $? != 0 || $(grep -c "^Ranks: 4 = dp 2 x cp 2" <<<"$output") != 1 || $(wc -l <<<"$output") -gt 30 ]]; then
  echo "--dry-run on 4 ranks: expected one plan for 4, found:"
  echo "$output"
  failures=$((failures + 1))
fi

# Under a launcher, whose ranks have a terminal each, no line moves.
output=$(timeout 300 "$mpiexec" -n 2 "$longspan" train --config "$fibonacci" runtime.device=CPU parallel.cp=2 train.steps=20 \
  optimizer.warmup_steps=0 output="$scratch" 2>&1)
if [[ $? != 0 || $output == *$'\r['* || $output == *$'\033['* ]]; then
  echo "progress under a launcher: expected plain lines, found:"
  echo "$output"
  failures=$((failures + 1))
fi

# Two ranks against one, and one that has nothing to be compared with.
output=$(timeout 300 "$mpiexec" -n 2 "$longspan" verify --config "$fibonacci" runtime.device=CPU parallel.cp=2 \
  parallel.selected_exchange=FETCH 2>&1)
code=$?
if [[ $code != 0 ]] || ! grep -q "^verify: good" <<<"$output" || ! grep -q "phi_k.weight1" <<<"$output"; then
  echo "verify: expected code 0, the table and 'verify: good', found code $code and:"
  echo "$output"
  failures=$((failures + 1))
fi
check 78 "runtime.graphs = ON: needs GPUs" train --config "$fibonacci" runtime.device=CPU runtime.graphs=ON \
  output="$scratch" name=graphs
check 78 "parallel.cp = 1: verify" verify --config "$fibonacci"
exit $((failures > 0))
