"""What a fitted solver gains over what `recommend` chooses without one, on several problems and sets of seeds.

    python benchmarks/fitted_solvers.py                  # a table in Markdown

For each problem and set of seeds, a solver is fitted on calibration seeds for each budget; on the same seeds other
solvers (`--solvers`) are measured with the default kinds of steps, and the recommended one is taken. Both are judged on
256 seeds that neither has seen. A cell holds the error of the fitted solver as a share of the other's, for each set of
seeds in turn; above 1 the fitted solver is worse. The search was developed on the ring, and not tuned to the others.
"""

from __future__ import annotations

import argparse
import sys

import torch

from diffspace.config import split_list
from diffspace.data import load_data, named_oracle
from diffspace.oracles import FiniteData, GaussianMixture
from diffspace.protocols import Denoiser
from diffspace.sampling import Execution, initial_latents, sample
from diffspace.solverlab import (
    REFERENCE_SAMPLER,
    compare_solvers,
    default_samplers,
    fit_solver,
    moments,
    recommend,
    reference,
)

BUDGETS = (5, 10, 20)
SOLVERS = "ab:k=3,ab:k=4,prediction=x0,ipndm:k=4,dpmpp3m,unipc:k=3,heun"


def random_mixture() -> GaussianMixture:
    """Twelve Gaussians in eight dimensions with means N(0, 1) and spreads of 0.1 to 0.5."""
    means = initial_latents(range(7_000, 7_012), (8,)).double()
    stds = 0.1 + 0.4 * torch.special.ndtr(initial_latents(range(7_100, 7_112), (1,)).double()).flatten()
    return GaussianMixture(means, stds)


def shares(denoiser: Denoiser, first_seed: int, options: argparse.Namespace) -> list[tuple[float, float]]:
    """The RMS and the median error of the fitted solver as shares of the recommended one's, at each budget."""
    fine = REFERENCE_SAMPLER.with_num_steps(options.reference_steps)
    seen, new = range(first_seed, first_seed + options.calibration), range(first_seed + 5_000, first_seed + 5_256)
    paths = reference(denoiser, seeds=seen, sampler=fine, execution=Execution(trajectory=True))
    truth = reference(denoiser, seeds=new, sampler=fine)
    samplers = default_samplers(*moments(paths), split_list(options.solvers))
    rows = []
    for choice in recommend(compare_solvers(denoiser, paths, samplers, BUDGETS)):
        fitted = fit_solver(denoiser, choice.budget, paths)
        ours, theirs = (
            truth.error_of(sample(denoiser, latents=truth.latents, sampler=sampler).x)
            for sampler in (fitted, choice.row.sampler)
        )
        print(f"  NFE {choice.budget}: {ours.rms:.2e}, {choice.row.name} {theirs.rms:.2e}", file=sys.stderr, flush=True)
        rows.append((ours.rms / theirs.rms, ours.median / theirs.median))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=3, help="sets of seeds (default 3)")
    parser.add_argument("--calibration", type=int, default=128, help="calibration seeds in a set (default 128)")
    parser.add_argument("--reference-steps", type=int, default=400, help="steps of the exact paths (default 400)")
    parser.add_argument("--solvers", default=SOLVERS, help="the solvers to compare with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    points = load_data("swissroll", n=400).split()[0]
    problems = {
        "mixture of 12 in 8-D": random_mixture(),
        "swiss roll": FiniteData(points.batch(torch.arange(len(points)))),
        "ring": named_oracle("ring"),
    }
    print("| problem | " + " | ".join(f"NFE {budget}" for budget in BUDGETS) + " |")
    print("| --- |" + " --- |" * len(BUDGETS))
    for name, denoiser in problems.items():
        print(name, file=sys.stderr)
        sets = [shares(denoiser, 20_000 * (k + 1), options) for k in range(options.sets)]
        for kind, index in (("RMS", 0), ("median", 1)):
            cells = [" · ".join(f"{found[i][index]:.2f}" for found in sets) for i in range(len(BUDGETS))]
            print(f"| {name}, {kind} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
