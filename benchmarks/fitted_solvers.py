"""What `fit_solver` gains over the best solver that needs no fit, on several problems and sets of seeds.

    python benchmarks/fitted_solvers.py --out fitted.jsonl                           # goes on where it was stopped
    python benchmarks/fitted_solvers.py --out fitted.jsonl --model digits=runs/digits --budgets 5,8,10 --unseen 256
    python benchmarks/fitted_solvers.py --out fitted.jsonl --print                   # the table in Markdown alone

For each problem and set of seeds the paths of calibration seeds and the end points of others, one to four times as
many, make one solver for each budget. It is judged on seeds that neither has seen, beside *every* solver that needs no
fit (for a model those eight that are best on 16 of them); the best of these on those very seeds is taken: nobody could
choose better. A cell is the RMS of the fitted solver as a share of that one's, the median over the sets of seeds and
the worst; above 1 the fit is worse. The last columns are geometric means over all cells of this, of the same for the
median over samples, and of the RMS of those samples that stay in the mode of the exact flow with both solvers; the
share of samples that end in another mode, of the best known solver and of the fitted one, where modes can be told. The
line below counts the cells that are worse by more than two standard errors of the difference of squared errors of the
same samples. The records behind the documentation are in `records/`.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any, Protocol

import torch

from diffspace.cli.conditions import choose_cond
from diffspace.data import load_data, named_oracle
from diffspace.loading import load
from diffspace.model import Model
from diffspace.oracles import FiniteData, GaussianMixture
from diffspace.protocols import Cond, Denoiser
from diffspace.sampling import Execution, Sampler, initial_latents, sample
from diffspace.solverlab import (
    REFERENCE_SAMPLER,
    Measurement,
    Reference,
    calibration_seeds,
    compare_solvers,
    default_samplers,
    judging_seeds,
    moments,
    reference,
    search_solver,
)
from diffspace.solverlab.end_points import mean_squares

BUDGETS = (4, 5, 8, 10, 12, 20)
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


class Guided:
    """Classifier-free guidance of weight 3 towards the first four modes of the mixture in eight dimensions."""

    def __init__(self) -> None:
        everything = mixture()
        stds = everything.variances.flatten().sqrt()
        self.everything, self.some = everything, GaussianMixture(everything.means[:4], stds[:4])
        self.sample_shape = everything.sample_shape

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, cond: Cond | None = None) -> torch.Tensor:
        of_all = self.everything(x, sigma)
        return of_all + 3.0 * (self.some(x, sigma) - of_all)


def heavy() -> GaussianMixture:
    """Six Gaussians in six dimensions around 0, whose widths differ by 40 between and by 10 within them."""
    axes = torch.linalg.qr(_normal(9_200, 6, 6))[0]
    within = torch.logspace(0, -1, 6, dtype=torch.float64)
    stds = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.8, 2.0], dtype=torch.float64)
    covariances = torch.stack([axes @ (std * within).square().diag() @ axes.T for std in stds])
    return GaussianMixture(torch.zeros(6, 6, dtype=torch.float64), covariances=covariances)


def image_like() -> GaussianMixture:
    """Six modes of 16×16 "images" with the power spectrum 1/f²."""
    n = 16
    frequency = torch.fft.fftfreq(n, dtype=torch.float64, device="cpu") * n
    power = 1 / (frequency[:, None].square() + frequency.square()).clamp_min(0.5)
    power = 0.25 * power / power.mean()
    waves = torch.fft.fft2(torch.eye(n * n, dtype=torch.float64).reshape(-1, n, n)).reshape(n * n, n * n) / n
    covariance = (waves.conj().T @ power.flatten().to(waves.dtype).diag() @ waves).real
    means = 0.8 * _normal(9_500, 6, n * n) @ torch.linalg.cholesky(covariance + 1e-9 * torch.eye(n * n)).T
    within = 0.36 * covariance + 1e-5 * torch.eye(n * n, dtype=torch.float64)
    return GaussianMixture(means, covariances=within.expand(6, -1, -1).contiguous())


class Problem(Denoiser, Protocol):
    """A denoiser that knows the shape of its samples."""

    @property
    def sample_shape(self) -> tuple[int, ...]: ...


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "ring": lambda: named_oracle("ring"),
    "mixture in 8-D": mixture,
    "low rank in 48-D": low_rank,
    "scales in 1-D": scales,
    "narrow modes in 2-D": narrow,
    "finite swiss roll": points,
    "digits mixture in 64-D": lambda: named_oracle("mixture"),
    "guided mixture in 8-D": Guided,
    "heavy tails in 6-D": heavy,
    "image-like in 256-D": image_like,
}


def modes(denoiser: Denoiser, x: torch.Tensor) -> torch.Tensor | None:
    """The mode in which each sample is, or the item; None where there are none."""
    of = denoiser.some if isinstance(denoiser, Guided) else denoiser
    flat = x.flatten(1).double()
    if isinstance(of, FiniteData):
        return torch.cdist(flat, of.data.double()).argmin(1)
    if not isinstance(of, GaussianMixture):
        return None
    offsets = flat[:, None] - of.means
    if of.axes is not None:
        offsets = torch.einsum("bkd,kde->bke", offsets, of.axes)
    variances = of.variances.expand(of.means.shape) + 1e-9
    joint = of.weights.log() - 0.5 * (offsets.square() / variances + variances.log()).sum(2)
    return joint.argmax(1)


def solve(denoiser: Problem, seeds: range, sampler: Sampler, execution: Execution | None = None) -> Reference:
    """The end points of a problem or a model, whose samples then have a class at random."""
    cond = choose_cond(denoiser, None, None, seeds) if isinstance(denoiser, Model) else None
    shape = denoiser.sample_shape
    return reference(denoiser, seeds=seeds, shape=shape, cond=cond, sampler=sampler, execution=execution)


def cells(name: str, done: set[tuple[str, int, int]], options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """One record for each set of seeds and budget that is missing from those that are `done`."""
    missing = [(k, n) for k in range(options.sets) for n in options.budgets if (name, k, n) not in done]
    if not missing:
        return
    denoiser = PROBLEMS[name]()
    elements = math.prod(denoiser.sample_shape)
    count = options.calibration or calibration_seeds(elements)
    judges = judging_seeds(elements, count)
    budgets = sorted({n for _, n in missing})

    def ends_of(first: int, number: int, sampler: Sampler, trajectory: int = 0) -> Reference:
        execution = Execution(batch_size=options.batch, trajectory=trajectory)
        return solve(denoiser, range(first, first + number), sampler, execution)

    new = ends_of(_UNSEEN, options.unseen, _FINE)
    candidates = default_samplers(*moments(new))
    if isinstance(denoiser, Model):  # a race, since each evaluation takes milliseconds
        few = compare_solvers(denoiser, new.rows(slice(0, 16)), candidates, budgets, batch_size=options.batch)
        candidates = {row.name: candidates[row.name] for budget in budgets for row in few.within(budget)[:8]}
    known = compare_solvers(denoiser, new, candidates, budgets, batch_size=options.batch)
    for k in sorted({k for k, _ in missing}):
        seeds, others = _APART * (k + 1), _APART * (k + 1) + 5_000
        truth, ends = ends_of(seeds, count, _FINE, 2), ends_of(others, judges, _COARSE)
        for n in [n for other, n in missing if other == k]:
            best = known.within(n)[0]
            found = _judged(denoiser, n, truth, ends, new, best, options)
            yield {"problem": name, "set": k, "budget": n, "seeds": count, **_how(options), **found}


class _Counted:
    """A denoiser that counts the samples that it is asked for."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.samples = denoiser, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.denoiser, name)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, cond: Cond | None = None) -> torch.Tensor:
        self.samples += len(x)
        return self.denoiser(x, sigma, cond)


def _judged(
    denoiser: Denoiser,
    budget: int,
    truth: Reference,
    ends: Reference,
    new: Reference,
    best: Measurement,
    options: argparse.Namespace,
) -> dict[str, object]:
    began, counted = time.process_time(), _Counted(denoiser)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = search_solver(
            counted,
            budget,
            truth,
            validation=ends,
            iterations=options.iterations,
            evaluations=options.limit,
            batch_size=options.batch,
        )
    seconds = time.process_time() - began
    execution = Execution(batch_size=options.batch)
    own, other = (
        sample(denoiser, latents=new.latents, cond=new.cond, sampler=sampler, execution=execution).x
        for sampler in (found.sampler, best.sampler)
    )
    squares = mean_squares(own - new.x)
    excess = squares - best.squares
    exact, found_in = modes(denoiser, new.x), [modes(denoiser, x) for x in (other, own)]
    elsewhere = [None if at is None else float((at != exact).double().mean()) for at in found_in]
    stay = None if exact is None else torch.stack([at == exact for at in found_in]).all(0)
    return {
        "choice": found.choice.name,
        "best": best.name,
        "error": float(squares.mean().sqrt()),
        "rms": float((squares.mean() / best.squares.mean()).sqrt()),
        "median": float((squares.median() / best.squares.median()).sqrt()),
        "staying": None
        if stay is None or not bool(stay.any())
        else float((squares[stay].mean() / best.squares[stay].mean()).sqrt()),
        "worse_by": float(excess.mean() / (excess.std() / math.sqrt(len(excess)))),
        "elsewhere": elsewhere,
        "evaluations": counted.samples,
        "seconds": seconds,
    }


def _how(options: argparse.Namespace) -> dict[str, object]:
    """What records of one table have in common."""
    return {name: getattr(options, name) for name in ("iterations", "limit", "calibration", "unseen")}


def rounded(value: Any) -> Any:
    """With four digits."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(max(value, 1e-9)) for value in values) / len(values))


def table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown."""
    budgets = sorted({record["budget"] for record in records})
    yield ("| problem, NFE | " + " | ".join(f"{n}" for n in budgets) + " | all | median | staying | elsewhere, % |")
    yield "| --- |" + " --- |" * (len(budgets) + 4)
    for name, limit in dict.fromkeys((record["problem"], record["limit"]) for record in records):
        own = [record for record in records if (record["problem"], record["limit"]) == (name, limit)]
        shares = [[r["rms"] for r in own if r["budget"] == n] for n in budgets]
        line = [f"{median(found):.2f} ({max(found):.2f})" if found else "" for found in shares]
        told = [r["elsewhere"] for r in own if r["elsewhere"][0] is not None]
        elsewhere = " → ".join(f"{100 * fmean(each):.2g}" for each in zip(*told, strict=True)) if told else ""
        known = [[r[key] for r in own if r.get(key) is not None] for key in ("rms", "median", "staying")]
        means_of = " | ".join(f"{geometric_mean(values):.2f}" if values else "" for values in known)
        label = name if limit is None else f"{name}, {limit:,} evaluations"
        yield f"| {label} | {' | '.join(line)} | {means_of} | {elsewhere} |"


def summary(records: list[dict[str, Any]]) -> str:
    """What the table comes to."""
    shares = [record["rms"] for record in records]
    worse = sum(record["worse_by"] > 2 for record in records)
    middle = geometric_mean(shares)
    return (
        f"{len(shares)} cells: geometric mean {middle:.2f}, worst {max(shares):.2f}, {worse} worse by more than chance"
    )


def keep(record: dict[str, Any], records: list[dict[str, Any]], out: Path) -> None:
    """Add a record to those that there are, and to the file, with four digits of each figure."""
    record = {name: rounded(value) for name, value in record.items()}
    records.append(record)
    with out.open("a") as file:
        print(json.dumps(record), file=file)
    print(record, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON for each cell")
    parser.add_argument("--print", action="store_true", help="print the table of what is there")
    parser.add_argument("--sets", type=int, default=5, help="sets of seeds (default 5)")
    parser.add_argument("--calibration", type=int, help="calibration seeds in a set (default: by the size of a sample)")
    parser.add_argument("--budgets", type=lambda text: tuple(map(int, text.split(","))), default=BUDGETS)
    parser.add_argument("--iterations", type=int, default=8, help="of the search (default 8)")
    parser.add_argument("--limit", type=int, help="evaluations of a sample in a search, at most (default: no limit)")
    parser.add_argument("--model", action="append", default=[], help="NAME=FOLDER: a model instead of the oracles")
    parser.add_argument("--only", action="append", help="a problem; default: all")
    parser.add_argument("--batch", type=int, help="samples in a batch (default: all)")
    parser.add_argument("--unseen", type=int, default=2048, help="seeds that judge (default 2048)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.out.read_text().splitlines() if options.out.is_file() else []
    records = [json.loads(line) for line in lines]
    records = [r for r in records if {name: r.get(name) for name in _how(options)} == _how(options)]
    done = {(r["problem"], r["set"], r["budget"]) for r in records}
    names = options.only or list(PROBLEMS)
    for word in options.model:
        name, _, folder = word.partition("=")
        PROBLEMS[name] = functools.partial(load, folder)
        names = [name] if word is options.model[0] else [*names, name]
    missing = sum((n, k, b) not in done for n in names for k in range(options.sets) for b in options.budgets)
    seconds = [float(record["seconds"]) for record in records]
    each = f"about {fmean(seconds):.0f} s each so far" if seconds else "5 to 60 s each on exact denoisers"
    print(f"{missing} fits to go, {each}", file=sys.stderr)
    for name in () if options.print else names:
        for record in cells(name, done, options):
            keep(record, records, options.out)
    print("\n".join(table(records)))
    if records:
        print(summary(records))


if __name__ == "__main__":
    main()
