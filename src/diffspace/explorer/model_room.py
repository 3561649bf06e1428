"""Room 4: samples of trained models, the way to one of them, solvers against each other, and what is painted anew."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

import diffspace as ds
from diffspace._shapes import Sigma, Tensor
from diffspace.checks import nearest
from diffspace.config import from_text
from diffspace.explorer.jobs import Job
from diffspace.explorer.model_settings import (
    FITTED,
    SOLVERS,
    Between,
    Draw,
    One,
    Paint,
    check_model,
    command,
    python_cond,
    python_start,
)
from diffspace.explorer.models import EXACT, EXACT_DESCRIPTION, Offered, exact_digits
from diffspace.guidance import Replacement, repaint
from diffspace.guidance.wrapper import Wrapper
from diffspace.protocols import Cond, Denoiser
from diffspace.sampling import initial_latents
from diffspace.sampling.driver import make_grid
from diffspace.solverlab.compare import plan_runs

BUDGETS = (4, 6, 8, 10, 18, 35)
COMPARED = ("euler", "heun", "dpmpp2m")
FILLED, STOPS = 8, 8
"""Images that fill the painted part, and images between two seeds."""

_FINE = 64  # steps of the reference, which is known to 1e-5 or better then
_REFERENCE = ds.Sampler(ds.EDMSteps(_FINE), ds.AdamsBashforth(4, "x0", "log_sigma"))
_COLUMNS = 10  # of the strip
_AT_ONCE = 50_000  # numbers in a batch, so that a job is asked often enough whether it is wanted
_SMALL, _SEEDS = 4096, 8  # numbers of a sample of which several are compared, and how many
_TOLD, _KEPT = 0.3, 16  # seconds between reports, and reference solutions that are kept


class Watched(Wrapper):
    """A denoiser that ends with its job, and tells it how much of `total` evaluations is done."""

    def __init__(self, denoiser: Denoiser, job: Job, total: int | None = None) -> None:
        super().__init__(denoiser)
        self.job, self.total, self.count = job, total, 0
        self._told = time.monotonic()

    def forward(self, x: Tensor, sigma: Sigma, cond: Cond | None = None) -> Tensor:
        self.job.check()
        self.count += 1
        if self.total and time.monotonic() - self._told > _TOLD:
            self._told = time.monotonic()
            self.job.tell(share=min(1.0, self.count / self.total))
        return self.denoiser(x, sigma, cond)


def as_cond(labels: Sequence[int] | None) -> Cond | None:
    return None if labels is None else {"labels": torch.tensor(labels, dtype=torch.int64, device="cpu")}


class _Made(NamedTuple):
    """What a request is about: the model, the classes of its samples, the sampler, and the guided denoiser."""

    offered: Offered
    labels: list[int] | None
    sampler: ds.Sampler
    denoiser: Denoiser
    batch: int

    def cond(self, rows: Sequence[int]) -> Cond | None:
        """The conditions of samples by their number, which may be given more than once."""
        return as_cond(self.own(rows))

    def own(self, rows: Sequence[int]) -> list[int] | None:
        """The classes of samples by their number."""
        return None if self.labels is None else [self.labels[k] for k in rows]


class ModelRoom:
    """The pictures of the models that were given, by name, or of the exact denoiser of the digits without any."""

    def __init__(self, models: Mapping[str, Offered] | None = None) -> None:
        self._models = dict(models or {})
        self._references: OrderedDict[Any, ds.Reference] = OrderedDict()

    @property
    def models(self) -> dict[str, Offered]:
        return self._models or {EXACT: exact_digits()}

    def describe(self) -> list[dict[str, Any]]:
        """What the page has to know of each model."""
        return [offered.describe(name) for name, offered in self._models.items()] or [dict(EXACT_DESCRIPTION)]

    def _make(self, settings: Draw) -> _Made:
        models = self.models
        if settings.model and settings.model not in models:
            raise ValueError(f"model: {settings.model[:60]!r} is unknown; {nearest(settings.model[:60], models)}")
        offered = models[settings.model or next(iter(models))]
        check_model(offered, settings)
        labels = offered.labels(settings.label, settings.count)
        denoiser = offered.guided(settings.weight, labels)
        batch = max(1, _AT_ONCE // math.prod(offered.shape))
        return _Made(offered, labels, settings.sampler(offered), denoiser, batch)

    def samples(self, settings: Draw, job: Job) -> dict[str, Any]:
        """Samples; finished batches are sent to the page, and the denoised images between the steps."""
        made, seeds = self._make(settings), settings.seeds
        offered, told = made.offered, time.monotonic()

        def progress(first: int, state: ds.State) -> None:
            nonlocal told
            if state.denoised is not None and time.monotonic() - told > _TOLD and bool(state.denoised.isfinite().all()):
                told = time.monotonic()
                share = (first + len(state.x) * state.step / state.num_steps) / settings.count
                job.tell(first=first, tiles=offered.shown(state.denoised), share=share)

        execution = ds.Execution(made.batch, progress=progress)
        watched = Watched(made.denoiser, job)
        cond = made.cond(range(settings.count))
        last = ds.sample(watched, seeds=seeds, sampler=made.sampler, cond=cond, execution=execution)
        lines = [
            *python_start(offered, settings, made.labels),
            f"samples = ds.sample(denoiser, seeds={seeds!r}, sampler=sampler{python_cond(made.labels)})",
            "raw = decode(samples.x)",
        ]
        shown = {"tiles": offered.shown(last.x), "kind": offered.kind, "seeds": list(seeds), "labels": made.labels}
        told_of = {"nfe": last.nfe, "num_steps": last.num_steps, "sigmas": last.sigmas}
        return shown | told_of | {"python": "\n".join(lines), "command": command(offered, settings, made.labels)}

    def way(self, settings: One, job: Job) -> dict[str, Any]:
        """x and D(x; σ) of the chosen sample, at about evenly spaced steps of its run, and where it ends."""
        made, seed = self._make(settings), settings.seed + settings.chosen
        offered, rows = made.offered, [settings.chosen]
        watched = Watched(made.denoiser, job, made.sampler.nfe)
        execution = ds.Execution(trajectory=True)
        run = ds.sample(watched, seeds=[seed], sampler=made.sampler, cond=made.cond(rows), execution=execution)
        if run.trajectory is None:
            raise ValueError("method: its run has no states between")
        count = run.num_steps
        steps = sorted({round(k * (count - 1) / max(1, _COLUMNS - 2)) for k in range(_COLUMNS - 1)} & set(range(count)))
        sigma = run.sigmas[[*steps, count]]
        spread = float(getattr(made.denoiser, "sigma_data", None) or 0.5)
        scale = (1 + (sigma / spread) ** 2).rsqrt().to(run.x).reshape(-1, *[1] * (run.x.ndim - 1))
        states = run.trajectory.x[[*steps, count], 0].to(run.x) * scale
        denoised = torch.cat([run.trajectory.denoised[steps, 0].to(run.x), run.x])
        tiles = offered.shown(torch.cat([states, denoised]).cpu())
        distance = (denoised - run.x).flatten(1).square().mean(1).sqrt().cpu().double()
        own = made.own(rows)
        lines = [
            *python_start(offered, settings, own),
            "execution = ds.Execution(trajectory=True)",
            f"run = ds.sample(denoiser, seeds=[{seed}], sampler=sampler{python_cond(own)}, execution=execution)",
            f"steps = {steps}",
            "sigma, denoised = run.sigmas[steps], run.trajectory.denoised[steps, 0]",
            "distance = (denoised - run.x).flatten(1).square().mean(1).sqrt()",
        ]
        shown = {"x": tiles[: len(sigma)], "denoised": tiles[len(sigma) :], "kind": offered.kind, "sigma": sigma}
        return shown | {"distance": distance, "seed": seed, "nfe": run.nfe, "python": "\n".join(lines)}

    def solvers(self, settings: One, job: Job) -> dict[str, Any]:
        """The chosen sample by several solvers at each budget, and their distance from the exact solution over NFE."""
        settings = replace(settings, churn=0.0)
        made = self._make(settings)
        offered, several = made.offered, math.prod(made.offered.shape) <= _SMALL
        others = [k for k in range(settings.count) if k != settings.chosen]
        rows = [settings.chosen, *(others[: _SEEDS - 1] if several else [])]
        samplers = self._compared(settings, made)
        plan = plan_runs(samplers, BUDGETS)
        watched = Watched(made.denoiser, job, plan.nfe)
        truth = self._reference(settings, made, rows, watched)
        scale = float(truth.x.std(correction=0))
        job.tell(reference=offered.shown(truth.x[:1]))
        results: list[dict[str, Any]] = []
        for run in plan.runs:
            found = {"name": run.name, "budget": min(run.budgets), "nfe": run.nfe, "steps": run.sampler.steps.num_steps}
            grid = make_grid(watched, run.sampler)
            if not math.isclose(grid.sigmas[0], truth.sigma_max, rel_tol=0.01) or grid.sigmas[-1] != 0:
                continue  # a fitted sampler of another range of σ, whose ends are others
            ends = ds.sample(watched, latents=truth.latents, cond=truth.cond, sampler=run.sampler)
            found |= {"rms": truth.error_of(ends.x).rms, "tile": offered.shown(ends.x[:1])}
            results.append(found)
            job.tell(row=found, share=min(1.0, watched.count / (watched.total or 1)))
        own = made.own(rows)
        shown = {"kind": offered.kind, "budgets": BUDGETS, "reference": offered.shown(truth.x[:1]), "rows": results}
        facts = {"reference_error": truth.error.rms, "scale": scale, "seeds": [settings.seed + k for k in rows]}
        return shown | facts | {"python": _python_solvers(settings, made, rows, own, samplers)}

    def _compared(self, settings: Draw, made: _Made) -> dict[str, ds.Sampler]:
        words = list(dict.fromkeys([*COMPARED, *([settings.method] if settings.method in SOLVERS else [])]))
        steps = ds.EDMSteps(rho=settings.rho)
        own = {SOLVERS[word]: ds.Sampler(steps, from_text("solver", word)) for word in words}
        return own | {FITTED + name: sampler for name, sampler in made.offered.samplers.items()}

    def _reference(self, settings: Draw, made: _Made, rows: Sequence[int], watched: Watched) -> ds.Reference:
        """The solution to many digits from the latents of some seeds; kept, since it takes longest."""
        seeds, labels = [settings.seed + k for k in rows], made.own(rows)
        guidance = None if made.denoiser is made.offered.denoiser else settings.weight
        key = (settings.model, tuple(seeds), tuple(labels or ()), guidance)
        found = self._references.get(key)
        if found is None:
            watched.total = (watched.total or 0) + _FINE // 4 + _FINE // 2 + _FINE
            found = ds.reference(watched, seeds=seeds, cond=made.cond(rows), sampler=_REFERENCE)
            self._references[key] = found
            if len(self._references) > _KEPT:
                self._references.popitem(last=False)
        return found

    def between(self, settings: Between, job: Job) -> dict[str, Any]:
        """Samples from latents on the great circle between those of two seeds."""
        settings = replace(settings, churn=0.0)
        made = self._make(settings)
        offered, rows = made.offered, [settings.chosen] * STOPS
        begin, end = (initial_latents([seed], offered.shape)[0] for seed in (settings.begin, settings.end))
        own = made.own(rows)
        total = (made.sampler.nfe or 0) * math.ceil(STOPS / made.batch)
        run = ds.sample(
            Watched(made.denoiser, job, total),
            latents=ds.interpolate(begin, end, STOPS),
            sampler=made.sampler,
            cond=made.cond(rows),
            execution=ds.Execution(made.batch),
        )
        lines = [
            *python_start(offered, settings, own),
            f"begin, end = ds.initial_latents([{settings.begin}, {settings.end}], {offered.shape})",
            f"latents = ds.interpolate(begin, end, {STOPS})",
            f"samples = ds.sample(denoiser, latents=latents, sampler=sampler{python_cond(own)})",
            "raw = decode(samples.x)",
        ]
        moved = (run.x[1:] - run.x[:-1]).flatten(1).square().mean(1).sqrt().cpu().double()
        shown = {"tiles": offered.shown(run.x), "kind": offered.kind, "moved": moved, "labels": own}
        return shown | {"nfe": run.nfe, "python": "\n".join(lines)}

    def paint(self, settings: Paint, job: Job) -> dict[str, Any]:
        """An image whose painted part is drawn anew from several seeds, the rest kept."""
        settings = replace(settings, churn=0.0)
        made = self._make(settings)
        offered = made.offered
        if not offered.is_image:
            shape = "×".join(map(str, offered.shape))
            raise ValueError(f"model: its samples, {shape}, are no pictures to paint on; choose another model or view")
        cells, size = settings.cells(offered.shape)
        raw, own, lines = self._known(settings, made, job)
        known = {"known": offered.shown(offered.transform.forward(raw)), "kind": offered.kind}
        known |= {"cells": cells.to(torch.uint8), "size": size}
        job.tell(**known)
        anew = settings.anew(offered.shape)
        seeds = range(settings.seed, min(settings.seed + FILLED, 2**32))
        labels = None if own is None else own * len(seeds)
        replaced = Replacement(made.denoiser, ~anew, offered.transform.forward(raw))
        total = (made.sampler.nfe or 0) * settings.resamplings * math.ceil(len(seeds) / made.batch)
        run = repaint(
            Watched(replaced, job, total),
            seeds=seeds,
            sampler=made.sampler,
            cond=as_cond(labels),
            resamplings=settings.resamplings,
            execution=ds.Execution(made.batch),
        )
        lines += [*_python_mask(settings, offered), f"seeds = {seeds!r}", "known = model_space(image)"]
        lines += [
            "replaced = ds.guidance.Replacement(denoiser, ~anew, known)",
            f"samples = ds.guidance.repaint(replaced, seeds=seeds, sampler=sampler{python_cond(labels)}, "
            f"resamplings={settings.resamplings})",
            "raw = decode(samples.x)",
        ]
        filled = {"tiles": offered.shown(run.x), "anew": anew.to(torch.uint8), "seeds": list(seeds), "nfe": run.nfe}
        return known | filled | {"python": "\n".join(lines)}

    def _known(self, settings: Paint, made: _Made, job: Job) -> tuple[Tensor, list[int] | None, list[str]]:
        """The image to paint on, raw, the class that its part is drawn anew with, and the lines that make it."""
        offered, seed = made.offered, settings.seed + settings.chosen
        own = made.own([settings.chosen])
        if settings.image != "sample":
            raw, label = offered.image(settings.image, settings.number)
            if own is not None and not settings.label.isdecimal() and label in offered.classes:
                own = [label]
            lines = python_start(offered, settings, own)
            lines += ["from diffspace.data import load_data", ""] if offered.source else []
            lines.append(f'image = load_data("{settings.image}").raw(torch.tensor([{settings.number}]))')
        else:
            cond = made.cond([settings.chosen])
            raw = offered.transform.inverse(
                ds.sample(Watched(made.denoiser, job), seeds=[seed], sampler=made.sampler, cond=cond).x
            )
            lines = python_start(offered, settings, own)
            lines.append(f"sample = ds.sample(denoiser, seeds=[{seed}], sampler=sampler{python_cond(own)})")
            lines.append("image = decode(sample.x)")
        lines.append("model_space = model.transform.forward" if offered.source else _SPACE)
        return raw, own, lines


_SPACE = 'model_space = load_data("digits").transform.forward'


def _python_solvers(
    settings: Draw, made: _Made, rows: Sequence[int], own: Sequence[int] | None, samplers: Mapping[str, ds.Sampler]
) -> str:
    seeds = [settings.seed + k for k in rows]
    named = [
        f"    {name!r}: ds.Sampler(ds.EDMSteps(rho={settings.rho!r}), ds.{sampler.solver!r}),"
        for name, sampler in samplers.items()
        if not name.startswith(FITTED)
    ]
    fitted = (
        f"    **{{{FITTED!r} + name: found for name, found in ds.load_samplers({made.offered.source!r}).items()}},"
        if made.offered.samplers
        else ""
    )
    return "\n".join(
        [
            *python_start(made.offered, settings, own),
            "from diffspace.solverlab import compare_solvers",
            "",
            f'fine = ds.Sampler(ds.EDMSteps({_FINE}), ds.AdamsBashforth(4, "x0", "log_sigma"))',
            f"truth = ds.reference(denoiser, seeds={seeds}, sampler=fine{python_cond(own)})",
            "samplers = {",
            *named,
            *filter(None, [fitted]),
            "}",
            f"comparison = compare_solvers(denoiser, truth, samplers, budgets={BUDGETS})",
            "for row in comparison.rows:",
            '    print(f"{row.name:24}{row.nfe:4}{row.error.rms:10.2g}")',
        ]
    )


def _python_mask(settings: Paint, offered: Offered) -> list[str]:
    cells, size = settings.cells(offered.shape)
    rows = "\n".join(f'    "{"".join("01"[int(cell)] for cell in row)}",' for row in cells)
    height, width = offered.shape[-2:]
    lines = [f"cells = [\n{rows}\n]", 'anew = torch.tensor([[cell == "1" for cell in row] for row in cells])']
    if size > 1:
        lines.append(f"anew = anew.repeat_interleave({size}, 0).repeat_interleave({size}, 1)[:{height}, :{width}]")
    return lines
