#!/usr/bin/env python3
"""Longspan's attention beside PyTorch's and that of public NSA packages, in one run on one GPU.

  tests/bench/compare_torch.py LONGSPAN [--peers FOLDER ...] [--tokens 8192,65536] [--shape 64,4,128,128]

The C library beside the program is one of those compared: nsa_forward and nsa_backward on PyTorch's memory.

First the outputs and gradients of every stage that an entrant has (tests/bench/entrants.py) are compared with those of
`longspan attention` on the same tensors; then all are timed in turns, Longspan by `bench nsa --json`, on the same lists
of blocks: random ones, or --selected's, of which only the selected branch is then compared. Prints tables; OUT gets
compare.json and compare.svg. Packages that cannot be imported are named and left out. The exit code is 1 when
PyTorch's own dense and window attention, or the library, disagree with Longspan's.
"""
import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import warnings

import entrants as public
import tensor_files
import torch

CLOSE = 0.02  # RMS of the difference over RMS: both sides round to bf16
STAGES = ["full", "window", "compressed", "selected", "whole"]
GATE = {"compressed": 0, "selected": 1, "window": 2, "full": 2}


def random_inputs(tokens, shape, selected=None):
    heads, groups, key_width, value_width = shape
    torch.manual_seed(1)

    def normal(*size):
        return torch.randn(*size, device="cuda", dtype=torch.bfloat16)

    if selected is None:
        selected = random_selection(tokens, groups)
    return public.Inputs(normal(tokens, heads, key_width), normal(tokens, groups, key_width),
                         normal(tokens, groups, value_width), normal(tokens, heads, 3),
                         normal(tokens, heads, value_width), selected)


def random_selection(tokens, groups):
    """[S,G,N] int32: the forced blocks and others at random, ascending, padded with -1."""
    unit, parts = public.SELECT_BLOCK, []
    blocks = torch.arange(-(-tokens // unit), device="cuda")
    for begin in range(0, tokens, 4096):
        own = (torch.arange(begin, min(begin + 4096, tokens), device="cuda") // unit)[:, None, None]
        score = torch.rand(own.shape[0], groups, len(blocks), device="cuda")
        score = torch.where((blocks < public.INIT) | (blocks > own - public.LOCAL), 2.0, score)
        score = torch.where(blocks > own, -1.0, score)
        best = score.topk(min(public.SELECT, len(blocks)), dim=-1)
        chosen = torch.where(best.values < 0, len(blocks), best.indices).sort(dim=-1).values
        chosen = torch.where(chosen == len(blocks), -1, chosen)
        parts.append(torch.nn.functional.pad(chosen, (0, public.SELECT - chosen.shape[-1]), value=-1).int())
    return torch.cat(parts)


TYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "I32": torch.int32, "U16": torch.uint16}


def to_bytes(x):
    x = x.cpu().contiguous()
    dtype = next(name for name, type in TYPES.items() if type == x.dtype)
    return dtype, list(x.shape), x.view(torch.uint8).numpy().tobytes()


def from_bytes(entry):
    dtype, shape, data = entry
    return torch.frombuffer(bytearray(data), dtype=TYPES[dtype]).view(*shape).cuda()


def write_selection(path, selected):
    tensor_files.write(path, {"selected": to_bytes(selected)}, {"select_block": str(public.SELECT_BLOCK)})


def read_selection(path):
    selected = from_bytes(tensor_files.read(path)[1]["selected"]).int()
    return torch.where(selected == 65535, -1, selected)


def reason(error):
    """In one line; compilers say it last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[-1]}"[:160]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


class Comparison:
    def __init__(self, args):
        self.args = args
        self.entrants, self.absent = public.public_entrants(args.without)
        if os.path.exists(args.libnsa):
            self.entrants.insert(0, public.nsa_entrant(args.libnsa))
        else:
            self.absent["libnsa"] = f"there is no {args.libnsa}"
        self.entrants = public.torch_entrants() + self.entrants
        self.stages = ["selected"] if args.selected else args.stages
        self.found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                      "triton": importlib.metadata.version("triton"), "absent": self.absent, "agreement": [], "times": []}

    def path(self, name):
        return os.path.join(self.args.out, name)

    # ---- Agreement ------------------------------------------------------------------------------------------------

    def longspan(self, stage, inputs):
        """`longspan attention`'s output and gradients, of one branch or of all."""
        gates = torch.sigmoid(inputs.logits.float()).bfloat16()
        if stage != "whole":
            gates = torch.zeros_like(gates)
            gates[:, :, GATE[stage]] = 1
        tensors = {"q": inputs.q, "k": inputs.k, "v": inputs.v, "gates": gates, "d_out": inputs.d_out}
        metadata = {"phi": "MEAN", "window": str(inputs.tokens if stage == "full" else public.WINDOW)}
        case, out = self.path("case.safetensors"), self.path("out.safetensors")
        entries = {"selected": to_bytes(inputs.selected)} if stage == "selected" else {}
        entries.update({name: to_bytes(x) for name, x in tensors.items()})
        tensor_files.write(case, entries, metadata)
        run([self.args.longspan, "attention", "--device", "gpu", "--case", case, "--out", out])
        results = tensor_files.read(out)[1]
        os.remove(case)
        os.remove(out)
        return [from_bytes(results[name]) for name in ("out", "d_q", "d_k", "d_v")]

    def agree(self):
        """Compares every entrant at a length that files are quickly written of. True when PyTorch's own agree."""
        inputs = random_inputs(self.args.check_tokens, self.args.shape[0])
        good = True
        print(f"\nagreement at {self.args.check_tokens} tokens: RMS of the difference over RMS")
        print(f"  {'stage':<12}{'entrant':<26}{'out':>10}{'d_q':>10}{'d_k':>10}{'d_v':>10}")
        for stage in self.stages:
            ours = None
            for entrant in [x for x in self.entrants if x.stage == stage]:
                ours = ours or self.longspan(stage, inputs)
                row = {"stage": stage, "entrant": entrant.name}
                try:
                    forward, backward = entrant.start(inputs)
                    theirs = [forward(), *backward()]
                    row["ratios"] = [((a.float() - b.float()).square().mean() / b.float().square().mean()).sqrt().item()
                                     for a, b in zip(theirs, ours)]
                    row["agrees"] = all(ratio < CLOSE for ratio in row["ratios"])
                    text = "".join(f"{ratio:>10.2e}" for ratio in row["ratios"])
                except Exception as error:
                    row.update(error=reason(error), agrees=False)
                    text = "  " + row["error"]
                print(f"  {stage:<12}{entrant.name:<26}{text}{'' if row['agrees'] else '  OFF'}", flush=True)
                self.found["agreement"].append(row)
                good = good and (row["agrees"] or entrant.name in public.PUBLIC)
        return good

    # ---- Times ----------------------------------------------------------------------------------------------------

    def median_ms(self, work):
        work()
        times = []
        for _ in range(self.args.runs):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        return statistics.median(times)

    def bench(self, tokens, shape, full):
        """{(stage, direction): ms, or why it was refused} and the rates of the device."""
        result = self.path("bench.json")
        run([self.args.longspan, "bench", "nsa", "--device", "gpu", "--tokens", str(tokens), "--shape",
             ",".join(map(str, shape)), "--phi", "MEAN", "--selected", self.path("lists.safetensors"), "--runs",
             str(self.args.runs), "--json", result] + (["--full"] if full else []))
        with open(result) as file:
            found = json.load(file)
        os.remove(result)
        self.found["longspan"] = found["version"]
        case = found["cases"][0]
        if "error" in case:
            sys.exit(f"longspan: S={tokens} H,G,K,V={shape}: {case['error']}")
        return {(s["name"], s["direction"]): s.get("ms", s.get("error")) for s in case["stages"]}, case

    def time_entrant(self, entrant, inputs):
        """{direction: ms}; why not, when it cannot."""
        try:
            forward, backward = entrant.start(inputs)
            times = {"forward": self.median_ms(forward)}
            times["backward"] = self.median_ms(backward)
            return times
        except Exception as error:
            return reason(error)
        finally:
            torch.cuda.empty_cache()

    def time(self, tokens, shape):
        selected = read_selection(self.args.selected) if self.args.selected else None
        inputs = random_inputs(tokens, shape, selected)
        write_selection(self.path("lists.safetensors"), inputs.selected)
        taking_part = [x for x in self.entrants if x.stage in self.stages]
        full = any(x.stage == "full" for x in taking_part)
        ours, theirs = [], {}
        for _ in range(self.args.rounds):
            torch.cuda.empty_cache()
            times, case = self.bench(tokens, shape, full)
            ours.append(times)
            for entrant in taking_part:
                theirs.setdefault((entrant.name, entrant.stage), []).append(self.time_entrant(entrant, inputs))
        os.remove(self.path("lists.safetensors"))
        print(f"\nS={tokens} H,G,K,V={shape}: {self.args.selected or 'random blocks'}, "
              f"{case['union_of_8']:.1f} by 8 neighbours; kernels {case['kernels']}; matrix products "
              f"{case['matmul_tflops']:.0f} TFLOP/s")
        print(f"  {'stage':<12}{'entrant':<26}{'forward ms':>12}{'ratio':>8}{'backward ms':>13}{'ratio':>8}")
        # A peer's compressed branch pools its keys; ours is two stages.
        parts = {"compressed": ["compress", "compressed"]}
        for stage in self.stages:
            row = {"tokens": tokens, "shape": shape, "stage": stage, "entrant": "longspan", "times": {}}
            for direction in ("forward", "backward"):
                found = [[times.get((part, direction), "not measured") for part in parts.get(stage, [stage])] for times in ours]
                refused = [ms for turn in found for ms in turn if isinstance(ms, str)]
                if refused:
                    row["error"] = refused[0]
                else:
                    row["times"][direction] = statistics.median(map(sum, found))
            self.add_times(row, row["times"])
            for entrant in [x for x in taking_part if x.stage == stage]:
                rounds = theirs[entrant.name, entrant.stage]
                other = {"tokens": tokens, "shape": shape, "stage": stage, "entrant": entrant.name, "note": entrant.note}
                failed = [r for r in rounds if isinstance(r, str)]
                if failed:
                    other["error"] = failed[0]
                else:
                    other["times"] = {d: statistics.median(r[d] for r in rounds) for d in ("forward", "backward")}
                self.add_times(other, row["times"])

    def add_times(self, row, ours):
        self.found["times"].append(row)
        if "error" in row:
            print(f"  {row['stage']:<12}{row['entrant']:<26}  {row['error']}")
            return
        row["ratios"] = {d: row["times"][d] / ours[d] for d in ours}
        values = [row[part].get(d, float("nan")) for d in ("forward", "backward") for part in ("times", "ratios")]
        print("  {:<12}{:<26}{:>12.3f}{:>8.2f}{:>13.3f}{:>8.2f}".format(row["stage"], row["entrant"], *values), flush=True)

    # ---- Results --------------------------------------------------------------------------------------------------

    def plot(self):
        """Bars of the times, forward and backward side by side, each stage by its slowest."""
        rows, y, bars = [r for r in self.found["times"] if "times" in r], 30, []
        longest = {}
        for row in rows:
            key = (row["tokens"], str(row["shape"]), row["stage"])
            longest[key] = max(longest.get(key, 0), *row["times"].values())
        before = None
        for row in rows:
            key = (row["tokens"], str(row["shape"]), row["stage"])
            if key != before:
                y += 12
                bars.append(f'<text x="10" y="{y + 12}" font-weight="bold">{row["stage"]}, S={row["tokens"]}, '
                            f'H,G,K,V={",".join(map(str, row["shape"]))}</text>')
                y, before = y + 20, key
            bars.append(f'<text x="20" y="{y + 12}">{row["entrant"]}</text>')
            for x, direction, colour in ((190, "forward", "#3b6ea5"), (560, "backward", "#b5651d")):
                ms, shade = row["times"][direction], 1 if row["entrant"] == "longspan" else 0.5
                bars.append(f'<rect x="{x}" y="{y + 2}" width="{260 * ms / longest[key]:.1f}" height="12" fill="{colour}" '
                            f'fill-opacity="{shade}"/><text x="{x + 5 + 260 * ms / longest[key]:.1f}" y="{y + 12}">'
                            f'{ms:.2f}</text>')
            y += 17
        head = f'{self.found["device"]}: ms, forward (left) and backward (right); lower is better'
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{y + 20}" font-family="sans-serif" '
                f'font-size="11"><rect width="100%" height="100%" fill="white"/><text x="10" y="18" font-size="13">{head}'
                f'</text>{"".join(bars)}</svg>\n')

    def write(self):
        with open(self.path("compare.json"), "w") as file:
            json.dump(self.found, file, indent=1)
        with open(self.path("compare.svg"), "w") as file:
            file.write(self.plot())


def numbers(text):
    return [int(x) for x in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("longspan", help="the program")
    parser.add_argument("--libnsa", help="the C library; that beside the program")
    parser.add_argument("--peers", nargs="*", default=[], help="folders that hold public packages")
    parser.add_argument("--without", nargs="*", default=[], help="public packages to leave out")
    parser.add_argument("--tokens", type=numbers, default=[8192, 65536])
    parser.add_argument("--shape", type=numbers, action="append", help="H,G,K,V; may be repeated")
    parser.add_argument("--stages", nargs="*", default=STAGES, choices=STAGES)
    parser.add_argument("--selected", help="selection file, for its length")
    parser.add_argument("--check-tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3, help="turns")
    parser.add_argument("--runs", type=int, default=7, help="of each in a turn, whose median counts")
    parser.add_argument("--out", default=".", help="folder")
    args = parser.parse_args()
    args.shape = args.shape or [[64, 4, 128, 128]]
    args.libnsa = os.path.abspath(args.libnsa or os.path.join(os.path.dirname(args.longspan), "libnsa.so.0"))
    os.makedirs(args.out, exist_ok=True)
    sys.path[:0] = args.peers
    warnings.simplefilter("ignore")  # the packages' own
    if args.selected:
        args.tokens = [read_selection(args.selected).shape[0]]
    comparison = Comparison(args)
    print(f"{comparison.found['device']}, PyTorch {torch.__version__}")
    for name, why in comparison.absent.items():
        print(f"  without {name}: {why}")
    good = comparison.agree()
    for shape in args.shape:
        for tokens in args.tokens:
            comparison.time(tokens, shape)
    comparison.write()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
