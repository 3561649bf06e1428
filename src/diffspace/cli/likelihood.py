"""`diffspace likelihood`: bits per dimension of held-out images, nats of other data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Argument, Option

import diffspace as ds
from diffspace.cli.options import AnyModel, Batch, DataOptions, Device, FirstSeed, Parts, integer_option
from diffspace.cli.sampler_options import build_sampler, with_sampler_options

if TYPE_CHECKING:
    from diffspace._shapes import Tensor
    from diffspace.cli.console import Stages
    from diffspace.data import DataSet
    from diffspace.train import Recipe

_EXACT = 16  # dimensions up to which the exact trace, of one product each, is the default
_CHECKED = 16  # samples that are measured again with half the steps


class Figures(NamedTuple):
    """What was measured of each sample, with the errors of the estimator and the tighter bound where there is one."""

    values: Tensor
    errors: Tensor
    weighted: Tensor | None
    sigmas: Tensor
    nfe: int


@with_sampler_options("churn")
def likelihood_command(
    model: AnyModel,
    data: Annotated[
        str | None, Argument(help="Data whose held-out part is measured. Default: those of the run.")
    ] = None,
    options: DataOptions = None,
    n: Annotated[int | None, integer_option("Samples, spread over the held-out data. Default: all.", "--n")] = None,
    probes: Annotated[
        int | None, integer_option(f"Probes of the trace. Default: exact up to {_EXACT} dimensions, else 2.")
    ] = None,
    exact: Annotated[bool, Option("--exact", help="The exact trace: a product for each dimension.")] = False,
    draws: Annotated[int, integer_option("Draws of dequantisation noise for each sample.")] = 1,
    first_seed: FirstSeed = 0,
    batch: Batch = 256,
    device: Device = None,
    part: Parts = None,
    *,
    sampling: dict[str, Any],
) -> None:
    """Print how likely a model finds held-out data: bits per dimension of whole numbers such as images, else nats.

    Each figure has its standard error over the samples, that of the estimator alone (noise and probes), and the error
    of the steps, extrapolated from half as many. Default: 64 steps of the midpoint rule, from σ_min to σ_max.
    """
    import torch

    from diffspace.cli.console import Stages, progress_bar, warn
    from diffspace.cli.options import load_model
    from diffspace.cli.runs import open_recipe

    if exact and probes is not None:
        raise ValueError("--probes: has no effect with --exact")
    default = ds.Sampler(ds.EDMSteps(64, terminal="sigma_min"), ds.Heun(1 / 2))
    build_sampler(sampling, model, default)  # complains before the model is loaded
    run = open_recipe(Path(model)) if data in (None, _source_of(Path(model))) else None
    loaded = load_model(model, device)
    sampler = build_sampler(sampling, model, default, loaded, warn)
    held_out = _fitting(loaded, _held_out(loaded, Path(model), run, data, options or []))
    by_probes = not exact and (probes is not None or math.prod(loaded.sample_shape) > _EXACT)
    trace = ds.Hutchinson(probes or 2) if by_probes else ds.ExactTrace()
    problem = _Problem(loaded, held_out, trace, draws, first_seed, batch)
    if draws > 1 and not problem.whole:
        raise ValueError("--draws: has no effect on data that are not whole numbers, which need no dequantisation")

    count = len(held_out) if n is None else min(n, len(held_out))
    chosen = torch.arange(count, dtype=torch.int64, device="cpu") * len(held_out) // count
    with progress_bar("steps") as bar:
        found, of_steps = problem.measure(chosen, sampler, Stages(bar, "likelihood")), math.nan
        steps = sampler.steps.num_steps
        if steps > 1 and not sampler.fixed:
            half, stage = sampler.with_num_steps(steps // 2), Stages(bar, "error of the steps")
            coarse = problem.measure(chosen[:_CHECKED], half, stage).values
            # with half the steps the error is 2^order times as large; multistep solvers begin with a lower order
            order = min(sampler.solver.order, 2) if sampler.solver.multistep else sampler.solver.order
            growth = (steps / (steps // 2)) ** order
            of_steps = abs(float((coarse - found.values[: len(coarse)]).mean())) / (growth - 1)
    _print(problem, found, of_steps, steps)


class _Problem(NamedTuple):
    """A model with held-out data, and how their likelihoods are computed."""

    model: ds.Model
    held_out: DataSet
    trace: ds.ExactTrace | ds.Hutchinson
    draws: int
    first_seed: int
    batch: int

    @property
    def whole(self) -> bool:
        """Whether the data are whole numbers."""
        return self.model.transform.kind == "integer"

    def measure(self, chosen: Tensor, sampler: ds.Sampler, stage: Stages) -> Figures:
        """The likelihoods of the samples with these numbers."""
        raw, seeds = self.held_out.raw(chosen), range(self.first_seed, self.first_seed + len(chosen))
        names = [name for name in self.model.condition_names if name != "labels" or self.held_out.class_names]
        common: dict[str, Any] = {
            "trace": self.trace,
            "cond": self.held_out.cond(chosen, names),
            "sampler": sampler,
            "execution": ds.Execution(self.batch, progress=stage.steps(len(chosen) * self.draws, self.batch)),
        }
        if self.whole:
            bits = ds.bits_per_dim(self.model, raw, seeds=seeds, draws=self.draws, **common)
            return Figures(bits.bits, bits.standard_error, bits.importance_weighted, bits.sigmas, bits.nfe)
        common["seeds"] = seeds if self.trace.seeded else None
        nats = ds.log_likelihood(self.model, self.model.transform.forward(raw), **common)
        volume = self.model.transform.log_volume(self.model.sample_shape)
        return Figures(nats.log_prob + volume, nats.standard_error, None, nats.sigmas, nats.nfe)


def _print(problem: _Problem, found: Figures, of_steps: float, steps: int) -> None:
    from diffspace.cli.console import out, table

    trace, draws, data = problem.trace, problem.draws, problem.held_out
    rows = [_row("bits per dimension" if problem.whole else "nats per sample", found.values, found.errors, of_steps)]
    if draws > 1 and found.weighted is not None:
        rows.append(_row("importance-weighted", found.weighted, None, of_steps))
    out.print(table(("", "mean", "± over samples", "± of the estimator", "± of the steps"), rows))
    facts = [
        f"{data.name}: {len(found.values)} samples of {math.prod(data.sample_shape)} dimensions",
        f"{trace.probes} probe{'s' * (trace.probes > 1)}" if isinstance(trace, ds.Hutchinson) else "exact trace",
        f"{steps} steps, NFE {found.nfe}, σ {float(found.sigmas[0]):g} … {float(found.sigmas[-1]):g}",
        "prior N(0, σ²)",
    ]
    if problem.whole:
        facts.append(f"{draws} draw{'s' * (draws > 1)}")
    out.print(", ".join(facts))


def _source_of(folder: Path) -> str | None:
    """The source of the data of a run; None of another folder."""
    from diffspace.train import RECIPE, read_recipe

    return read_recipe(folder / RECIPE)["data"]["source"] if (folder / RECIPE).is_file() else None


def _held_out(model: ds.Model, folder: Path, run: Recipe | None, data: str | None, options: list[str]) -> DataSet:
    """The held-out part of the named data, or of those of the run; a warning where the model may have seen it."""
    from diffspace.cli.console import warn
    from diffspace.cli.runs import load_data_of, trained_on
    from diffspace.cli.scores.reading import in_units
    from diffspace.data import ArrayFile, make_source
    from diffspace.parts import import_typed
    from diffspace.train import apply_overrides, make_data_recipe

    if data is None and run is not None:
        return load_data_of(folder, run, model, warn)[1]
    import_typed({"source": data})
    recipe = make_data_recipe(apply_overrides({"source": data}, options))
    held_out = recipe.load()[1]
    of_array = isinstance(make_source(recipe.source, **recipe.options), ArrayFile)
    if of_array and held_out.sample_shape == model.sample_shape:
        held_out = in_units("data", recipe.source, held_out, model.transform)
    if run is not None and (again := sum(trained_on(run.data.load()[0], held_out))):
        warn(f"data: {again} of the {len(held_out)} samples were trained on; leave DATA out to measure the others")
    return held_out


def _fitting(model: ds.Model, held_out: DataSet) -> DataSet:
    """The data with the model's numbers of their classes, if it knows classes; ValueError where they do not fit."""
    from diffspace.cli.runs import with_classes_of

    if model.sample_shape != held_out.sample_shape:
        there, here = ("×".join(map(str, shape)) for shape in (model.sample_shape, held_out.sample_shape))
        raise ValueError(f"data: samples are of {here}, the model's of {there}")
    own, other = model.transform, held_out.transform
    if (own.kind, own.lowest, own.highest) != (other.kind, other.lowest, other.highest):
        raise ValueError(f"data: samples are {other.values}, the model's {own.values}")
    return with_classes_of(model, held_out)


def _row(name: str, values: Tensor, errors: Tensor | None, of_steps: float) -> tuple[str, ...]:
    """A mean with its standard error over the samples, that of its estimate for these samples, and the steps' error."""
    from diffspace.likelihood.log_likelihood import standard_error

    n = len(values)
    over = float(standard_error(values))
    alone = math.nan if errors is None else float(errors.square().sum().sqrt()) / n
    shown = ("unknown" if math.isnan(value) else f"{value:.4f}" for value in (over, alone, of_steps))
    return name, f"{float(values.mean()):.4f}", *shown
