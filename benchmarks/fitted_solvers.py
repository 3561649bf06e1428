"""What `fit_solver` gains over the best solver that needs no fit, on several problems and sets of seeds.

    python benchmarks/fitted_solvers.py --out fitted.jsonl            # goes on where it was stopped
    python benchmarks/fitted_solvers.py --out fitted.jsonl --print    # the table in Markdown alone

For each problem and set of seeds the paths of calibration seeds and the end points of others, four times as many, make
one solver for each budget. It is judged on seeds that neither has seen, beside *every* solver that needs no fit; the
best of these on those very seeds is taken: nobody could choose better. A cell is the RMS of the fitted solver as a
share of that one's, the median over the sets of seeds and the worst; above 1 the fit is worse. The last column counts
cells that are worse by more than two standard errors of the difference of squared errors of the same samples.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from diffspace.data import load_data, named_oracle
from diffspace.oracles import FiniteData, GaussianMixture
from diffspace.protocols import Denoiser
from diffspace.sampling import Execution, initial_latents, sample
from diffspace.solverlab import (
    REFERENCE_SAMPLER,
    Reference,
    compare_solvers,
    default_samplers,
    moments,
    reference,
    search_solver,
)
from diffspace.solverlab.end_points import mean_squares

BUDGETS = (4, 5, 8, 12, 20)
_FINE, _COARSE = REFERENCE_SAMPLER.with_num_steps(200), REFERENCE_SAMPLER.with_num_steps(100)
_UNSEEN, _APART = 900_000, 20_000


def _normal(first: int, count: int, *shape: int) -> torch.Tensor:
    return initial_latents(range(first, first + count), shape).double()


def mixture() -> GaussianMixture:
    """Twelve Gaussians in eight dimensions with means N(0, 1) and spreads of 0.1 to 0.5."""
    return GaussianMixture(_normal(7_000, 12, 8), 0.1 + 0.4 * torch.special.ndtr(_normal(7_100, 12, 1)).flatten())


def scales() -> GaussianMixture:
    """Four modes in one dimension, whose widths differ by 30."""
    means = torch.tensor([[-1.5], [-0.2], [0.1], [1.2]], dtype=torch.float64)
    return GaussianMixture(means, torch.tensor([0.3, 0.01, 0.05, 0.1], dtype=torch.float64))


def narrow() -> GaussianMixture:
    """200 modes of width 0.02 in the plane."""
    return GaussianMixture(_normal(8_000, 200, 2), torch.full((200,), 0.02, dtype=torch.float64))


def low_rank() -> GaussianMixture:
    """Five modes in 48 dimensions near planes of six, with a small width in all others, as images have."""
    axes = torch.linalg.qr(_normal(9_000, 48, 48))[0][:, :6]
    variances = torch.tensor([1.0, 0.5, 0.3, 0.2, 0.1, 0.05], dtype=torch.float64)
    covariance = axes @ variances.diag() @ axes.T + 1e-3 * torch.eye(48, dtype=torch.float64)
    means = 0.5 * _normal(9_100, 5, 6) @ axes.T
    return GaussianMixture(means, covariances=covariance.expand(5, 48, 48).contiguous())


def points() -> FiniteData:
    """320 points of a swiss roll."""
    training = load_data("swissroll", n=400).split()[0]
    return FiniteData(training.batch(torch.arange(len(training))))


PROBLEMS = {
    "ring": lambda: named_oracle("ring"),
    "mixture in 8-D": mixture,
    "low rank in 48-D": low_rank,
    "scales in 1-D": scales,
    "narrow modes in 2-D": narrow,
    "finite swiss roll": points,
}


def cells(name: str, done: set[tuple[str, int, int]], options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """One record for each set of seeds and budget that is missing."""
    missing = [(k, n) for k in range(options.sets) for n in BUDGETS if (name, k, n) not in done]
    if not missing:
        return
    denoiser = PROBLEMS[name]()
    new = reference(denoiser, seeds=range(_UNSEEN, _UNSEEN + options.unseen), sampler=_FINE)
    budgets = sorted({n for _, n in missing})
    known = compare_solvers(denoiser, new, default_samplers(*moments(new)), budgets)
    for k in sorted({k for k, _ in missing}):
        seeds, others = _APART * (k + 1), _APART * (k + 1) + 5_000
        fine = Execution(trajectory=True)
        truth = reference(denoiser, seeds=range(seeds, seeds + options.calibration), sampler=_FINE, execution=fine)
        ends = reference(denoiser, seeds=range(others, others + 4 * options.calibration), sampler=_COARSE)
        for n in [n for other, n in missing if other == k]:
            best = known.within(n)[0]
            yield {"problem": name, "set": k, "budget": n, **_judged(denoiser, n, truth, ends, new, best.squares)}


def _judged(
    denoiser: Denoiser, budget: int, truth: Reference, ends: Reference, new: Reference, best: torch.Tensor
) -> dict[str, object]:
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = search_solver(denoiser, budget, truth, validation=ends)
    seconds = time.process_time() - began
    squares = mean_squares(sample(denoiser, latents=new.latents, sampler=found.sampler).x - new.x)
    excess = squares - best
    return {
        "choice": found.choice.name,
        "rms": float((squares.mean() / best.mean()).sqrt()),
        "median": float((squares.median() / best.median()).sqrt()),
        "worse_by": float(excess.mean() / (excess.std() / math.sqrt(len(excess)))),
        "seconds": seconds,
    }


def table(records: list[dict[str, object]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| problem | " + " | ".join(f"NFE {n}" for n in BUDGETS) + " | geometric mean | median error | worse |"
    yield "| --- |" + " --- |" * (len(BUDGETS) + 3)
    for name in PROBLEMS:
        own = [record for record in records if record["problem"] == name]
        if not own:
            continue
        shares = [[float(str(r["rms"])) for r in own if r["budget"] == n] for n in BUDGETS]
        line = [f"{median(found):.2f} ({max(found):.2f})" if found else "" for found in shares]
        every = [share for found in shares for share in found]
        mean = math.exp(sum(map(math.log, every)) / len(every))
        medians = [float(str(r["median"])) for r in own]
        mean_of_medians = math.exp(sum(math.log(max(m, 1e-9)) for m in medians) / len(medians))
        worse = sum(float(str(r["worse_by"])) > 2 for r in own)
        yield f"| {name} | {' | '.join(line)} | {mean:.2f} | {mean_of_medians:.2f} | {worse} of {len(own)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON for each cell")
    parser.add_argument("--print", action="store_true", help="print the table of what is there")
    parser.add_argument("--sets", type=int, default=5, help="sets of seeds (default 5)")
    parser.add_argument("--calibration", type=int, default=128, help="calibration seeds in a set (default 128)")
    parser.add_argument("--unseen", type=int, default=2048, help="seeds that judge (default 2048)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.out.read_text().splitlines() if options.out.is_file() else []
    records = [json.loads(line) for line in lines]
    done = {(r["problem"], r["set"], r["budget"]) for r in records}
    for name in () if options.print else PROBLEMS:
        for record in cells(name, done, options):
            records.append(record)
            with options.out.open("a") as file:
                print(json.dumps(record), file=file)
            print(record, file=sys.stderr, flush=True)
    print("\n".join(table(records)))


if __name__ == "__main__":
    main()
