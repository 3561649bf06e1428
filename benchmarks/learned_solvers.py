"""What other methods learn for a frozen denoiser, beside the best solver that needs no fit.

    python benchmarks/learned_solvers.py --out learned.jsonl                       # goes on where it was stopped
    python benchmarks/learned_solvers.py --out learned.jsonl --print               # the table in Markdown alone
    python benchmarks/learned_solvers.py --out some.jsonl --problems ring --nfe 6 --methods LD3 GS --sets 1

The solvers of `learned_schemes.py` are trained towards the end points of calibration seeds, by back-propagation through
the whole run. A cell is the RMS on new seeds as a share of that of the best solver that needs no fit there, the median
over the sets of seeds and the worst.

Where the papers differ from one another, or their choice is for images, all methods get the same, or what was best in
some cells of the first set of seeds (ring, mixture, low rank), by the very seeds that judge:

- The loss is the mean square of ends, which also judges, not LPIPS or L1. Mean absolute and robust losses were worse in
  the geometric mean.
- Adam, gradients clipped to norm 1, batches of 12, warm-up and cosine decay for all. LD3 has RMSprop for levels, SGD
  for ξ and batches of 2. GS has batches of 24, an average of the parameters, no decay, and the rate 1e-3 for all; for
  the levels 1e-1 halved the RMS that 1e-2 left on the ring with 10 evaluations.
- Latents moved within a ball (LD3, S4S; tried for LD3) made the RMS no better, so `radius` is 0; that of LD3 on
  CIFAR-10 is 0.055.
- A method is trained twice, each time with half of the evaluations, from the best of twelve sequences of EDM steps with
  the best and the second best of five base solvers (three for DyWeight), not once from one given sequence.
- S4S-Alt is trained at once (a joint optimisation is among its authors' algorithms): from 4 to 100 turns of levels and
  coefficients were worse in the geometric mean. DyWeight uses all gradients; its runs on CIFAR-10 use the last three.
- Not found: the learning rates, the radius, the number of turns and the K of S4S. GS takes 10,000 iterations of 24,
  seven times the evaluations of the default here at N = 6, DyWeight 10,000 runs, a third of it, LD3 fewer. Five times
  the evaluations changed GS little.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffspace.protocols import Denoiser, data_scale
from diffspace.sampling import Sampler, sample
from diffspace.sampling.solvers.multistep import IPNDM
from diffspace.sampling.steps import EDMSteps, steps_for
from diffspace.solverlab import Reference, compare_solvers, default_samplers, moments, reference, search_cost
from diffspace.solverlab.end_points import Continuous, mean_squares
from fitted_solvers import _APART, _COARSE, _FINE, _UNSEEN, PROBLEMS, Problem, geometric_mean, keep
from learned_schemes import GS, S4S, Base, DyWeight, Scheme, Start

_SECONDS = 14.0  # of a fit with 600,000 evaluations, on one core
_CHECKS = 40


class Training(NamedTuple):
    """How a method is trained: parameters, rates of (levels, coefficients), base solvers, with an analytical step.

    Several groups of parameters take `turns` in all, one after the other.

    `radius` is that of the ball in which a latent of the calibration moves to ease its fit (relaxed objective, soft
    teacher forcing), times N² and in units of √d.
    """

    scheme: type[Scheme]
    groups: tuple[tuple[str, ...], ...]
    rates: tuple[float, float]
    bases: tuple[Base, ...]
    afs: tuple[bool, ...] = (False,)
    starts: int = 2
    batch: int = 12
    turns: int = 16
    radius: float = 0.0


_IPNDM = tuple(Base("ipndm", k) for k in (2, 3, 4))
_BASES = (*_IPNDM, Base("dpm++", 2), Base("dpm++", 3))
METHODS = {
    "LD3": Training(Scheme, (("theta", "xi"),), (3e-2, 0.0), _BASES),
    "S4S": Training(S4S, (("c",),), (0.0, 3e-2), _BASES),
    "S4S-Alt": Training(S4S, (("theta", "xi", "c"),), (3e-2, 1e-3), _BASES),
    "GS": Training(GS, (("theta", "xi", "a", "c"),), (1e-1, 1e-3), _BASES),
    "DyWeight": Training(DyWeight, (("xi", "w"),), (1e-1, 3e-2), _IPNDM, (False, True)),
}


@dataclass(frozen=True, eq=False)
class Learned:
    """The state with the least RMS on the validation samples, and the evaluations of a sample that training took."""

    scheme: Scheme
    rms: float
    spent: int

    def ends(self, denoiser: Denoiser, latents: Tensor) -> Tensor:
        """Where unit-variance latents end, after N evaluations."""
        x: Tensor = self.scheme(denoiser, latents.double())
        return x


def _rms(scheme: Scheme, denoiser: Denoiser, on: Reference) -> float:
    with torch.no_grad():
        rms = float(mean_squares(scheme(denoiser, on.latents.double()) - on.x).mean().sqrt())
    return rms if math.isfinite(rms) else math.inf


def learn(
    method: str,
    denoiser: Denoiser,
    num_steps: int,
    truth: Reference,
    validation: Reference,
    *,
    evaluations: int,
    seed: int = 0,
    training: Training | None = None,
) -> Learned:
    """A solver of N evaluations trained on `truth`, with at most so many evaluations of a sample, without a condition.

    A backward pass counts as two more evaluations. Checks on `validation`, `_CHECKS` in each training, do not count.
    """
    training = training or METHODS[method]
    smooth, lowest = Continuous(denoiser), float(steps_for(denoiser, EDMSteps()).sigma_min or 0)
    few = truth.rows(slice(0, 64))
    starts = _starts(training, denoiser, num_steps, truth)
    ranked = sorted(starts, key=lambda start: _rms(training.scheme(start, lowest), smooth, few))
    best = {start.base: start for start in reversed(ranked)}
    chosen = [start for start in ranked if best[start.base] is start][: training.starts]
    spent = len(ranked) * len(few.x) * num_steps
    left = (evaluations - spent) // len(chosen)
    found = []
    for start in chosen:
        scheme = training.scheme(start, lowest)
        taken, rms = _train(scheme, smooth, num_steps, (truth, validation), training, left, seed)
        spent += taken
        found.append((rms, scheme))
    rms, scheme = min(found, key=lambda pair: pair[0])
    return Learned(scheme, rms, spent)


def _starts(training: Training, denoiser: Denoiser, num_steps: int, truth: Reference) -> Iterator[Start]:
    """EDM steps that end at several levels, with several ρ, for each base solver."""
    lowest, scale = float(steps_for(denoiser, EDMSteps()).sigma_min or 0), data_scale(denoiser)
    for afs in training.afs:
        for end in (lowest, 0.02 * scale, 0.1 * scale, 0.3 * scale):
            for rho in (2.5, 7.0, 20.0):
                levels = EDMSteps(num_steps + afs, end, truth.sigma_max, rho=rho).sigmas()
                yield from (Start(levels, base, afs) for base in training.bases)


def _train(
    scheme: Scheme,
    denoiser: Denoiser,
    num_steps: int,
    samples: tuple[Reference, Reference],
    training: Training,
    evaluations: int,
    seed: int,
) -> tuple[int, float]:
    """Adam on the mean square of ends; leaves the best state in `scheme`. (evaluations, its RMS on validation)."""
    truth, validation = samples
    batch = min(training.batch, len(truth.x))
    iterations = evaluations // (3 * num_steps * batch)
    named = dict(scheme.named_parameters())
    groups = [[named[name] for name in group] for group in training.groups]
    rates = [training.rates[name not in ("theta", "xi")] for group in training.groups for name in group]
    optimizer = torch.optim.Adam(
        [{"params": [p], "lr": rate} for p, rate in zip(itertools.chain(*groups), rates, strict=True)]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / max(1, iterations // 10), 0.505 + 0.495 * math.cos(math.pi * i / iterations))
    )
    unit, moved = _rms(scheme, denoiser, truth) ** 2, truth.latents.double().clone()
    best, state = _rms(scheme, denoiser, validation), copy.deepcopy(scheme.state_dict())
    radius = training.radius * math.sqrt(truth.x[0].numel()) / num_steps**2
    generator, order = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.int64)
    for i in range(iterations):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(len(truth.x), generator=generator)])
        rows, order = order[:batch], order[batch:]
        group = groups[i * training.turns // iterations % len(groups)]
        latents = moved[rows].requires_grad_()
        loss = mean_squares(scheme(denoiser, latents) - truth.x[rows]).mean() / unit
        *gradients, slope = torch.autograd.grad(loss, [*group, latents])
        optimizer.zero_grad()
        for parameter, gradient in zip(group, gradients, strict=True):
            parameter.grad = gradient
        if bool(torch.isfinite(torch.nn.utils.clip_grad_norm_(group, 1.0))):
            optimizer.step()
        schedule.step()
        moved[rows] = _inside(latents.detach(), slope, truth.latents[rows], radius)
        if (i + 1) * _CHECKS // iterations > i * _CHECKS // iterations:
            rms = _rms(scheme, denoiser, validation)
            if rms < best:
                best, state = rms, copy.deepcopy(scheme.state_dict())
    scheme.load_state_dict(state)
    return iterations * 3 * num_steps * batch, best


def _inside(latents: Tensor, slope: Tensor, given: Tensor, radius: float) -> Tensor:
    """The latents moved against a slope by a quarter of the radius, and back into the ball around those given."""

    def norms(x: Tensor) -> Tensor:
        return x.square().sum(tuple(range(1, x.dim())), keepdim=True).sqrt()

    away = latents - radius / 4 * slope / norms(slope).clamp_min(1e-30) - given
    return given + away * (radius / norms(away).clamp_min(max(radius, 1e-30)))


def evaluations(num_steps: int, denoiser: Problem, options: argparse.Namespace) -> int:
    """Those of a fit: as many as `search_solver` takes for as many seeds, and 600,000 at least."""
    if options.evaluations is not None:
        return int(options.evaluations)
    elements, seeds = math.prod(denoiser.sample_shape), options.calibration
    return max(600_000, search_cost(num_steps, seeds, 4 * seeds, elements))


def cells(
    name: str, denoiser: Problem, missing: list[tuple[int, int, str]], options: argparse.Namespace
) -> Iterator[dict[str, object]]:
    """One record for each set of seeds, number of evaluations and method that is missing."""
    allowed = {n: evaluations(n, denoiser, options) for n in options.nfe}
    new = reference(denoiser, seeds=range(_UNSEEN, _UNSEEN + options.unseen), sampler=_FINE)
    best = compare_solvers(denoiser, new, default_samplers(*moments(new)), sorted({n for _, n, _ in missing}))
    for k in sorted({k for k, _, _ in missing}):
        seeds, others = _APART * (k + 1), _APART * (k + 1) + 5_000
        truth = reference(denoiser, seeds=range(seeds, seeds + options.calibration), sampler=_FINE)
        ends = reference(denoiser, seeds=range(others, others + 4 * options.calibration), sampler=_COARSE)
        for n, method in [(n, method) for other, n, method in missing if other == k]:
            unit, began = best.within(n)[0].error.rms, time.process_time()
            found = learn(method, denoiser, n, truth, ends, evaluations=allowed[n], seed=k)
            seconds = time.process_time() - began
            with torch.no_grad():
                rms = new.error_of(found.ends(denoiser, new.latents)).rms
            plain = new.error_of(sample(denoiser, latents=new.latents, sampler=Sampler(EDMSteps(n), IPNDM(4))).x).rms
            key = {"problem": name, "set": k, "nfe": n, "method": method, "evaluations": allowed[n]}
            key["calibration"] = options.calibration
            base = f"{found.scheme.base.kind} {found.scheme.base.k}" + ", afs" * found.scheme.afs
            yield {**key, "rms": rms / unit, "ipndm": plain / unit, "best": unit, "base": base, "seconds": seconds}


def table(records: list[dict[str, Any]], ours: Sequence[dict[str, Any]] = ()) -> Iterator[str]:
    """Lines of Markdown: medians over the sets of seeds, and the worst; then geometric means over all cells above.

    `ours` are records of `fitted_solvers.py` with as many calibration seeds, of which those of the same cells count.
    """
    cells = sorted({(r["problem"], r["nfe"]) for r in records}, key=_place)
    ours = [{**r, "method": "ours", "nfe": r["budget"]} for r in ours if (r["problem"], r["budget"]) in cells]
    every = [*records, *ours]
    methods = [method for method in (*METHODS, "ours") if any(r["method"] == method for r in every)]
    yield "| problem | NFE | best known | iPNDM 4, ρ = 7 | " + " | ".join(methods) + " |"
    yield "| --- |" + " --- |" * (len(methods) + 3)
    for name, n in cells:
        own = [r for r in every if (r["problem"], r["nfe"]) == (name, n)]
        found = [[r["rms"] for r in own if r["method"] == method] for method in methods]
        line = [f"{median(shares):.2f} ({max(shares):.2f})" if shares else "" for shares in found]
        yield f"| {name} | {n} | {own[0]['best']:.1e} | {own[0]['ipndm']:.2f} | " + " | ".join(line) + " |"
    means = [geometric_mean([r["rms"] for r in every if r["method"] == method]) for method in methods]
    plain = geometric_mean([r["ipndm"] for r in records])
    yield f"| geometric mean | | | {plain:.2f} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |"


def _place(row: tuple[str, int]) -> tuple[int, int]:
    return list(PROBLEMS).index(row[0]), row[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON for each cell")
    parser.add_argument("--print", action="store_true", help="print the table of what is there")
    parser.add_argument("--ours", type=Path, help="records of fitted_solvers.py with as many seeds, for a column")
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--nfe", nargs="+", type=int, default=[4, 6, 8, 10])
    parser.add_argument("--sets", type=int, default=2, help="sets of seeds (default 2)")
    parser.add_argument("--calibration", type=int, default=128, help="calibration seeds in a set (default 128)")
    parser.add_argument("--unseen", type=int, default=2048, help="seeds that judge (default 2048)")
    parser.add_argument(
        "--evaluations", type=int, help="of a sample, in a fit (default: what ours takes; from 600,000)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.out.read_text().splitlines() if options.out.is_file() else []
    problems = {name: PROBLEMS[name]() for name in options.problems}
    allowed = {(name, n): evaluations(n, denoiser, options) for name, denoiser in problems.items() for n in options.nfe}
    records = [
        r
        for r in map(json.loads, lines)
        if r["calibration"] == options.calibration and r["evaluations"] == allowed.get((r["problem"], r["nfe"]))
    ]
    done = {(r["problem"], r["set"], r["nfe"], r["method"]) for r in records}
    wanted = list(itertools.product(range(options.sets), options.nfe, options.methods))
    missing = {name: [key for key in wanted if (name, *key) not in done] for name in problems}
    if not options.print:
        total = sum(allowed[name, n] for name, keys in missing.items() for _, n, _ in keys)
        print(f"at most {total:,} evaluations, {total * _SECONDS / 600_000 / 60:.0f} minutes", file=sys.stderr)
        for name, keys in missing.items():
            for record in cells(name, problems[name], keys, options) if keys else ():
                keep(record, records, options.out)
    ours = [json.loads(line) for line in options.ours.read_text().splitlines()] if options.ours else []
    print("\n".join(table(records, ours)))


if __name__ == "__main__":
    main()
