"""What a run's profile costs its steps: the quickstart's model, or that of a configuration, with profile.level OFF, STEPS and
FULL, in turns, in one table. Of STEPS the mean counts: some steps are recorded in full detail, and where steps are CUDA graphs
some are not, for the profile's sake.

profile_overhead.py LONGSPAN [--config FILE] [--ranks N] [--rounds N] [--steps N] [--levels OFF,STEPS] [key.path=value ...]"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

WARM_UP = 5  # steps of a run that do not count
SMALL = """data.sequence_length=1024 model.vocab=256 model.layers=4 model.hidden=128 model.heads=8 model.kv_heads=2 model.key_width=16
    model.value_width=16 model.ffn=344"""


def step_times(folder, options, level):
    launcher = ["mpirun", "--oversubscribe", "-np", str(options.ranks)] if options.ranks > 1 else []
    model = ["--config", options.config] if options.config else SMALL.split()
    keys = f"""data.format=FIBONACCI train.eval_interval=0 checkpoint.minutes=0 checkpoint.at_end=false optimizer.warmup_steps=1
        train.log_interval=100000 parallel.cp={options.ranks} name=run train.steps={options.steps + WARM_UP} profile.level={level}
        output={folder}""".split()
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_mpi_yield_when_idle="1")
    subprocess.run([*launcher, options.longspan, "train", "--overwrite", *model, *keys, *options.keys], check=True, env=environment,
                   stdout=subprocess.DEVNULL)
    with open(f"{folder}/run/metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [line["ms"] for line in lines if line["kind"] == "step"][WARM_UP:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("longspan")
    parser.add_argument("--config")
    parser.add_argument("--levels", default="OFF,STEPS,FULL")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    options, options.keys = parser.parse_known_args()
    options.longspan = os.path.abspath(options.longspan)
    levels = options.levels.split(",")
    runs = {level: [] for level in levels}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for level in levels:
                runs[level].append(step_times(folder, options, level))
    figures = {level: (min(map(statistics.mean, of)), statistics.median(map(statistics.median, of)), min(map(min, of)))
               for level, of in runs.items()}
    print(f"{options.ranks} ranks, {options.rounds} runs of {options.steps} steps of each, in turns: mean of the fastest run, "
          "median, fastest step")
    print(f"{'profile.level':<14}" + "".join(f"{name:>12}{'over ' + levels[0]:>11}" for name in ("mean ms", "median ms", "best ms")))
    for level in levels:
        print(f"{level:<14}" + "".join(f"{value:>12.2f}{100 * (value / base - 1):>10.2f}%"
                                       for value, base in zip(figures[level], figures[levels[0]])))


main()
