"""Memory and time of the features of many samples: written by batch, read back, their moments and Fréchet distance.

`python benchmarks/evaluation_scale.py --n 50000 --dim 2048` writes features of noise as `diffspace evaluate` does, to a
temporary folder, once as one process would and once as two would, of which one is stopped half-way and goes on.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from diffspace.metrics import FeatureStatistics, frechet_distance
from diffspace.metrics.feature_files import Batches, FeatureFiles

MOST_BYTES = 1.5 * 2**30


def batch_of(number: int, batches: Batches, dim: int, shift: float) -> torch.Tensor:
    """Correlated features of a batch, from its own seed."""
    rows = len(batches.rows(number))
    noise = torch.randn(rows, dim, generator=torch.Generator().manual_seed(number), dtype=torch.float32)
    return noise + 0.5 * noise.roll(1, 1) + shift


def write(folder: Path, batches: Batches, dim: int, shift: float, stop: int | None = None) -> torch.Tensor | None:
    """Append the batches that are missing, up to one; all features, if none is missing then."""
    with FeatureFiles(folder, {"shift": shift}, batches) as files:
        for number in files.missing:
            if number == stop:
                return None
            files.add(number, {"features": batch_of(number, batches, dim, shift)})
        return files.read()["features"]


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the time of a block, and the memory that the process has had at most."""
    begun = time.perf_counter()
    yield
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{what:44s} {time.perf_counter() - begun:7.1f} s   {used / 2**30:5.2f} GiB at most so far", flush=True)


def main() -> None:
    """Measure, and compare the two ways to the same features."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=250)
    options = parser.parse_args()
    batches = Batches(options.n, options.batch)
    print(f"{options.n} x {options.dim} features, torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as name:
        with timed("features written, and read through a map"):
            whole = write(Path(name) / "whole", batches, options.dim, 0.0)
        with timed("the same, stopped half-way and gone on with"):
            write(Path(name) / "stopped", batches, options.dim, 0.0, stop=len(batches) // 2)
            again = write(Path(name) / "stopped", batches, options.dim, 0.0)
        if whole is None or again is None:
            raise RuntimeError("features are missing")
        with timed("moments in float64"):
            statistics = FeatureStatistics.of(whole)
        with timed("moments of the others"):
            others = FeatureStatistics.of(again)
        same = torch.equal(statistics.mean, others.mean) and torch.equal(statistics.scatter, others.scatter)
        print(f"the moments are {'the same bits' if same else 'NOT the same'}")
        shifted = FeatureStatistics(statistics.n, statistics.mean + 0.1, statistics.scatter)
        with timed("Fréchet distance"):
            distance = frechet_distance(statistics, shifted)
        expected = 0.01 * options.dim
        print(f"Fréchet distance {distance:.9g}, of a shift by 0.1 in closed form {expected:.9g}")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"resident at most: {used / 2**30:.2f} GiB, {'within' if used < MOST_BYTES else 'MORE THAN'} 1.5 GiB")


if __name__ == "__main__":
    main()
