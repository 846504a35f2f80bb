#!/usr/bin/env python3
"""Makes the selections of a trained model that selected-branch kernels are tuned by: of the 102M preset after 180 steps
of 65,536 bytes of this machine's text, in documents of 1 MiB, layers 0, 2, 5 and 11 as the four groups of one operator.

  tests/bench/trained_lists.py LONGSPAN OUT.safetensors [KEY=VALUE ...]       about two minutes on an H100

OUT is a selection file (launch/train/selection_file.h): "selected" [65536,4,16], one document. `longspan bench nsa
--selected OUT` times it. Keys are those of configs/run.proto, over the ones below. Only Python's own library is needed.
A line tells how alike neighbours choose; it compares with other models and other text.
"""
import argparse
import array
import gzip
import os
import random
import subprocess
import sys
import sysconfig
import tempfile

import tensor_files

DOCUMENT = 1 << 20  # bytes: sixteen sequences, so that none holds two documents
DOCUMENTS = 24
NONE = 65535
LAYERS = [0, 2, 5, 11]


def texts(folders):
    """The readable text files below `folders`, in an order drawn once."""
    paths = set()
    for folder in folders:
        for root, _, names in os.walk(folder):
            paths.update(os.path.join(root, name) for name in names)
    paths = sorted(paths)
    random.Random(1).shuffle(paths)
    for path in paths:
        try:
            if not os.path.isfile(path) or os.path.islink(path) or not 200 < os.path.getsize(path) < DOCUMENT:
                continue
            with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
                data = file.read()
            data.decode("utf-8")
        except (OSError, EOFError, UnicodeDecodeError, ValueError):
            continue
        if b"\0" not in data:
            yield data


def write_documents(folder, size, count):
    text = bytearray()
    for data in texts(["/usr/share/doc", "/usr/include", "/usr/lib/python3", sysconfig.get_path("purelib")]):
        text += data
        if len(text) >= size * count:
            break
    count = min(count, len(text) // size)
    for i in range(count):
        with open(os.path.join(folder, f"{i:03}.txt"), "wb") as file:
            file.write(text[i * size : (i + 1) * size])
    return count


def alikeness(blocks, count):
    """Of neighbours among the later half of the queries: Jaccard index, and the union of 8. blocks [S,N]."""
    queries = len(blocks) // count
    sets = [set(blocks[t * count : (t + 1) * count]) - {NONE} for t in range(queries // 2, queries)]
    jaccard = [len(a & b) / len(a | b) for a, b in zip(sets, sets[1:])]
    unions = [len(set().union(*sets[t : t + 8])) for t in range(0, len(sets) - 7, 8)]
    return sum(jaccard) / max(1, len(jaccard)), sum(unions) / max(1, len(unions))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("longspan")
    parser.add_argument("out")
    parser.add_argument("--layers", type=lambda text: [int(x) for x in text.split(",")], default=LAYERS)
    parser.add_argument("--document", type=int, default=DOCUMENT, help="bytes")
    parser.add_argument("keys", nargs="*")
    args = parser.parse_intermixed_args()
    config = os.path.join(os.path.dirname(__file__), "../../configs/nsa_102m.textproto")
    with tempfile.TemporaryDirectory() as folder:
        text = os.path.join(folder, "text")
        os.mkdir(text)
        count = write_documents(text, args.document, DOCUMENTS)
        print(f"text: {count} documents of {args.document} bytes", flush=True)
        dataset, recorded = os.path.join(folder, "data"), os.path.join(folder, "recorded")
        subprocess.run([args.longspan, "data", "--output", dataset, text], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(
            [args.longspan, "train", "--config", config, f"data.train={dataset}", f"output={folder}", "train.steps=180",
             "optimizer.warmup_steps=18", "train.sequences_per_step=1", "train.eval_interval=0", "train.eval_sequences=0",
             "train.log_interval=30", f"train.record_selection={recorded}", *args.keys],
            check=True)
        metadata, tensors = tensor_files.read(recorded)

    sequence = min(int(name.split(".")[1]) for name in tensors)
    groups = []  # [S,N] each
    for layer in args.layers:
        dtype, (length, kv_heads, chosen), data = tensors[f"sequences.{sequence}.layers.{layer}.selected"]
        if dtype != "U16" or kv_heads != 1 or sys.byteorder != "little":
            sys.exit(f"layer {layer}: expected U16 [S,1,N], found {dtype} {[length, kv_heads, chosen]}")
        groups.append(array.array("H", data))
        print("layer %d: Jaccard index of neighbours %.3f, union of 8 %.1f blocks" % (layer, *alikeness(groups[-1], chosen)))
    merged = array.array("H")
    for t in range(length):
        for blocks in groups:
            merged += blocks[t * chosen : (t + 1) * chosen]
    metadata["layers"] = ",".join(map(str, args.layers))
    tensor_files.write(args.out, {"selected": ("U16", [length, len(groups), chosen], merged.tobytes())}, metadata)
    print(f"{args.out}: selected [{length},{len(groups)},{chosen}], {os.path.getsize(args.out)} bytes")


if __name__ == "__main__":
    main()
