"""Room 3: what a preconditioning does over σ, and a small network that learns with it beside the exact denoiser."""

from __future__ import annotations

import functools
import importlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import torch

import diffspace as ds
from diffspace._shapes import Float, Tensor
from diffspace.explorer.jobs import Job
from diffspace.explorer.settings import Data
from diffspace.explorer.training_settings import (
    MEASURED,
    Design,
    Training,
    data_deviation,
    held_out,
    held_out_python,
    measured_levels,
    unit,
)
from diffspace.preconditioning import Preconditioned
from diffspace.studies import (
    COLUMNS,
    attainable_loss,
    coefficient_curves,
    excess_loss,
    log_space,
    plane_density,
    predictions,
    target_curves,
    training_density,
    training_stages,
)

_FINE = 121  # levels of the curves
_LINE, _PLANE = 81, 9  # points where denoisers are shown, on a line or along each side of a square
_DENSE = {1: 401, 2: 96}
_SAMPLES, _SAMPLING = 200, 16  # of the network, and the steps to them
STAGES = 11  # of a run, after its start


def curves_picture(design: Design, job: Job) -> dict[str, Any]:
    """Coefficients, variances and weight of Table 1's columns and of the chosen design; its loss before training."""
    _prepare()
    preconditioning, weight, noise = design.build()
    deviation, scale = data_deviation(design.data), unit(design.data)
    sigma = log_space(0.002 * scale, 200 * scale, _FINE)
    shown = {name: each for name, each in predictions(design.scale).items() if name in COLUMNS}
    shown[design.prediction] = preconditioning, weight
    curves = {}
    for name, (each, its_weight) in shown.items():
        found, target = coefficient_curves(each, sigma), target_curves(each, its_weight, sigma, deviation)
        curves[name] = {
            "c_skip": found.c_skip,
            "c_out": found.c_out,
            "c_in": found.c_in,
            "c_noise": found.c_noise,
            "input": target.input_variance,
            "target": target.target_variance,
            "signal": target.signal_share,
            "weight": target.effective_weight,
        }
    job.check()
    levels = measured_levels(design.data)
    middle = preconditioning.coefficients(torch.tensor(design.scale, dtype=torch.float64, device="cpu"))
    return {
        "sigma": sigma,
        "curves": curves,
        "prediction": design.prediction,
        "sigma_data": design.scale,
        "at_sigma_data": {"c_skip": float(middle.c_skip), "c_out": float(middle.c_out)},
        "deviation": deviation,
        "start": weight(sigma) * untrained_error(design, sigma),
        "density": training_density(noise, sigma),
        "levels": levels,
        "weight": weight(levels),
        "attainable": weight(levels) * attainable_error(design.data),
        "P_mean": getattr(noise, "P_mean", None),
        "P_std": getattr(noise, "P_std", None),
        "dim": design.data.dim,
        "python": _curves_python(design, scale),
    }


@functools.cache
def _prepare() -> None:
    """Import what torch imports at the first optimizer, which takes a second, before the first training."""
    threading.Thread(target=importlib.import_module, args=("torch._dynamo",), daemon=True).start()


def untrained_error(design: Design, sigma: Float[Tensor, "levels"]) -> Float[Tensor, "levels"]:
    """E‖c_skip·(y + n) − y‖² per dimension, the error where F = 0, as the network is at the start."""
    mean, variance = design.data.mixture.moments()
    c_skip = design.build()[0].coefficients(sigma).c_skip
    return (1 - c_skip) ** 2 * (variance + mean**2) + (c_skip * sigma) ** 2


@functools.lru_cache(16)
def attainable_error(data: Data) -> Float[Tensor, "levels"]:
    """E‖D* − y‖² per dimension of the exact denoiser."""
    return attainable_loss(data.mixture, held_out(data), sigmas=measured_levels(data))


def _curves_python(design: Design, scale: float) -> str:
    return (
        f"{design.python}\n{held_out_python(design.data)}\n"
        f"sigma = studies.log_space({0.002 * scale!r}, {200 * scale!r}, {_FINE})\n"
        "curves = studies.coefficient_curves(preconditioning, sigma)\n"
        "target = studies.target_curves(preconditioning, weight, sigma, data.sigma_data)\n"
        "density = studies.training_density(noise, sigma)\n"
        "attainable = weight(sigmas) * studies.attainable_loss(data, held_out, sigmas=sigmas)\n"
        "mean, variance = data.moments()\n"
        "c_skip = preconditioning.coefficients(sigma).c_skip\n"
        "start = weight(sigma) * ((1 - c_skip) ** 2 * (variance + mean**2) + (c_skip * sigma) ** 2)\n"
        'print(f"σ of the most training: {float(sigma[density.argmax()]):.3g}")'
    )


def training_picture(training: Training, job: Job) -> dict[str, Any]:
    """Train, and tell the denoiser at each stage, its loss and its samples."""
    began, threads = time.monotonic(), torch.get_num_threads()
    data, levels = training.data, measured_levels(training.data)
    oracle, weight, attainable = data.mixture, common_weight(data), attainable_error(data)
    x = _places(data, levels)
    usual = _usual(data)

    def before(step: int) -> None:
        job.check()
        if step % 20 == 0:
            job.tell(step=step)

    torch.set_num_threads(1)  # its tensors are small, and a second thread would only wait
    try:
        for step, denoiser in training_stages(at=stages(training.steps), before=before, **training.options):
            excess = excess_loss(denoiser, oracle, held_out(data)[:MEASURED], sigmas=levels)
            samples = _samples(denoiser, data)
            stage = {
                "step": step,
                "images": 128 * step,
                "error": attainable + excess,
                "loss": float(weight @ (attainable + excess)),
                "excess": float(weight @ excess),
                "denoised": _answers(denoiser, x, levels),
                "samples": samples.float(),
                "usual": float((_log_density(data, samples) > usual).double().mean()),
            }
            job.tell(stage=stage)
    finally:
        torch.set_num_threads(threads)
    return {"seconds": time.monotonic() - began, "python": _training_python(training)}


def common_weight(data: Data) -> Float[Tensor, "levels"]:
    """p(σ)·λ(σ) of EDM for the data's σ_data at the measured levels: Σ weight·error is one loss for all designs."""
    levels, deviation = measured_levels(data), data_deviation(data)
    density = training_density(ds.LogNormal.for_data(deviation), levels)
    return density / density.sum() * ds.EDMWeight(deviation)(levels)


def stages(steps: int) -> tuple[int, ...]:
    """The start, and steps at about equal ratios, of which the last is the end."""
    return (0, *sorted({round(float(step)) for step in log_space(8, steps, STAGES)}))


@torch.no_grad()
def _answers(denoiser: ds.Denoiser, x: Float[Tensor, "levels points dim"], sigma: Float[Tensor, "levels"]) -> Tensor:
    level = sigma.repeat_interleave(x.shape[1]).float()
    return denoiser(x.flatten(0, 1), level).reshape(x.shape)


def _places(data: Data, levels: Float[Tensor, "levels"]) -> Float[Tensor, "levels points dim"]:
    """Where noisy data lie at each level, as even points of a line or a square."""
    middle = data.mixture.mean().float()
    reach = (2.6 * (data_deviation(data) ** 2 + levels**2).sqrt()).float()
    even = torch.linspace(-1, 1, _LINE if data.dim == 1 else _PLANE, dtype=torch.float32, device="cpu")
    square = torch.cartesian_prod(*[even] * data.dim).reshape(-1, data.dim)
    return middle + reach[:, None, None] * square


@dataclass(frozen=True)
class Exact:
    """What is known of data without any training."""

    data: Data = field(default_factory=Data)


def exact_picture(exact: Exact, job: Job) -> dict[str, Any]:
    """The exact denoiser at the places where learnt ones are shown, its loss, and the density of the data."""
    data, mixture, levels = exact.data, exact.data.mixture, measured_levels(exact.data)
    x = _places(data, levels)
    reach = 1.05 * float(mixture.means.abs().amax() + 3.2 * mixture.variances.max().sqrt())
    shown = {"levels": levels, "x": x, "denoised": _answers(mixture, x, levels), "reach": reach, "dim": data.dim}
    job.check()
    shown["attainable_loss"] = float(common_weight(data) @ attainable_error(data))
    if data.dim == 2:
        return shown | {"density": plane_density(mixture, 0.0, 1.0, reach, _DENSE[2]).float()}
    line = reach * torch.linspace(-1, 1, _DENSE[1], dtype=torch.float64, device="cpu")
    return shown | {"density": _log_density(data, line[:, None]).exp()}


def _log_density(data: Data, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n"]:
    return data.mixture.log_prob(x.double(), torch.zeros((), dtype=torch.float64, device="cpu"))


@functools.lru_cache(16)
def _usual(data: Data) -> Tensor:
    """The log-density above which 95 % of the data lie."""
    x = data.mixture.sample(4000, generator=torch.Generator().manual_seed(5))
    return _log_density(data, x).quantile(0.05)


def _samples(denoiser: Preconditioned, data: Data) -> Tensor:
    low, high = _range(denoiser, data)
    return ds.sample(denoiser, seeds=range(_SAMPLES), steps=ds.EDMSteps(_SAMPLING, low, high)).x


def _range(denoiser: Preconditioned, data: Data) -> tuple[float, float]:
    """The paper's σ_min and σ_max for data of this deviation, within what the network knows."""
    deviation = data_deviation(data)
    return max(0.004 * deviation, denoiser.sigma_min), min(160 * deviation, denoiser.sigma_max)


def _training_python(training: Training) -> str:
    low, high = _range(Preconditioned(torch.nn.Identity(), training.build()[0]), training.data)
    return (
        f"{training.python}\n{held_out_python(training.data)}\n"
        "torch.set_num_threads(1)  # as on the page\n"
        f"trained = studies.train_small(\n    data,\n    preconditioning,\n    noise=noise,\n    weight=weight,\n"
        f"    network=lambda shape: ds.networks.MLP(shape, width={training.width}),\n"
        f"    steps={training.steps},\n    seed={training.seed},\n).trained\n"
        "attainable = studies.attainable_loss(data, held_out, sigmas=sigmas)\n"
        f"excess = studies.excess_loss(trained, data, held_out[:{MEASURED}], sigmas=sigmas)\n"
        "density = studies.training_density(ds.LogNormal.for_data(data.sigma_data), sigmas)\n"
        "weights = density / density.sum() * ds.EDMWeight(data.sigma_data)(sigmas)  # the same for all runs\n"
        "loss = weights @ (attainable + excess)\n"
        f"samples = ds.sample(trained, seeds=range({_SAMPLES}), steps=ds.EDMSteps({_SAMPLING}, {low!r}, {high!r})).x\n"
        'print(f"loss {float(loss):.4f}, attainable {float(weights @ attainable):.4f}")'
    )
