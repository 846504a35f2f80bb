#!/bin/bash
# slurm_test.sh LONGSPAN SOURCE MPIEXEC: launch/slurm/train.sbatch in a SLURM of this machine's own: told by USR1 the run
# saves, is requeued and resumes; a killed rank is started again within the job; the end has the unbroken run's bits. What
# srun starts without PMIx, or wrongly configured, is refused. 77 where name spaces or SLURM are missing.
set -u
source "$(dirname "$0")/nodes.sh"
longspan=$1 source=$2 mpiexec=$3
for tool in slurmctld slurmd munged sbatch; do
  command -v $tool >/dev/null || { echo "skipped: $tool is not here; launch/packages.sh all-tests installs it"; exit 77; }
done
enter_machine "$@"
failures=0
fail() { echo "FAILED: $1"; failures=$((failures + 1)); }
# within SECONDS COMMAND...: until it is true
within() {
  local i seconds=$1
  shift
  for ((i = 0; i < seconds * 10; ++i)); do
    "$@" && return
    sleep 0.1
  done
  fail "not within $seconds s: $*"
  return 1
}

# A cluster of the node `head`.
mkdir -p /run/munge "$folder"/slurm/{state,spool,tmp}
(umask 077 && head -c 1024 /dev/urandom >/run/munge/key)
chown -R munge: /run/munge
runuser -u munge -- munged --key-file=/run/munge/key --socket=/run/munge/munge.socket.2 --pid-file=/run/munge/pid \
  --log-file=/run/munge/log --seed-file=/run/munge/seed || { cat /run/munge/log; exit 1; }
cat >"$folder/slurm/slurm.conf" <<EOF
ClusterName=test
SlurmctldHost=head
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/slurm/state
SlurmdSpoolDir=$folder/slurm/spool
TmpFS=$folder/slurm/tmp
SlurmctldLogFile=$folder/slurm/slurmctld.log
SlurmdLogFile=$folder/slurm/slurmd.log
SlurmctldPidFile=$folder/slurm/slurmctld.pid
SlurmdPidFile=$folder/slurm/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
KillWait=1
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SlurmdParameters=config_overrides
MpiDefault=pmix
NodeName=head CPUs=8
PartitionName=main Nodes=head Default=YES OverSubscribe=FORCE:4
EOF
export SLURM_CONF=$folder/slurm/slurm.conf
logs() {
  tail -n 10 "$folder"/slurm/*.log
  grep -hE "^(==|error|warning|saved|stopped|done|keep_running|srun|  res)" "$folder"/*.log
}
slurmctld && slurmd || { logs; exit 1; }
idle() { [ "$(sinfo -h -o %T 2>/dev/null)" = idle ]; }
within 20 idle || { logs; exit 1; }
srun --mpi=list 2>&1 | grep -q pmix || { echo "skipped: this SLURM has no PMIx"; exit 77; }

tiny=(runtime.device=CPU model.layers=1 model.hidden=16 model.heads=2 model.kv_heads=1 model.key_width=8 model.value_width=8
  model.ffn=24 model.vocab=10 model.nsa.block=8 model.nsa.stride=4 model.nsa.select_block=8 model.nsa.select=3 model.nsa.window=8
  data.format=FIBONACCI data.sequence_length=64 optimizer.warmup_steps=0 optimizer.schedule=CONSTANT train.eval_interval=0
  train.log_interval=100000 train.sequences_per_step=2 parallel.cp=2 checkpoint.minutes=0 checkpoint.interval=50 train.steps=2000
  "output=$folder/runs")

# srun needs no word of PMIx where it is the cluster's default.
srun -n 2 "$longspan" train "${tiny[@]}" train.steps=3 name=plain >"$folder/plain.log" 2>&1
code=$?
[ "$code" -eq 0 ] && grep -q "^done: 3 steps" "$folder/plain.log" || { fail "plain srun: code $code"; cat "$folder/plain.log"; }
# Without PMIx each process would be a run of its own; a configuration that no restart cures ends the job.
srun --mpi=none -n 2 "$longspan" train "${tiny[@]}" >"$folder/none.log" 2>&1
code=$?
[ "$code" -eq 78 ] && grep -q "^error: .*srun --mpi=pmix" "$folder/none.log" || { fail "srun without PMIx: code $code"; cat "$folder/none.log"; }
"$source/launch/keep_running.sh" --wait 0 srun --mpi=pmix --kill-on-bad-exit=1 -n 2 "$longspan" train "${tiny[@]}" parallel.cp=3 >"$folder/wrong.log" 2>&1
code=$?
[ "$code" -eq 78 ] && [ "$(grep -c "^error: " "$folder/wrong.log")" -eq 1 ] || { fail "a wrong configuration: code $code"; cat "$folder/wrong.log"; }

step() { sed -nE 's/^\{.*"kind":"step".*"step":([0-9]+).*/\1/p' "$folder/runs/job/metrics.jsonl" 2>/dev/null | tail -n 1; }
beyond() { local now; now=$(step); [ "${now:-0}" -gt "$1" ]; }
says() { grep -qE "$1" "$folder/job.log" 2>/dev/null; }
cd "$source" || exit 1
job=$(LONGSPAN=$longspan sbatch --parsable --nodes=1 --ntasks=2 --ntasks-per-node=2 --time=10 --output="$folder/job.log" \
  launch/slurm/train.sbatch "${tiny[@]}" name=job) || exit 1
state() { [ "$(squeue -h -j "$job" -o %T 2>/dev/null)" = "$1" ]; }
ended() { scontrol show job "$job" 2>/dev/null | grep -qE "JobState=(COMPLETED|FAILED|TIMEOUT|CANCELLED|NODE_FAIL)"; }

within 30 beyond 20
scancel --batch --signal=USR1 "$job"
within 30 says "^stopped by SIGUSR1 after step"
within 30 state PENDING
stopped=$(sed -nE 's/^stopped by SIGUSR1 after step ([0-9]+).*/\1/p' "$folder/job.log" | tail -n 1)
no_step() { ! pgrep -x slurmstepd >/dev/null; }
within 30 no_step
scontrol update jobid="$job" starttime=now  # not after the two minutes that a requeued job waits
within 30 says "^== restart 1 of job $job"
within 30 beyond "$((stopped + 100))"
kill -9 "$(sed -nE 's/^pid ([0-9]+) .*/\1/p' "$folder/runs/job/lock")"
within 60 ended
scontrol show job "$job" | grep -q "JobState=COMPLETED" || fail "the job is not complete: $(scontrol show job "$job" | grep -E 'JobState|ExitCode')"
says "^  resume .*, after step ${stopped}$" || fail "not resumed after step $stopped"
says "^keep_running: exit code [0-9]+ after step" || fail "the killed rank was not started again"
says "^keep_running: 1 failures, 1 restarts: .* exit code 0" || fail "keep_running does not say what was lost"

"$mpiexec" -np 2 "$longspan" train "${tiny[@]}" name=whole >"$folder/whole.log" 2>&1
parameters() { sed -nE 's/^done: .*parameters ([0-9a-f]+),.*/\1/p' "$1"; }
[ "$(parameters "$folder/job.log")" = "$(parameters "$folder/whole.log")" ] || fail "other parameters than the unbroken run's"
[ "$failures" -eq 0 ] || { logs; exit 1; }
