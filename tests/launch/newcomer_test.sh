#!/bin/bash
# newcomer_test.sh LONGSPAN SOURCE_FOLDER: the path of someone new and what is printed on it. The quickstart; the command
# that it ends with, in a shell that knows nothing; that command again; cmake --install; a wrong key; a dataset that is not
# there; Ctrl-C; a full disk.
set -u
longspan=$1
source=$2
failures=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
mkdir launch
cp "$source"/launch/*.sh launch
cp -r "$source/configs" .
short=(train.steps=3 optimizer.warmup_steps=0 train.eval_sequences=2)

# fresh COMMAND: runs it in a shell that has nothing of this one's environment; sets output and code
fresh() {
  output=$(env -i HOME="$HOME" PATH="$PATH" LSAN_OPTIONS="${LSAN_OPTIONS:-}" LONGSPAN_BUILD="$(dirname "$longspan")" timeout 90 bash -c "$1" 2>&1)
  code=$?
}

# expect NAME CODE PATTERN...: the last run ended with CODE and printed every PATTERN
expect() {
  local name=$1 expected=$2 pattern missing=""
  shift 2
  for pattern in "$@"; do grep -q -E -e "$pattern" <<<"$output" || missing+=" '$pattern'"; done
  if [[ $code != "$expected" || -n $missing ]]; then
    echo "$name: expected code $expected, found $code; not printed:${missing:- nothing}; the output:"
    echo "$output"
    failures=$((failures + 1))
  fi
}

# refuse NAME PATTERN: the last run did not print PATTERN
refuse() {
  if grep -q -E -e "$2" <<<"$output"; then
    echo "$1: '$2' should not be in:"
    echo "$output"
    failures=$((failures + 1))
  fi
}

steps() { cat "$1" 2>/dev/null | grep -c '"kind":"step"'; }

fresh "launch/quickstart.sh ${short[*]}"
expect "the quickstart" 0 "^longspan [0-9.]+ \(revision" "^written +runs/quickstart-data/headers_train\.bin" \
  "ranks +[124] = dp [12] x cp [12], [0-9]+ tokens" "^step 3/3 \| loss [0-9.]+ " "^eval 3/3 \| held-out loss [0-9.]+ " "^done: 3 steps in " \
  "^held-out loss [0-9.]+ over " "^template <typename T>$" "^== what happened"
refuse "the quickstart" "^(error|warning):|"$'\033'
for file in metrics.jsonl profile/report.txt config.textproto; do
  [ -s "runs/quickstart/$file" ] && continue
  echo "the quickstart names runs/quickstart/$file, which is not there"
  failures=$((failures + 1))
done
fresh "launch/quickstart.sh ${short[*]}"
expect "the quickstart again" 0 "^done: 3 steps in "

fresh "launch/quickstart.sh train.steps=0"
expect "a quickstart that fails" 78 "^error: .*1 problem:" "train.steps = 0: must be 1 "
fresh "launch/quickstart.sh ${short[*]}"
next=$(grep -E '^(cd|mpirun) ' <<<"$output")
if [[ $(grep -c . <<<"$next") != 2 || $next != *" longspan train "* ]]; then
  echo "the next command: expected two lines that call longspan, found:"
  echo "$next"
  failures=$((failures + 1))
fi
expected=$(sed -n 's/^eval .*held-out loss \([0-9.]*\) .*/\1/p' <<<"$output")
found=$(printf %.4f "$(sed -n 's/^held-out loss \([0-9.]*\) .*/\1/p' <<<"$output")")
[[ $found == "$expected" ]] || { echo "held-out loss of what was saved: expected $expected, found $found"; failures=$((failures + 1)); }
fresh "$next"
expect "the next command" 0 "resume +runs/quickstart/checkpoints/step-00000003, after step 3" "^done: 3 steps in .* results in runs/quickstart$"
next="${next%% train.steps=*} name=contiguous parallel.layout=CONTIGUOUS"
fresh "$next ${short[*]}"
expect "a run of another name" 0 "^done: 3 steps in .* results in runs/contiguous$"
before=$(cat runs/contiguous/metrics.jsonl)
fresh "$next ${short[*]}"
expect "a second run of the name" 78 "^error: .*runs/contiguous.*--overwrite" "another name|set name"
[[ $(grep -c "^error: " <<<"$output") == 1 && $(cat runs/contiguous/metrics.jsonl) == "$before" ]] || {
  echo "a second run of the name: expected one error and the older metrics, found:"
  echo "$output"
  failures=$((failures + 1))
}

fresh "cmake --install '$(dirname "$longspan")' --prefix '$scratch/installed' && installed/bin/longspan --version"
expect "cmake --install" 0 "^longspan [0-9.]+ \(revision"

fresh "$next ${short[*]} name=other train.stepz=4"
expect "a wrong key" 78 "^error: the configuration has 1 problem:$" "command line: train.stepz = 4: .*did you mean train.steps\?"
fresh "$next ${short[*]} name=other data.train=no/such/set"
expect "a dataset that is not there" 74 "^error: .*no/such/set.idx: cannot open: No such file"
for pattern in "launch/[a-z/]*\.cc:" "terminate called" "Aborted"; do refuse "a dataset that is not there" "$pattern"; done

# One process, since mpirun has its own answer to Ctrl-C: it ends, and what it wrote is whole.
many=(train --config configs/quickstart.textproto runtime.device=CPU parallel.cp=1 parallel.dp=1 data.train=runs/quickstart-data/headers_train
      data.validation=runs/quickstart-data/headers_validation train.steps=1000 data.sequence_length=256)
set -m  # in the background it would be deaf to Ctrl-C
OMP_NUM_THREADS=1 "$longspan" "${many[@]}" name=stopped >stopped.log 2>&1 &
running=$!
set +m
for ((i = 0; i < 300; ++i)); do [[ $(steps runs/stopped/metrics.jsonl) -lt 3 ]] || break; sleep 0.1; done
kill -INT $running
for ((i = 0; i < 100; ++i)); do
  kill -0 $running 2>/dev/null || break
  sleep 0.1
done
kill -KILL $running 2>/dev/null && echo "Ctrl-C: still there after 10 seconds" && failures=$((failures + 1))
wait $running
code=$?
output=$(cat stopped.log)
[[ $code == 75 ]] || expect "Ctrl-C" 130 "^step 1/1000 \| loss "
refuse "Ctrl-C" "error|terminate called"
if [[ $(steps runs/stopped/metrics.jsonl) -lt 3 || -n $(grep -v '^{.*}$' runs/stopped/metrics.jsonl) ]]; then
  echo "Ctrl-C: expected three or more whole lines of metrics, found:"
  cat runs/stopped/metrics.jsonl
  failures=$((failures + 1))
fi
# Nothing of it is in the way of a run that may replace it.
output=$("$longspan" "${many[@]}" name=stopped "${short[@]}" --overwrite 2>&1)
code=$?
expect "a run after Ctrl-C" 0 "^done: 3 steps in "

mkdir runs/full
ln -s /dev/full runs/full/metrics.jsonl
output=$(timeout 60 "$longspan" "${many[@]}" name=full train.log_interval=1000 2>&1)
code=$?
expect "a full disk" 74 "^error: .*runs/full/metrics\.jsonl: .*No space left on device"

exit $((failures > 0))
