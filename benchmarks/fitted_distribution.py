"""What fitted solvers do to the distribution of samples: scores of few evaluations beside Heun's method and the flow.

    python benchmarks/fitted_distribution.py ring "image-like in 256-D" --nfe 3,5,8,10

Problems are those of `fitted_solvers.py`. A row has the RMS distance from the end points of the exact flow, the share
of samples that end in another mode, and of 2,048 samples the sliced Wasserstein and the Fréchet distance (of the
elements themselves) from as many fresh draws of the data, each with its standard error. The last column is the mean
log-likelihood of the samples less that of the exact flow's: positive where they are smoother than the data. "known" is
the best solver that needs no fit, chosen on the seeds that judge the fit.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator

import torch

from diffspace.metrics import Features, frechet, sliced_wasserstein
from diffspace.oracles import FiniteData, GaussianMixture, Oracle
from diffspace.protocols import Denoiser
from diffspace.sampling import EDMSteps, Execution, Heun, Sampler, sample
from diffspace.solverlab import calibration_seeds, judging_seeds, reference, search_solver
from fitted_solvers import _COARSE, _FINE, PROBLEMS, modes

_SAMPLES, _SMOOTHING = 2048, 1e-3  # and the noise with which likelihoods are taken, in units of σ_data


def samplers(denoiser: Oracle, budgets: list[int]) -> Iterator[tuple[str, Sampler]]:
    """Fitted and known ones at each budget, then the paper's."""
    elements = math.prod(denoiser.sample_shape)
    count = calibration_seeds(elements)
    truth = reference(denoiser, seeds=range(10_000, 10_000 + count), sampler=_FINE, execution=Execution(trajectory=2))
    judges = range(20_000, 20_000 + judging_seeds(elements, count))
    ends = reference(denoiser, seeds=judges, sampler=_COARSE)
    for budget in budgets:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = search_solver(denoiser, budget, truth, validation=ends)
        known = next(row for row in found.comparison.within(budget) if not row.name.startswith("fitted"))
        yield "fitted", found.sampler
        yield "known", known.sampler
    for num_steps in (9, 18):
        yield "Heun", Sampler(EDMSteps(num_steps), Heun())


def log_likelihood(oracle: Denoiser, x: torch.Tensor, scale: float) -> float | None:
    """The mean over samples, None where there is no density."""
    if not isinstance(oracle, GaussianMixture | FiniteData):
        return None
    return float(oracle.log_prob(x, torch.tensor(_SMOOTHING * scale, dtype=torch.float64)).mean())


def rows(name: str, budgets: list[int]) -> Iterator[str]:
    """Lines of Markdown for a problem."""
    denoiser = PROBLEMS[name]()
    if not isinstance(denoiser, Oracle):
        raise SystemExit(f"{name}: expected a problem that data can be drawn of")
    exact = reference(denoiser, seeds=range(900_000, 900_000 + _SAMPLES), sampler=_FINE)
    scale = float(exact.x.std())
    data = Features(denoiser.sample(_SAMPLES, generator=torch.Generator().manual_seed(0)).flatten(1))
    likelihood, mode = log_likelihood(denoiser, exact.x, scale), modes(denoiser, exact.x)

    def line(solver: str, nfe: int, x: torch.Tensor) -> str:
        features, own, there = Features(x.flatten(1)), log_likelihood(denoiser, x, scale), modes(denoiser, x)
        share = "" if mode is None or there is None else f"{100 * float((there != mode).double().mean()):.2g} %"
        gain = "" if own is None or likelihood is None else f"{own - likelihood:+.2g}"
        distances = f"{sliced_wasserstein(features, data)} | {frechet(features, data)}"
        return f"| {name} | {solver} | {nfe} | {exact.error_of(x).rms:.2g} | {share} | {distances} | {gain} |"

    for solver, sampler in samplers(denoiser, budgets):
        run = sample(denoiser, latents=exact.latents, sampler=sampler)
        yield line(solver, run.nfe, run.x)
    yield line("exact flow", exact.nfe, exact.x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=["ring"], help="names of problems")
    parser.add_argument("--nfe", default="3,5,8,10", help="evaluations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| problem | solver | NFE | RMS | elsewhere | sliced Wasserstein | Fréchet | log-likelihood |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.problems:
        for row in rows(name, [int(word) for word in options.nfe.split(",")]):
            print(row, flush=True)


if __name__ == "__main__":
    main()
