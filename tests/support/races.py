"""Races of two processes into one destination: what each said, and whether what is there in the end is whole.

`python races.py COUNT` prints the outcomes of COUNT races of two `prepare` and of two `encode_dataset`.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from image_files import as_the_reference, pixels, write_zip

from diffspace.data import ImageZip, encode_dataset, load_data, prepare, verify


class Halves(torch.nn.Module):
    """An encoder that halves the values."""

    def encode(self, x):
        return x / 2

    def decode(self, x):
        return 2 * x


def at_the_same_time(works):
    """Run each in a process of its own; how it ended: "done", or the error."""
    start = time.monotonic() + 0.05
    readers, children = [], []
    for work in works:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            said = "a crash"
            try:
                while time.monotonic() < start:
                    pass
                work()
                said = "done"
            except ValueError as error:
                said = str(error)
            except BaseException as error:
                said = f"{type(error).__name__} {error}"
            finally:
                os.write(writer, said.encode()[:4000])
                os._exit(0)
        os.close(writer)
        readers.append(reader)
        children.append(child)
    said = []
    for reader, child in zip(readers, children, strict=True):
        with os.fdopen(reader) as file:
            said.append(file.read())
        os.waitpid(child, 0)
    return said


def race(folder, kind, overwrite):
    """One race: what the two said, and what is wrong in the end; one of them at least must have succeeded."""
    source = write_zip(folder / "in.zip", as_the_reference(pixels(30, 6, 6, 3), [0, 1, 2] * 10))
    target = folder / "out"

    def work(replace):
        if kind == "prepare":
            prepare(ImageZip(source), target, overwrite=replace)
        else:
            encode_dataset(ImageZip(source), Halves(), target, name="halves", overwrite=replace)

    if overwrite:
        work(False)
    said = at_the_same_time([lambda: work(overwrite)] * 2)
    wrong = []
    if "done" not in said:
        wrong.append("neither was done")
    for text in said:
        if text != "done" and not any(words in text for words in ("is being written", "exists already", "cannot be")):
            wrong.append(f"said {text!r}")
    try:
        if len(load_data(target)) != 30 or (kind == "prepare" and verify(target)):
            wrong.append("what is there is not whole")
    except (ValueError, OSError) as error:
        wrong.append(f"lost: {error}")
    left = {path.name for path in folder.iterdir()} - {"in.zip", "out"}
    if left:
        wrong.append(f"left {sorted(left)}")
    return said, wrong


def races(kind, count, overwrite=False):
    """The outcomes of `count` races: how many ended well, and what went wrong in the others."""
    outcomes = Counter()
    for _ in range(count):
        with tempfile.TemporaryDirectory() as name:
            said, wrong = race(Path(name), kind, overwrite)
        outcomes["; ".join(wrong) or f"whole, {said.count('done')} done"] += 1
    return outcomes


if __name__ == "__main__":
    for each in ("prepare", "encode"):
        for replacing in (False, True):
            print(each, "over an old one" if replacing else "", dict(races(each, int(sys.argv[1]), replacing)))
