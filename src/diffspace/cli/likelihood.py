"""`diffspace likelihood`: bits per dimension of held-out images, nats of other data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from diffspace.cli.options import Parts
from diffspace.cli.sampler_options import build_sampler, with_sampler_options

if TYPE_CHECKING:
    from diffspace._shapes import Tensor
    from diffspace.data import DataSet
    from diffspace.model import Model

# above so many dimensions a product for each of them is too much for a default
_EXACT = 16
# samples whose figure with half the steps tells the error of the steps
_CHECKED = 16


class Figures(NamedTuple):
    """What was measured of each sample, with the errors of the estimator and the tighter bound where there is one."""

    values: Tensor
    errors: Tensor
    weighted: Tensor | None
    sigmas: Tensor
    nfe: int


@with_sampler_options("churn")
def likelihood_command(
    model: Annotated[
        str, typer.Argument(help="Folder of a run or a model, a checkpoint of others, or owner/name on the Hub.")
    ],
    data: Annotated[
        str | None,
        typer.Argument(help="Data, as for train, of which the held-out part counts. Default: those of the run."),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(help="Options of the data, such as size=64 holdout=1000", show_default=False)
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="Samples, spread over the held-out data. Default: all.")] = None,
    probes: Annotated[
        int | None,
        typer.Option(help=f"Probes of the trace for each sample. Default: exact up to {_EXACT} dimensions, else 2."),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="The exact trace: a product for each dimension.")] = False,
    draws: Annotated[int, typer.Option(help="Draws of dequantisation noise for each sample.")] = 1,
    first_seed: Annotated[int, typer.Option(help="The samples have this seed and those that follow.")] = 0,
    batch: Annotated[int, typer.Option(help="Samples at a time.")] = 256,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
    part: Parts = None,
    *,
    sampling: dict[str, Any],
) -> None:
    """Print how likely a model finds held-out data: bits per dimension of whole numbers such as images, else nats.

    Each figure stands with its standard error over the samples, that of the estimator alone (noise and probes), and the
    error of the steps, extrapolated from half as many. Default: 64 steps of the midpoint rule, from σ_min to σ_max.
    """
    import torch

    from diffspace.cli.console import out as stdout, progress_bar, table
    from diffspace.cli.parsing import check_positive
    from diffspace.likelihood import ExactTrace, Hutchinson, bits_per_dim, log_likelihood
    from diffspace.loading import load
    from diffspace.sampling import EDMSteps, Execution, Heun, Sampler
    from diffspace.train import choose_device

    for name, value in (("--n", n), ("--batch", batch), ("--draws", draws), ("--probes", probes)):
        check_positive(name, value)
    if first_seed < 0:
        raise ValueError(f"--first-seed: expected a number of at least 0, got {first_seed}")
    if exact and probes is not None:
        raise ValueError("--probes: has no effect with --exact")
    default = Sampler(EDMSteps(64, terminal="sigma_min"), Heun(1 / 2))
    sampler = build_sampler(sampling, model, default)
    steps = sampler.steps.num_steps
    held_out = _held_out(model, data, options or [])
    loaded = load(model, device=choose_device(device))
    cond_of = _conditions(loaded, held_out)

    count, dimensions = len(held_out) if n is None else min(n, len(held_out)), math.prod(loaded.sample_shape)
    whole = loaded.transform.kind == "integer"
    if draws > 1 and not whole:
        raise ValueError("--draws: has no effect on data that are not whole numbers, which need no dequantisation")
    by_probes = not exact and (probes is not None or dimensions > _EXACT)
    trace = Hutchinson(2 if probes is None else probes) if by_probes else ExactTrace()

    with progress_bar("steps") as bar:
        task = bar.add_task("likelihood", total=None, info="")

        def measure(chosen: Tensor, n_steps: int) -> Figures:
            raw, seeds = held_out.raw(chosen), range(first_seed, first_seed + len(chosen))
            bar.update(task, completed=0, total=-(-len(chosen) * draws // batch) * n_steps)

            def show(first: int, state: Any) -> None:
                bar.update(task, completed=first // batch * n_steps + state.step, info=f"σ = {state.sigma:.3g}")

            common: dict[str, Any] = {"trace": trace, "cond": cond_of(chosen)}
            common |= {"sampler": sampler.with_num_steps(n_steps), "execution": Execution(batch, progress=show)}
            if whole:
                bits = bits_per_dim(loaded, raw, seeds=seeds, draws=draws, **common)
                return Figures(bits.bits, bits.standard_error, bits.importance_weighted, bits.sigmas, bits.nfe)
            x, own = loaded.transform.forward(raw), seeds if by_probes else None
            nats = log_likelihood(loaded, x, seeds=own, **common)
            volume = loaded.transform.log_volume(loaded.sample_shape)
            return Figures(nats.log_prob + volume, nats.standard_error, None, nats.sigmas, nats.nfe)

        indices = torch.arange(count) * len(held_out) // count
        found, of_steps = measure(indices, steps), math.nan
        if steps > 1 and not sampler.fixed:
            bar.update(task, description="error of the steps")
            coarse = measure(indices[:_CHECKED], steps // 2).values
            # with half the steps the error is 2^order times as large
            growth = (steps / (steps // 2)) ** sampler.solver.order
            of_steps = abs(float((coarse - found.values[: len(coarse)]).mean())) / (growth - 1)
    rows = [_row("bits per dimension" if whole else "nats per sample", found.values, found.errors, of_steps)]
    if draws > 1 and found.weighted is not None:
        rows.append(_row("importance-weighted", found.weighted, None, of_steps))
    stdout.print(table(("", "mean", "± over samples", "± of the estimator", "± of the steps"), rows))
    facts = [f"{held_out.name}: {count} samples of {dimensions} dimensions"]
    facts += [f"{trace.probes} probe{'s' * (trace.probes > 1)}" if isinstance(trace, Hutchinson) else "exact trace"]
    facts += [f"{steps} steps, NFE {found.nfe}, σ {float(found.sigmas[0]):g} … {float(found.sigmas[-1]):g}"]
    facts += ["prior N(0, σ²)", *([f"{draws} draw{'s' * (draws > 1)}"] if whole else [])]
    stdout.print(", ".join(facts), markup=False)


def _held_out(model: str, data: str | None, options: list[str]) -> DataSet:
    """The held-out part of the data: those named, or those of the run."""
    from diffspace.cli.runs import open_recipe
    from diffspace.config import import_typed
    from diffspace.train import apply_overrides, make_data_recipe

    if data is None:
        recipe = open_recipe(Path(model)).data
    else:
        import_typed({"source": data})
        recipe = make_data_recipe(apply_overrides({"source": data}, options))
    return recipe.load()[1]


def _conditions(model: Model, held_out: DataSet) -> Any:
    """The classes of samples by their numbers, for a model that knows classes; ValueError where data do not fit."""
    if model.sample_shape != held_out.sample_shape:
        there, here = ("×".join(map(str, shape)) for shape in (model.sample_shape, held_out.sample_shape))
        raise ValueError(f"data: samples are of {here}, the model's of {there}")
    labels = held_out.labels
    if not model.class_names or labels is None:
        return lambda indices: None
    if len(held_out.class_names) != len(model.class_names):
        raise ValueError(f"data: {len(held_out.class_names)} classes, the model has {len(model.class_names)}")
    return lambda indices: {"labels": labels[indices]}


def _row(name: str, values: Tensor, errors: Tensor | None, of_steps: float) -> tuple[str, ...]:
    """A mean with its standard error over the samples, that of its estimate for these samples, and the steps' error."""
    n = len(values)
    over = float(values.std()) / math.sqrt(n) if n > 1 else math.nan
    alone = math.nan if errors is None else float(errors.square().sum().sqrt()) / n
    shown = ("unknown" if math.isnan(value) else f"{value:.4f}" for value in (over, alone, of_steps))
    return name, f"{float(values.mean()):.4f}", *shown
