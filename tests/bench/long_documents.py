#!/usr/bin/env python3
"""Makes long documents of a source tree, for training on long sequences: files of neighbouring folders one behind the
other, each under a line with its path, cut where a folder ends.

  tests/bench/long_documents.py FOLDER OUT [--include PATTERN ...] [--megabytes 125] [--held-out 8]

Writes OUT/train and OUT/held_out, which `longspan data` reads; what goes where is drawn once, by documents, so that no
folder is in both. Files of more than --largest bytes (tables that tools wrote) and what is no UTF-8 are left out.
"""
import argparse
import fnmatch
import os
import random


def files(folder, patterns, largest):
    """(folder, path, text) of the files below, folder by folder."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns) or os.path.islink(path):
                continue
            if 0 < os.path.getsize(path) <= largest:
                try:
                    with open(path, encoding="utf-8") as file:
                        yield root, os.path.relpath(path, folder), file.read()
                except UnicodeDecodeError:
                    continue


def documents(texts, least, most):
    """Texts of `least` characters or more: cut where a folder ends, or behind the file that passes `most`."""
    parts, size, last = [], 0, None
    for root, path, text in texts:
        if size >= most or (root != last and size >= least):
            yield "".join(parts)
            parts, size = [], 0
        parts += [f"// {path}\n", text, "\n"]
        size += len(text)
        last = root
    if size >= least:
        yield "".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--include", nargs="+", default=["*.c", "*.h", "*.cc", "*.cpp", "*.py"])
    parser.add_argument("--megabytes", type=float, default=125, help="of text in OUT/train, where there is so much")
    parser.add_argument("--held-out", type=float, default=8, help="megabytes of text in OUT/held_out, at most a tenth of all")
    parser.add_argument("--least", type=int, default=400_000, help="characters of a document")
    parser.add_argument("--most", type=int, default=2_000_000, help="characters after which a document is cut")
    parser.add_argument("--largest", type=int, default=150_000, help="bytes of a file")
    args = parser.parse_args()
    found = list(documents(files(args.folder, args.include, args.largest), args.least, args.most))
    random.Random(1).shuffle(found)
    total = sum(map(len, found)) / 1e6
    for name, megabytes in (("held_out", min(args.held_out, total / 10)), ("train", args.megabytes)):
        folder = os.path.join(args.out, name)
        os.makedirs(folder)
        count = size = 0
        while found and size < megabytes * 1e6:
            text = found.pop()
            with open(os.path.join(folder, f"{count:04}.txt"), "w", encoding="utf-8") as file:
                file.write(text)
            size += len(text)
            count += 1
        print(f"{folder}: {count} documents, {size / 1e6:.1f} M characters")


if __name__ == "__main__":
    main()
