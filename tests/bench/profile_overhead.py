"""What a run's profile costs its steps: the quickstart's model with profile.level OFF, STEPS and FULL, in turns, in one table.
profile_overhead.py LONGSPAN [--ranks N] [--rounds N] [--steps N] [key.path=value ...]"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

LEVELS = ("OFF", "STEPS", "FULL")
WARM_UP = 5  # steps of a run that do not count


def step_times(folder, options, level):
    launcher = ["mpirun", "--oversubscribe", "-np", str(options.ranks)] if options.ranks > 1 else []
    keys = f"""data.format=FIBONACCI data.sequence_length=1024 model.vocab=256 model.layers=4 model.hidden=128 model.heads=8
        model.kv_heads=2 model.key_width=16 model.value_width=16 model.ffn=344 train.eval_interval=0 checkpoint.minutes=0
        checkpoint.at_end=false optimizer.warmup_steps=1 train.log_interval=100000 parallel.cp={options.ranks} name=run
        train.steps={options.steps + WARM_UP} profile.level={level} output={folder}""".split()
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_mpi_yield_when_idle="1")
    subprocess.run([*launcher, options.longspan, "train", "--overwrite", *keys, *options.keys], check=True, env=environment,
                   stdout=subprocess.DEVNULL)
    with open(f"{folder}/run/metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [line["ms"] for line in lines if line["kind"] == "step"][WARM_UP:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("longspan")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    options, options.keys = parser.parse_known_args()
    options.longspan = os.path.abspath(options.longspan)
    medians = {level: [] for level in LEVELS}
    shortest = {level: [] for level in LEVELS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for level in LEVELS:
                times = step_times(folder, options, level)
                medians[level].append(statistics.median(times))
                shortest[level].append(min(times))
    print(f"{options.ranks} ranks, {options.rounds} runs of {options.steps} steps of each, in turns")
    print(f"{'profile.level':<14}{'median ms':>12}{'over OFF':>10}{'best ms':>12}{'over OFF':>10}")
    for level in LEVELS:
        typical, best = statistics.median(medians[level]), min(shortest[level])
        over = [100 * (value / base - 1) for value, base in
                ((typical, statistics.median(medians["OFF"])), (best, min(shortest["OFF"])))]
        print(f"{level:<14}{typical:>12.2f}{over[0]:>9.2f}%{best:>12.2f}{over[1]:>9.2f}%")


main()
