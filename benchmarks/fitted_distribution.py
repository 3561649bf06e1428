"""What fitted solvers do to the distribution of samples: scores of few evaluations beside Heun's method and the flow.

    python benchmarks/fitted_distribution.py ring "image-like in 256-D" --nfe 3,5,8,10
    python benchmarks/fitted_distribution.py --model digits=runs/digits --data digits --samples 1024

Problems are those of `fitted_solvers.py`. A row has the RMS distance from the end points of the exact flow, the share
of samples that end in another mode, and of 2,048 samples the sliced Wasserstein and the Fréchet distance (of the
elements themselves), each with its standard error, from as many fresh draws of the data; those of a model from all of
`--data`, which it has seen. The last column is the mean log-likelihood of the samples less that of the exact flow's:
positive where they are smoother than the data. "known" is the best solver that needs no fit, chosen on the seeds that
judge the fit.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator
from functools import partial

import torch

from diffspace.data import load_data
from diffspace.loading import load
from diffspace.metrics import Features, frechet, sliced_wasserstein
from diffspace.oracles import FiniteData, GaussianMixture, Oracle
from diffspace.protocols import Denoiser
from diffspace.sampling import EDMSteps, Execution, Heun, Sampler, sample
from diffspace.solverlab import calibration_seeds, judging_seeds, search_solver
from fitted_solvers import _COARSE, _FINE, PROBLEMS, Problem, modes, solve

_SMOOTHING = 1e-3  # the noise with which likelihoods are taken, in units of σ_data


def samplers(denoiser: Problem, budgets: list[int]) -> Iterator[tuple[str, Sampler]]:
    """Fitted and known ones at each budget, then the paper's."""
    elements = math.prod(denoiser.sample_shape)
    count = calibration_seeds(elements)
    truth = solve(denoiser, range(10_000, 10_000 + count), _FINE, Execution(trajectory=2))
    ends = solve(denoiser, range(20_000, 20_000 + judging_seeds(elements, count)), _COARSE)
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


def drawn(denoiser: Problem, source: str | None, count: int) -> torch.Tensor:
    """Data: draws of an exact problem, or all of a data set."""
    if source is not None:
        data = load_data(source)
        return data.batch(torch.arange(len(data)))
    if not isinstance(denoiser, Oracle):
        raise SystemExit("expected a problem that data can be drawn of, or --data")
    return denoiser.sample(count, generator=torch.Generator().manual_seed(0))


def rows(name: str, denoiser: Problem, options: argparse.Namespace) -> Iterator[str]:
    """Lines of Markdown for a problem."""
    exact = solve(denoiser, range(900_000, 900_000 + options.samples), _FINE)
    scale = float(exact.x.std())
    data = Features(drawn(denoiser, options.data, options.samples).double().flatten(1))
    likelihood, mode = log_likelihood(denoiser, exact.x, scale), modes(denoiser, exact.x)

    def line(solver: str, nfe: int, x: torch.Tensor) -> str:
        features, own, there = Features(x.double().flatten(1)), log_likelihood(denoiser, x, scale), modes(denoiser, x)
        share = "" if mode is None or there is None else f"{100 * float((there != mode).double().mean()):.2g} %"
        gain = "" if own is None or likelihood is None else f"{own - likelihood:+.2g}"
        distances = f"{sliced_wasserstein(features, data)} | {frechet(features, data)}"
        return f"| {name} | {solver} | {nfe} | {exact.error_of(x).rms:.2g} | {share} | {distances} | {gain} |"

    for solver, sampler in samplers(denoiser, [int(word) for word in options.nfe.split(",")]):
        run = sample(denoiser, latents=exact.latents, cond=exact.cond, sampler=sampler)
        yield line(solver, run.nfe, run.x)
    yield line("exact flow", exact.nfe, exact.x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", help="names of problems")
    parser.add_argument("--model", help="NAME=FOLDER: a model instead of them")
    parser.add_argument("--data", help="the data of the model, as `diffspace train` takes them")
    parser.add_argument("--samples", type=int, default=2048, help="samples that are scored (default 2048)")
    parser.add_argument("--nfe", default="3,5,8,10", help="evaluations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| problem | solver | NFE | RMS | elsewhere | sliced Wasserstein | Fréchet | log-likelihood |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    problems = {name: PROBLEMS[name] for name in options.problems}
    if options.model:
        name, _, folder = options.model.partition("=")
        problems = {name: partial(load, folder)}
    for name, make in (problems or {"ring": PROBLEMS["ring"]}).items():
        for row in rows(name, make(), options):
            print(row, flush=True)


if __name__ == "__main__":
    main()
