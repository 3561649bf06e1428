"""Figures of trained models: loss by noise level, what denoisers answer, solvers, guidance, augmentation, averages."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace.averages import HalfLife, PowerFunction, Profile
from diffspace.data import Augmentation, Digits, named_oracle
from diffspace.figures.article.entry import Entry, Picture, Subject
from diffspace.figures.augmentation import augmentation_labels, draw_augmentation
from diffspace.figures.curves import Curves, Levels, short
from diffspace.figures.errors import draw_errors, draw_pareto
from diffspace.figures.guidance import draw_normals, inpainted_normals, measured_errors
from diffspace.figures.samples import is_image, to_pixels
from diffspace.figures.style import DASHES, plain, theme, tidy
from diffspace.model import Model
from diffspace.objective import NoiseDistribution
from diffspace.oracles import FiniteData
from diffspace.protocols import Cond, Denoiser, data_scale
from diffspace.solverlab import REFERENCE_SAMPLER, compare_solvers, default_samplers, moments, reference
from diffspace.studies.coefficients import training_density
from diffspace.studies.losses import LossStages, WeightedLoss, loss_stages
from diffspace.studies.outputs import DenoiserOutputs, denoiser_outputs
from diffspace.studies.problems import log_space
from diffspace.studies.profiles import profile_curve
from diffspace.train import LOG, RECIPE, make_recipe, of_run, read_log, read_recipe
from diffspace.transform import Transform

_SIGMA = r"$\sigma$"
_SEEN = 10.0  # spreads of a posterior, beyond which a sampler has failed


def draw_loss_stages(ax: Axes, found: LossStages) -> None:
    """The weighted loss over σ with p_train drawn over it, on a scale of its own (Figure 5a of the paper)."""
    density = found.density / found.density.max()
    ax.fill_between(found.sigma.numpy(), density.numpy(), color=theme().gray, alpha=0.18, lw=0, zorder=1)
    ax.plot(
        found.sigma.numpy(), density.numpy(), color=theme().gray, lw=0.9, label=r"$p_\mathrm{train}(\sigma)$", zorder=1
    )
    for stage, colour, dash in zip(found.stages, (1, 4, 0), (DASHES[2], DASHES[1], DASHES[0]), strict=False):
        ax.plot(stage.sigma.numpy(), stage.loss.numpy(), color=theme().palette[colour], ls=dash, label=stage.name)
    if found.attainable is not None:
        best = found.attainable
        ax.plot(best.sigma.numpy(), best.loss.numpy(), color=theme().ink, ls=":", lw=1.2, label=best.name, zorder=4)
    ax.set_xscale("log")
    ax.set_xlim(float(found.sigma[0]), float(found.sigma[-1]))
    ax.set_ylim(bottom=0)
    ax.set_xlabel(_SIGMA)
    ax.set_title(plain(found.title))
    tidy(ax)


def _run_stages(run: Path, model: Model, name: str) -> LossStages:
    """What the log of a run has: the first part of it, one near the tenth and the last; the held-out loss."""
    curves = Curves.of(name, read_log(run / LOG))
    slices = curves.slices(48)
    if not slices:
        raise ValueError(f"{run}: its log has no loss by noise level")
    noise: NoiseDistribution = make_recipe(of_run(read_recipe(run / RECIPE))).noise

    def weighted(levels: Levels, label: str) -> WeightedLoss:
        sigma, mse = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in levels.points())
        return WeightedLoss(label, sigma, model.weight(sigma) * mse)

    chosen = sorted({0, len(slices) // 10, len(slices) - 1})
    stages = tuple(weighted(slices[k], f"{short(slices[k].images)} images") for k in chosen)
    held_out = curves.held_out_by_sigma
    last = weighted(held_out[-1], "held-out data") if held_out else None
    ends = noise.quantile(torch.tensor([1e-3, 1 - 1e-3], dtype=torch.float64, device="cpu")).tolist()
    sigma = log_space(ends[0] / 2, ends[1] * 2, 81)
    return LossStages(name, stages, last, sigma, training_density(noise, sigma))


def _loss_by_sigma(subject: Subject) -> Picture:
    if subject.run is not None and subject.model is not None:
        found = [_run_stages(subject.run, subject.model, subject.model_name or subject.run.name)]
    else:
        generator = torch.Generator().manual_seed(1)
        points = subject.data.sample(4000, generator=generator).float()
        found = [loss_stages(subject.data, points, steps=600, title="numbers of a mixture", progress=subject.progress)]
        training, held_out = Digits().load().split()
        seen, new = (
            part.batch(torch.arange(len(part), dtype=torch.int64, device="cpu")) for part in (training, held_out)
        )
        mean, title = seen.mean(0), "digits less their mean, held-out"
        centred = FiniteData(seen - mean)
        found += [loss_stages(centred, new - mean, steps=800, title=title, progress=subject.progress)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for ax, stages in zip(axes, found, strict=True):
            draw_loss_stages(ax, stages)
        axes[0].set_ylabel(r"$\lambda(\sigma)\,\mathrm{E}\,\|D - y\|^2$ / dimensions")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, columnspacing=1.2, frameon=False)

    text = (
        "The weighted loss by noise level at the start, on the way and at the end of a training, with p_train(σ) "
        "behind it. What can be learnt is in the middle: at low σ the noise is hardly to be seen, at high σ the answer "
        "is the mean of the data; there training is wasted."
    )
    if subject.model is not None and subject.run is None:
        text += f" {subject.model_name} has no log of a training, so small networks were trained instead."
    tables = {}
    for number, stages in enumerate(found):
        rows = [*stages.stages, *([stages.attainable] if stages.attainable else [])]
        tables["" if len(found) == 1 else ("mixture", "digits")[number]] = {
            "stage": [row.name for row in rows for _ in row.sigma],
            "sigma": [value for row in rows for value in row.sigma.tolist()],
            "weighted_loss": [value for row in rows for value in row.loss.tolist()],
        }
    return Picture(draw, tables, 2.8, text)


def draw_outputs(figure: Figure, found: DenoiserOutputs, transform: Transform, sigma_data: float) -> None:
    """Four rows of pictures over falling σ: a noisy sample and D of it, a solution's states and D of them.

    Points are drawn in their plane, with the way to them, and other samples as lines over the index. States are divided
    by √(1 + σ²/σ_data²), which keeps them in the range of the data.
    """
    shrink = (1 + (found.sigma / sigma_data) ** 2).rsqrt().reshape(-1, *[1] * (found.noisy.ndim - 1))
    rows = {
        r"$x_0 + \sigma\varepsilon$": found.noisy * shrink,
        r"$D(x_0 + \sigma\varepsilon;\sigma)$": found.denoised,
        "$x$ of the ODE": found.path * shrink,
        r"$D(x;\sigma)$": found.path_denoised,
    }
    bare = {"xticks": [], "yticks": [], "frame_on": False}
    axes = figure.subplots(4, len(found.sigma), squeeze=False, subplot_kw=bare)
    reach = 1.1 * max(float(values.abs().max()) for values in rows.values())
    for row, (name, values) in enumerate(rows.items()):
        images = is_image(values.shape[1:])
        shown = to_pixels(transform.inverse(values.float()), transform) if images else values.flatten(1).numpy()
        for k, ax in enumerate(axes[row]):
            if images:
                colours = "gray_r" if theme().name == "light" else "gray"
                ax.imshow(shown[k], cmap=colours, vmin=0, vmax=255, interpolation="nearest")
            elif shown.shape[1] == 2:
                ax.plot(shown[: k + 1, 0], shown[: k + 1, 1], color=theme().gray, lw=0.7)
                ax.plot(*shown[k], "o", ms=4, color=theme().palette[row % 2])
                ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", frame_on=True)
            else:
                ax.plot(shown[k], color=theme().palette[row % 2], lw=0.8)
                ax.set_ylim(-reach, reach)
            if row == 0:
                ax.set_title(f"{float(found.sigma[k]):.2g}" if k else f"$\\sigma = {float(found.sigma[0]):.3g}$")
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")


def _denoiser_outputs(subject: Subject) -> Picture:
    model = subject.model
    if model is not None:
        cond: Cond | None = {"labels": model.random_labels([0])} if model.class_names else None
        found, transform = denoiser_outputs(model, cond=cond), model.transform
        sigma_data, of = 0.5 * data_scale(model), subject.model_name or "the model"
    else:
        digits = Digits().load()
        oracle = FiniteData(digits.batch(torch.arange(len(digits), dtype=torch.int64, device="cpu")))
        found, transform = denoiser_outputs(oracle, seed=5), digits.transform
        sigma_data, of = math.sqrt(oracle.moments()[1]), "the exact denoiser of the 1797 digits"
    text = (
        f"What {of} answers over σ. Above: one sample with one noise at all levels; below: along the solution of the "
        "ODE that leads to this sample. At high σ the answer is a mean of the data, and it is decided where σ is of "
        "the size of the differences between them. States are scaled to the range of the data."
    )
    table = {"sigma": found.sigma.tolist()}
    for name, values in (("denoised_rms", found.denoised), ("path_denoised_rms", found.path_denoised)):
        table[name] = (values - found.clean).flatten(1).square().mean(1).sqrt().tolist()

    def draw(figure: Figure) -> None:
        draw_outputs(figure, found, transform, sigma_data)

    return Picture(draw, {"": table}, 2.3, text)


def _augmentation(subject: Subject) -> Picture:
    augmentation, data, place = Augmentation.edm(), Digits().load(), 3
    text = (
        "One image under each transform of the augmentation, with the labels that tell the network what was done "
        "below it. Sampling passes zeros, so that nothing leaks into what is generated (Appendix F.2)."
    )
    if subject.run is not None:
        recipe = make_recipe(of_run(read_recipe(subject.run / RECIPE)))
        training, _ = recipe.data.load()
        if is_image(training.sample_shape):
            data, place, augmentation = training, 0, recipe.augment or augmentation
            text += "" if recipe.augment else " The run has none; the transforms are the paper's."
    image = data.batch(torch.tensor([place], dtype=torch.int64, device="cpu"))[0]

    def draw(figure: Figure) -> None:
        draw_augmentation(figure, image, data.transform, augmentation)

    table = augmentation_labels(image, augmentation)
    return Picture(draw, {"": table}, 0.3 + 0.82 * len(augmentation.enabled), text, width=5.0)


def _solver_errors(subject: Subject) -> Picture:
    model, name, count = subject.model, subject.model_name or "the model", 4
    denoiser: Denoiser = named_oracle("ring") if model is None else model
    if model is None:
        name, count = "eight points on a circle, whose denoiser is exact", 64
    cond = {"labels": model.random_labels(range(count))} if model is not None and model.class_names else None
    subject.progress("solving the ODE with many steps")
    truth = reference(denoiser, seeds=range(count), cond=cond, sampler=REFERENCE_SAMPLER.with_num_steps(200))
    solvers = ("euler", "heun", "dpm2", "dpmpp2m", "ab:k=3", "ipndm:k=4", "unipc:k=3", "rk4")
    samplers = default_samplers(*moments(truth), solvers, ("edm", "loglinear"))

    def progress(done: int, total: int, what: str) -> None:
        subject.progress(f"solvers: {done} of {total} evaluations, {what}")

    comparison = compare_solvers(denoiser, truth, samplers, (5, 8, 12, 20, 35, 60), progress=progress)

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        draw_pareto(ax, comparison)

    text = (
        f"Distance from the end points of the ODE over the evaluations of the denoiser, for {name}. The numbered front "
        "has the best of all solvers and steps; Heun's method with the paper's steps stands beside it."
    )
    rows = [row.as_dict() for row in comparison.rows if not row.failure]
    table: dict[str, list[float | str]] = {
        column: [row[column] for row in rows] for column in ("solver", "steps", "nfe", "rms")
    }
    return Picture(draw, {"": table}, 3.6, text)


def _guidance(subject: Subject) -> Picture:
    subject.progress("guidance: distances from exact posteriors")
    errors, (normals, exact) = measured_errors(), inpainted_normals()

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        seen = {e.name: (e.nfe, e.error) for e in errors if min(e.error) < _SEEN}
        draw_errors(left, seen, "$W_2$ from the posterior / its spread")
        left.set_ylim(1e-3, _SEEN)
        left.set_title("three measurements of six numbers")
        draw_normals(right, normals, exact)
        right.set_ylim(0, 2.1)
        right.legend(loc="upper right", ncols=2, fontsize=7, columnspacing=0.8, handlelength=1.6, frameon=False)
        right.set_xlabel("the unknown number")
        right.set_title("one of two numbers is known")

    text = (
        "Conditional samplers on Gaussians, without drawing samples. Left: distance from the exact posterior over "
        "evaluations (DPS with w = 1 fails here, and is beyond the picture). Right: the density of an unknown number "
        "given one that is correlated with it; the grey area is exact."
    )
    tables: dict[str, dict[str, list[float | str]]] = {
        "measured": {
            "sampler": [e.name for e in errors for _ in e.nfe],
            "nfe": [float(n) for e in errors for n in e.nfe],
            "error": [value for e in errors for value in e.error],
        },
        "inpainted": {
            "sampler": [*normals, "exact"],
            "mean": [mean for mean, _ in (*normals.values(), exact)],
            "variance": [variance for _, variance in (*normals.values(), exact)],
        },
    }
    return Picture(draw, tables, 2.9, text)


_PROFILES: dict[str, Profile] = {
    r"$\sigma_\mathrm{rel} = 0.05$": PowerFunction(0.05),
    r"$\sigma_\mathrm{rel} = 0.10$": PowerFunction(0.10),
    r"$\sigma_\mathrm{rel} = 0.25$": PowerFunction(0.25),
    "half-life 0.5 M": HalfLife(500_000, None),
}


def _ema_profiles(subject: Subject) -> Picture:
    million, length, batch = 1e6, 10_000_000, 10_000
    times = (length // 4, length // 2, length)
    curves = {name: [profile_curve(p, time, batch=batch) for time in times] for name, p in _PROFILES.items()}
    shown = ((list(curves)[:3], times[2:]), ([list(curves)[1], list(curves)[3]], times))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for ax, (names, drawn) in zip(axes, shown, strict=True):
            for name in names:
                place = list(curves).index(name)
                for time, curve in zip(times, curves[name], strict=True):
                    if time not in drawn:
                        continue
                    x, y = (curve.images / million).numpy(), (curve.density * million).numpy()
                    label = name if time == drawn[-1] else None
                    ax.plot(x, y, color=theme().palette[place], ls=DASHES[place], label=label)
                    ax.fill_between(x, y, color=theme().palette[place], alpha=0.1, lw=0)
            ax.set_xlim(0, 1.02 * length / million)
            ax.set_ylim(bottom=0)
            ax.set_xlabel("images seen (millions)")
            tidy(ax)
        axes[0].legend(loc="upper left")
        axes[1].legend(loc="upper right")
        axes[0].set_ylabel("weight of the past, per million")
        axes[0].set_title("three widths at the end of training")
        axes[1].set_title("two averages at three times")

    text = (
        "How averages of the weights remember the past (arXiv:2312.02696, Section 3.1). The memory of a power function "
        "stays the same part of the training, that of a half-life the same number of images."
    )
    table: dict[str, list[float]] = {"images": curves[next(iter(curves))][-1].images[5::10].tolist()}
    for name, of in curves.items():
        table[name.replace("$", "").replace(r"\sigma_\mathrm{rel} = ", "sigma_rel ")] = of[-1].density[5::10].tolist()
    return Picture(draw, {"": table}, 2.5, text)


ENTRIES = (
    Entry("loss-by-sigma", "What training learns at which noise level", "Figure 5a", _loss_by_sigma, ("--model",)),
    Entry("denoiser-outputs", "What a denoiser answers", "Figure 3", _denoiser_outputs, ("--model",)),
    Entry("augmentation", "Augmentation that does not leak", "Appendix F.2", _augmentation, ("--model",)),
    Entry("solver-errors", "What an evaluation buys", "Figure 2", _solver_errors, ("--model",)),
    Entry("guidance", "Conditional samplers against the exact answer", "guidance", _guidance),
    Entry("ema-profiles", "How averages of the weights remember", "arXiv:2312.02696", _ema_profiles),
)
