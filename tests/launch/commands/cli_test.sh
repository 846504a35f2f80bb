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
  output=$(timeout 60 "$longspan" "$@" 2>&1)
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
for command in train verify attention data "data info" bench "bench nsa"; do
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
check 64 "hint: longspan --help" trian
check 64 "no such command: trian; did you mean train\?" trian --config x
check 64 "no such command: verfiy; did you mean verify\?" verfiy
check 64 "no such command: atention; did you mean attention\?" atention
check 64 "no such command: date; did you mean data\?" date
check 64 "hint: longspan train --help" train --conifg x
check 64 "hint: keys are written without dashes: train.steps=3" train --train.steps=3
check 64 "needs|requires" train --world 4
check 64 "--case" attention --out x
check 64 "sideways" attention --case a --out b --layout sideways
check 78 "command line: train.step = 3: no such key; did you mean train.steps\?" train --config "$fibonacci" train.step=3
check 78 "has 2 problems" train --config "$fibonacci" train.step=3 model.layers=x
check 78 "parallel.cp = 3 and data.sequence_length = 128 disagree" train --config "$fibonacci" parallel.cp=3
check 78 "parallel.cp = 2: must divide the number of ranks, 3" train --config "$fibonacci" parallel.cp=2 --dry-run --world 3
check 74 "no/such/file" train --config no/such/file
check 1 "" train --config "$fibonacci" output="$scratch"
unset OMPI_MCA_pml

# A world that is not dp x cp is refused on every rank, and said once.
output=$(timeout 60 "$mpiexec" -n 3 "$longspan" train --config "$fibonacci" parallel.cp=2 output="$scratch" 2>&1)
code=$?
if [[ $code != 78 || $(grep -c "must divide the number of ranks, 3" <<<"$output") != 1 ]]; then
  echo "wrong world: expected code 78 and one message, found code $code and:"
  echo "$output"
  failures=$((failures + 1))
fi

# Under a launcher, whose ranks have a terminal each, no line moves.
output=$(timeout 60 "$mpiexec" -n 2 "$longspan" train --config "$fibonacci" runtime.device=CPU parallel.cp=2 train.steps=20 \
  optimizer.warmup_steps=0 output="$scratch" 2>&1)
if [[ $? != 0 || $output == *$'\r['* || $output == *$'\033['* ]]; then
  echo "progress under a launcher: expected plain lines, found:"
  echo "$output"
  failures=$((failures + 1))
fi

# Two ranks against one, and one that has nothing to be compared with.
output=$(timeout 60 "$mpiexec" -n 2 "$longspan" verify --config "$fibonacci" runtime.device=CPU parallel.cp=2 \
  parallel.selected_exchange=FETCH 2>&1)
code=$?
if [[ $code != 0 ]] || ! grep -q "^verify: good" <<<"$output" || ! grep -q "phi_k.weight1" <<<"$output"; then
  echo "verify: expected code 0, the table and 'verify: good', found code $code and:"
  echo "$output"
  failures=$((failures + 1))
fi
check 78 "runtime.graphs = ON: needs GPUs" train --config "$fibonacci" runtime.device=CPU runtime.graphs=ON \
  output="$scratch"
check 78 "parallel.cp = 1: verify" verify --config "$fibonacci"
exit $((failures > 0))
