#!/usr/bin/env python3
"""What tests/real_run.sh left in a folder, as figures.md, figures.json and curves.svg there.

  tests/bench/run_figures.py FOLDER

Parts that have not run are left out.
"""
import glob
import json
import os
import statistics
import sys

NAMES = ["nsa", "full"]
COLOURS = {"nsa": "#3b6ea5", "full": "#b5651d"}


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def read_run(folder):
    """What metrics.jsonl says: of steps that were done again, the second time."""
    run = {"curve": [], "evals": [], "resumed": [], "speed": [], "memory": 0, "tokens": 0, "selection": []}
    with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
        for line in map(json.loads, file):
            if line["kind"] == "step":
                run["curve"].append([line["step"], line["loss"]])
                run["speed"].append(line["tokens_per_second"])
                run["memory"] = max(run["memory"], line["memory_mib"])
                run["tokens"] += line["tokens"]
                run["seconds"] = line["elapsed"]
            elif line["kind"] == "eval":
                run["evals"].append([line["step"], line["loss"]])
            elif line["kind"] == "resume" and line["after"] > 0:
                run["resumed"].append(line["after"])
            elif line["kind"] == "selection":
                run["selection"] = line["layers"]
            if line["kind"] in ("start", "resume"):
                run.update({key: line[key] for key in ("device", "dtype", "ranks", "parameters")})
    run["speed"] = statistics.median(run["speed"][10:] or run["speed"])
    return run


def table(head, rows):
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]] + [""]


def span(begin, end):
    return f"{begin:,} to {end:,}"


def curve_rows(runs, parts=12):
    """Means of the training loss over parts of the steps."""
    last = min(run["curve"][-1][0] for run in runs.values())
    ends = [last * (i + 1) // parts for i in range(parts)]
    for begin, end in zip([0, *ends], ends):
        losses = [[loss for step, loss in run["curve"] if begin < step <= end] for run in runs.values()]
        if all(losses):
            yield [span(begin + 1, end), *(f"{statistics.mean(x):.3f}" for x in losses)]


def markdown(found):
    runs, lines = found["runs"], []
    if runs:
        lines += table(
            ["run", "device", "parameters", "steps", "tokens", "minutes", "resumed after", "tokens/s, median", "MiB a rank"],
            [[name, f"{run['ranks']} x {run['device']}, {run['dtype']}", f"{run['parameters']:,}", str(run["curve"][-1][0]),
              f"{run['tokens']:,}", f"{run['seconds'] / 60:.1f}", ", ".join(map(str, run["resumed"])), f"{run['speed']:,.0f}",
              f"{run['memory']:,.0f}"] for name, run in runs.items()])
        lines += table(["steps, mean training loss", *runs], curve_rows(runs))
        if any(run["evals"] for run in runs.values()):
            steps = sorted(set.intersection(*({s for s, _ in run["evals"]} for run in runs.values())))
            lines += table(["after step, held-out loss", *runs],
                           [[str(s), *(f"{dict(run['evals'])[s]:.3f}" for run in runs.values())] for s in steps])
    for length, evals in sorted(found["evals"].items()):
        rows = [[f"all {next(iter(evals.values()))['labels']:,} labels", *(f"{e['loss']:.4f}" for e in evals.values())]]
        for buckets in zip(*(e["positions"] for e in evals.values())):
            rows.append([span(buckets[0]["begin"], buckets[0]["end"]),
                         *("" if b["loss"] is None else f"{b['loss']:.4f}" for b in buckets)])
        lines += table([f"held-out loss at positions, sequences of {length:,}", *evals], rows)
    for layers in (run["selection"] for run in runs.values() if run["selection"]):
        lines += table(["layer", "distinct blocks", "of all", "Jaccard index", "hottest block", "union of 2", "4", "8"],
                       [[str(x["layer"]), f"{x['distinct_blocks']:.0f}", f"{x['distinct_share']:.1%}", f"{x['jaccard']:.3f}",
                         f"{x['hottest']:.1%}", *(f"{x['union_%d' % n]:.1f}" for n in (2, 4, 8))] for x in layers])
    return "\n".join(lines)


def panel(left, title, curves, ticks):
    """One plot of 400 x 300: curves {name: [(x from 0 to 1, y)]}, ticks [(x, text)]."""
    values = [y for points in curves.values() for _, y in points]
    low, high = min(values), max(values)
    scale = 250 / max(high - low, 1e-9)
    place = lambda x, y: f"{left + 50 + 340 * x:.1f},{30 + (high - y) * scale:.1f}"
    parts = [f'<text x="{left + 50}" y="18" font-size="13">{title}</text>',
             f'<path d="M{left + 50} 30V280H{left + 390}" fill="none" stroke="black"/>']
    for i in range(5):
        y = low + (high - low) * i / 4
        parts.append(f'<text x="{left + 44}" y="{34 + (high - y) * scale:.1f}" text-anchor="end">{y:.2f}</text>')
    parts += [f'<text x="{left + 50 + 340 * x:.1f}" y="296" text-anchor="middle">{text}</text>' for x, text in ticks]
    for i, (name, points) in enumerate(curves.items()):
        parts.append(f'<polyline points="{" ".join(place(*p) for p in points)}" fill="none" stroke="{COLOURS[name]}" '
                     f'stroke-width="1.5"/><text x="{left + 340}" y="{50 + 16 * i}" fill="{COLOURS[name]}">{name}</text>')
    return "".join(parts)


def smoothed(curve, width=10):
    return [(step, statistics.mean(loss for _, loss in curve[max(0, i - width + 1) : i + 1]))
            for i, (step, loss) in enumerate(curve)]


def plot(found):
    """The training losses behind the first twentieth of the steps, means of ten, and the held-out loss by position."""
    last = max(run["curve"][-1][0] for run in found["runs"].values())
    curves = {name: [(step / last, loss) for step, loss in smoothed(run["curve"]) if step > last / 20] for name, run in found["runs"].items()}
    panels = [panel(0, "training loss by step", curves, [(i / 4, f"{last * i // 4}") for i in range(5)])]
    evals = found["evals"].get(max(found["evals"], default=0), {})
    evals = {name: [b for b in e["positions"] if b["loss"] is not None] for name, e in evals.items() if name in NAMES}
    if evals:
        count = max(map(len, evals.values()))
        curves = {name: [((i + 0.5) / count, b["loss"]) for i, b in enumerate(e)] for name, e in evals.items()}
        ends = next(iter(evals.values()))
        ticks = [((i + 0.5) / count, f"{b['end']:,}") for i, b in enumerate(ends)][count % 2 :: 2]
        panels.append(panel(440, "held-out loss by position in the document, up to", curves, ticks))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="310" font-family="sans-serif" font-size="11">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n')


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = sys.argv[1]
    found = {"runs": {}, "evals": {}}
    for name in NAMES:
        if os.path.exists(os.path.join(folder, name, "metrics.jsonl")):
            found["runs"][name] = read_run(os.path.join(folder, name))
    for name in [*NAMES, "imported", "imported-trained"]:
        for path in glob.glob(os.path.join(folder, name + ".[0-9]*.json")):
            length = int(os.path.basename(path).split(".")[1])
            found["evals"].setdefault(length, {})[name] = read_json(path)
    text = markdown(found)
    written = {"figures.md": text, "figures.json": json.dumps(found, indent=1) + "\n"}
    if found["runs"]:
        written["curves.svg"] = plot(found)
    for name, content in written.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(content)
    print(text)


if __name__ == "__main__":
    main()
