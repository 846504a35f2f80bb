#!/usr/bin/env bash
# Trains the 102M preset on sequences of 65,536 tokens of real code, NSA and FULL attention on the same data and steps,
# each stopped in the middle and resumed, and sets them beside each other: curves, held-out loss by position, a text, what
# NSA selects, and what becomes of the FULL model imported as NSA.
#
#   tests/real_run.sh data FOLDER     makes the dataset of a source tree such as Linux's: a few minutes
#   tests/real_run.sh [PART ..]       nsa full eval text import figures; without any all of them, in this order
#
# Parts may run one by one; nsa and full go on where they were stopped. Expected on one H100, from the rates of shorter
# runs: nsa 4 minutes, full 13, the others 5. With more GPUs each sequence is cut over all of them. All is left in
# runs/real_run; figures.md is what to read.
# One that ran before goes on with its runs; a new one wants another folder.
#
#   LONGSPAN=FILE      the program (build/gpu/longspan)      RUNS=FOLDER   instead of runs/real_run
#   STEPS=N            of each run (611: 40M tokens)         RANKS=N       instead of all GPUs
#   IMPORT_STEPS=N     of the imported model (200)           PROMPT=FILE   what the text goes on from
#   HELD_OUT=N         tokens, at most (4194304)             TOKENS=N      of the text (300)
#   VOCAB=N            of the tokenizer (32768)
#   DOCUMENTS="--megabytes 125 .." to tests/bench/long_documents.py
#   KEYS="KEY=VALUE .." over the configuration, such as a smaller model
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
longspan=${LONGSPAN:-build/gpu/longspan}
folder=${RUNS:-runs/real_run}
steps=${STEPS:-611}
import_steps=${IMPORT_STEPS:-200}
ranks=${RANKS:-$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')}
[[ $ranks -gt 0 ]] || ranks=1
held_out=${HELD_OUT:-4194304}
read -rd '' -a keys <<<"${KEYS:-}"  # lines, too
data=("data.train=$folder/data/train" "data.validation=$folder/data/held_out")
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
mkdir -p "$folder"

on_ranks() { mpirun --oversubscribe --bind-to none -np "$ranks" "$longspan" "$@"; }

make_data() {
  local texts=$folder/texts
  rm -rf "$texts"
  # shellcheck disable=SC2086  # several words
  tests/bench/long_documents.py "$1" "$texts" ${DOCUMENTS:-} &&
    "$longspan" tokenizer train --vocab "${VOCAB:-32768}" --type bpe --output "$folder/tokenizer" "$texts/train" &&
    for part in train held_out; do
      "$longspan" data --tokenizer sentencepiece --model "$folder/tokenizer.model" --output "$folder/data/$part" \
        "$texts/$part" || return
    done
}

# train NAME KEYS...: from the start, or on from where it is. At half of its steps it is stopped, once.
train() {
  local name=$1 log=$folder/$1.log metrics=$folder/$1/metrics.jsonl code=75 job
  shift
  local command=(train --config configs/nsa_102m.textproto --resume "name=$name" "output=$folder" "${data[@]}"
    train.sequences_per_step=1 "train.steps=$steps" "optimizer.warmup_steps=$((steps / 10))" train.log_interval=50
    train.eval_interval=200 train.eval_sequences=16 "parallel.cp=$ranks" checkpoint.minutes=0 checkpoint.keep_last=1
    "${keys[@]}" "$@")
  echo "== $name"
  if ! grep -qs '"kind":"stop"' "$metrics"; then
    on_ranks "${command[@]}" >>"$log" 2>&1 &
    job=$!
    until grep -qs "\"step\":$((steps / 2))," "$metrics" || ! kill -0 $job 2>/dev/null; do sleep 0.2; done
    touch "$folder/$name/stop"
    wait $job
    code=$?
  fi
  if [[ $code -eq 75 ]]; then
    on_ranks "${command[@]}" >>"$log" 2>&1
    code=$?
  fi
  grep -aE '^(step|eval|saved|resum|done|error)' "$log" | tail -n 40
  [[ $code -eq 0 ]] || { echo "FAILED: $name, exit code $code"; tail -n 8 "$log"; }
  return $code
}

# measure NAME LENGTH TOKENS: the held-out loss of a run in sequences of a length, so many tokens at most, into
# NAME.LENGTH.json.
measure() {
  echo "== held-out loss of $1 in sequences of $2 tokens"
  on_ranks eval "$folder/$1" "data.sequence_length=$2" "train.eval_sequences=$(($3 / $2))" \
    --json "$folder/$1.$2.json" 2>"$folder/eval.log" || { tail -n 5 "$folder/eval.log"; return 1; }
}

length() { sed -nE 's/^ *sequence_length: ([0-9]+)$/\1/p' "$folder/nsa/config.textproto" | head -n 1; }

evaluate() { measure nsa "$(length)" "$held_out" && measure full "$(length)" "$held_out"; }

text() {
  local prompt=$folder/prompt.txt
  if [[ -n ${PROMPT:-} ]]; then cp "$PROMPT" "$prompt" || return; else echo '// drivers/net/example.c' >"$prompt"; fi
  for name in nsa full; do
    echo "== text of $name"
    "$longspan" generate "$folder/$name" parallel.cp=1 --file "$prompt" --tokens "${TOKENS:-300}" --temperature 0.7 --top-p 0.95 \
      --seed 1 >"$folder/$name.text" 2>"$folder/$name.text.log" || { tail -n 5 "$folder/$name.text.log"; return 1; }
    tail -n 40 "$folder/$name.text"
  done
}

# The FULL model in Llama's form becomes NSA and is trained on, in sequences a quarter as long.
import() {
  local length=$(($(length) / 4)) dense=$folder/dense imported=$folder/imported
  rm -rf "$dense" "$imported" "$imported-trained"
  "$longspan" export "$folder/full" "$dense" --dense &&
    "$longspan" import "$dense" "$imported" "data.sequence_length=$length" "${data[@]}" || return
  echo "== imported: trained on"
  on_ranks train --config "$imported/config.textproto" --overwrite "output=$folder" "${data[@]}" "data.seed=2" \
    train.sequences_per_step=4 "train.steps=$import_steps" optimizer.learning_rate=3e-4 "optimizer.warmup_steps=$((import_steps / 10))" \
    train.log_interval=50 train.eval_interval=0 "parallel.cp=$ranks" >"$folder/imported-trained.log" 2>&1 ||
    { tail -n 8 "$folder/imported-trained.log"; return 1; }
  grep -aE '^(step|done)' "$folder/imported-trained.log"
  for name in full imported imported-trained; do
    for tokens in $((length / 4)) "$length"; do measure "$name" "$tokens" $((held_out / 4)) | grep -aE '^(==|held-out)' || return; done
  done
}

failed=0
run() {
  case $1 in
    nsa) train nsa "train.record_selection=$folder/nsa.selection" ;;
    full) train full model.attention=FULL ;;
    eval) evaluate ;;
    text) text ;;
    import) import ;;
    figures) tests/bench/run_figures.py "$folder" ;;
    *) echo "no part is named $1"; return 64 ;;
  esac || { failed=1; echo "FAILED: $1"; }
}

if [[ ${1:-} == data ]]; then
  make_data "${2:?usage: tests/real_run.sh data FOLDER}"
  exit
fi
[[ $# -gt 0 ]] || set -- nsa full eval text import figures
for part in "$@"; do run "$part"; done
exit $failed
