"""What learned uncertainty and adaptive noise gain on digits: held-out loss by σ after equal images.

All variants see the same data in the same order with the same initial weights, a pair for each seed; the averaged model
is measured on all held-out digits with noise that is the same for all. At a few moments of the plain training, the
squared norm of a sample's gradient in all weights says what adaptive draws could gain, and what those by loss do.

    OMP_NUM_THREADS=1 python benchmarks/training_objective.py --out objective.json --figure objective.png
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from diffspace.averages import EMA, HalfLife
from diffspace.config import from_config
from diffspace.data import DataSet, batches
from diffspace.inspection import inspect
from diffspace.objective import AdaptiveNoise, DenoisingLoss, NoiseDistribution, Uncertainty, UniformWeight
from diffspace.preconditioning import Preconditioned
from diffspace.train import LearningRate, Validation, default_config, make_data_recipe, make_recipe

VARIANTS = ("plain", "uncertainty", "adaptive", "λ=1", "λ=1 adaptive")
SHARE = 0.25
NOISE_SEEDS = range(4)


class Task:
    """Digits, with the recipe that `diffspace train digits` proposes at this length."""

    def __init__(self, images: int) -> None:
        source = make_data_recipe({"source": "digits"})
        self.training, held_out = source.load()
        self.recipe = make_recipe(default_config(self.training, source, inspect(self.training), images))
        self.noise: NoiseDistribution = self.recipe.noise
        self.measures = [
            Validation(held_out, self.noise, count=len(held_out), levels=24, seed=seed) for seed in NOISE_SEEDS
        ]

    def denoiser(self, seed: int) -> Preconditioned:
        torch.manual_seed(seed)
        sizes = {"shape": list(self.training.sample_shape), "label_dim": len(self.training.class_names)}
        network = from_config("network", {**self.recipe.network, **sizes})
        return Preconditioned(network, self.recipe.preconditioning)

    def held_out(self, denoiser: Preconditioned, last: bool) -> dict[str, Any]:
        measured = [measure.measure(denoiser) for measure in (self.measures if last else self.measures[:1])]
        mse = torch.stack([m.by_sigma.mse for m in measured]).mean(0)
        return {
            "loss": statistics.fmean(m.loss for m in measured),
            "sigma": measured[0].by_sigma.sigma.tolist(),
            "mse": mse.tolist(),
        }


def gradients(task: Task, denoiser: Preconditioned, bins: int = 16, each: int = 24) -> dict[str, Any]:
    """The mean squared norm of a sample's gradient, and its loss, in bins of equal probability under p(σ)."""
    denoiser.eval()
    generator = torch.Generator().manual_seed(7)
    parameters = list(denoiser.parameters())
    x, labels = _sample(task.training, bins * each)
    noise = torch.randn(x.shape, generator=generator)
    u = (torch.arange(bins * each) % bins + torch.rand(bins * each, generator=generator)) / bins
    sigma = task.noise.quantile(u.double())
    loss = DenoisingLoss(task.noise)
    squares, losses = torch.zeros(bins, dtype=torch.float64), torch.zeros(bins, dtype=torch.float64)
    unweighted = torch.zeros(2, bins, dtype=torch.float64)  # the same for λ = 1
    for i in range(bins * each):
        k = slice(i, i + 1)
        value = loss.terms(denoiser, x[k], sigma[k], {"labels": labels[k]}, noise=noise[k]).objective.sum()
        norms = torch._foreach_norm(torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True))
        squares[i % bins] += float(torch.stack(norms).square().sum()) / each
        losses[i % bins] += float(value.detach()) / each
        scale = float(denoiser.weight(sigma[k])) ** -2
        unweighted[0, i % bins] += float(torch.stack(norms).square().sum()) * scale / each
        unweighted[1, i % bins] += float(value.detach()) * scale / each
    denoiser.train()
    levels = task.noise.quantile((torch.arange(bins).double() + 0.5) / bins)
    return {
        "sigma": levels.tolist(),
        "weight": denoiser.weight(levels).tolist(),
        "gradient": squares.tolist(),
        "loss": losses.tolist(),
        "factors": factors(squares, losses),
        "factors for λ=1": factors(unweighted[0], unweighted[1]),
    }


def factors(squares: torch.Tensor, proxies: torch.Tensor) -> list[float]:
    """What is left of the gradient's second moment: by `AdaptiveNoise` if proxies were true, in fact, and at best."""
    root = proxies.sqrt()
    h = SHARE + (1 - SHARE) * root / root.mean()
    parts = ((proxies / h).mean() / proxies.mean(), (squares / h).mean() / squares.mean())
    return [*map(float, parts), float(squares.sqrt().mean() ** 2 / squares.mean())]


def _sample(data: DataSet, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    places = torch.linspace(0, len(data) - 1, count).round().long()
    assert data.labels is not None
    return data.batch(places), data.labels[places]


def train(task: Task, variant: str, seed: int) -> Iterator[tuple[int, Preconditioned, Preconditioned, Any]]:
    """(images, model, averaged model, noise), five times on the way."""
    recipe = task.recipe
    denoiser = task.denoiser(seed)
    uncertainty = Uncertainty() if variant == "uncertainty" else None
    noise = AdaptiveNoise(task.noise, share=SHARE) if variant.endswith("adaptive") else task.noise
    weight = UniformWeight() if variant.startswith("λ=1") else None
    loss = DenoisingLoss(noise, weight, uncertainty=uncertainty)
    parameters = [*denoiser.parameters(), *loss.parameters()]
    optimizer = torch.optim.Adam(parameters, fused=True)
    schedule = LearningRate(recipe.images, recipe.learning_rate, recipe.ramp_images, recipe.decay_images)
    ema = EMA(denoiser, HalfLife(recipe.ema_halflife_images, recipe.ema_ramp_ratio))
    generator = torch.Generator().manual_seed(seed + 1000)
    images, marks = 0, [round(recipe.images * k / 5) for k in range(1, 6)]
    for step, (x, labels) in enumerate(batches(task.training, recipe.batch_size, seed, 0, prefetch=0)):
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(images)
        sigma = noise.sample(len(x), stratified=True, generator=generator)
        unit = torch.randn(x.shape, generator=generator)
        assert labels is not None
        terms = loss.terms(denoiser, x, sigma, {"labels": labels}, noise=unit)
        optimizer.zero_grad()
        terms.objective.mean().backward()
        optimizer.step()
        noise.learn(step, sigma, terms.gradient)
        ema.follow(denoiser, images, len(x))
        images += len(x)
        if images >= marks[0]:
            marks.pop(0)
            yield images, denoiser, ema.module, noise
            if not marks:
                return


def measure(task: Task, variant: str, seed: int) -> dict[str, Any]:
    begun, curve, moments, density = time.perf_counter(), [], [], None
    for images, denoiser, averaged, noise in train(task, variant, seed):
        curve.append({"images": images, **task.held_out(averaged, images >= task.recipe.images)})
        if variant == "plain" and seed == 0 and len(curve) in (1, 3, 5):
            moments.append({"images": images, **gradients(task, denoiser)})
        if isinstance(noise, AdaptiveNoise):
            density = noise.density.tolist()
        print(f"{variant} {seed}: {images:,} images, held-out loss {curve[-1]['loss']:.4f}", flush=True)
    seconds = time.perf_counter() - begun
    return {
        "variant": variant,
        "seed": seed,
        "curve": curve,
        "gradients": moments,
        "density": density,
        "seconds": seconds,
    }


def ratios(runs: list[dict[str, Any]], variant: str) -> list[list[float]]:
    """For each seed, the squared error by σ at the end over that of the training without the option."""
    base = baseline(variant)
    last = {(r["variant"], r["seed"]): r["curve"][-1]["mse"] for r in runs}
    seeds = sorted({r["seed"] for r in runs if r["variant"] == variant})
    return [[a / b for a, b in zip(last[variant, s], last[base, s], strict=True)] for s in seeds]


def baseline(variant: str) -> str:
    return "λ=1" if variant.startswith("λ=1") else "plain"


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    from diffspace.figures.style import new_figure, theme, tidy

    figure = new_figure(11, 3.3)
    axes = figure.subplots(1, 3)
    sigma = runs[0]["curve"][-1]["sigma"]
    for ax, title, options in (
        (axes[0], "λ = 1/c_out²: squared error ÷ without", ("uncertainty", "adaptive")),
        (axes[1], "λ = 1: squared error ÷ without", ("λ=1 adaptive",)),
    ):
        for variant in options:
            for i, line in enumerate(ratios(runs, variant)):
                colour = theme().palette[0 if variant == "uncertainty" else 1]
                ax.plot(sigma, line, color=colour, lw=1.3, label=variant.split()[-1] if i == 0 else None)
        ax.axhline(1, color=theme().gray, lw=1)
        ax.set(title=title, xlabel="noise level σ", xscale="log")
        ax.legend()
    moment = next(r["gradients"][-1] for r in runs if r["gradients"])
    weights = moment["weight"]
    for name, colour, scale in (
        ("1/c_out²", theme().palette[0], [1.0] * len(weights)),
        ("1", theme().palette[1], weights),
    ):
        for key, style, what in (("gradient", "-", "gradient"), ("loss", "--", "loss")):
            root = [math.sqrt(v) / w for v, w in zip(moment[key], scale, strict=True)]
            mean = statistics.fmean(root)
            axes[2].plot(moment["sigma"], [r / mean for r in root], style, color=colour, label=f"λ = {name}, by {what}")
    axes[2].set(title="draws ÷ those of the base", xlabel="noise level σ", xscale="log")
    axes[2].legend(fontsize=7)
    for ax in axes:
        tidy(ax)
    figure.savefig(path, dpi=130)


def summarise(runs: list[dict[str, Any]]) -> None:
    for r in runs:
        print(f"{r['variant']:<12} seed {r['seed']}: held-out loss {r['curve'][-1]['loss']:.4f}, {r['seconds']:.0f} s")
    for variant in dict.fromkeys(r["variant"] for r in runs if r["variant"] not in ("plain", "λ=1")):
        lines = ratios(runs, variant)
        print(f"\nsquared error of {variant} ÷ {baseline(variant)}, by σ, {len(lines)} seeds")
        for k, sigma in enumerate(runs[0]["curve"][-1]["sigma"]):
            print(f"{sigma:8.3f}  " + "  ".join(f"{line[k]:.3f}" for line in lines))
    print("\nsecond moment of the gradient ÷ that of plain draws: predicted, with adaptive draws, at best")
    for moment in (m for r in runs for m in r["gradients"]):
        for key in ("factors", "factors for λ=1"):
            print(f"{moment['images']:>8,} images, {key}: " + ", ".join(f"{p:.3f}" for p in moment[key]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.figure is not None and options.variants != ",".join(VARIANTS):
        parser.error("--figure: shows all variants")
    task = Task(options.images)
    runs = []
    for seed in map(int, options.seeds.split(",")):
        for variant in options.variants.split(","):
            runs.append(measure(task, variant, seed))
            if options.out is not None:
                options.out.write_text(json.dumps(runs, indent=1))
    summarise(runs)
    if options.figure is not None:
        draw(runs, options.figure)


if __name__ == "__main__":
    main()
