"""sigma_data, the σ range, P_mean and P_std, measured from samples in the model's space.

Every proposal scales with the data: ten times the values give ten times the σ, and P_mean + ln 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from diffspace._shapes import Float, Tensor
from diffspace.inspection.learnability import coordinates, learnable_share, mode_variances
from diffspace.objective import LogNormal
from diffspace.protocols import PAPER_RANGE, PAPER_SIGMA_DATA

_PAPER = dict(zip(("sigma_min", "sigma_max"), PAPER_RANGE, strict=True))
_PAPER |= {"sigma_data": PAPER_SIGMA_DATA, "P_mean": LogNormal.P_mean, "P_std": LogNormal.P_std}
_WIDTH = 5.0  # for images of 32×32 with σ_data = 0.5 this comes near the paper's σ_max = 80
_FEW = 16  # samples: with fewer nothing can be said of their covariance
_NOISE = 0.02  # learnable share below which samples pass for white noise
_LEVELS = 48


@dataclass(frozen=True)
class Proposal:
    """A value for a parameter, and the reason for it."""

    name: str
    value: float
    reason: str

    @property
    def paper(self) -> float:
        """The paper's value, for images with σ_data = 0.5."""
        return _PAPER[self.name]


class Proposals(NamedTuple):
    """The five numbers of the EDM column that depend on the data."""

    sigma_data: Proposal
    sigma_min: Proposal
    sigma_max: Proposal
    P_mean: Proposal
    P_std: Proposal

    def disagreements(self, **used: float | None) -> tuple[str, ...]:
        """A sentence for each value in use, passed by its name, that is far from the proposed one.

        Far means: sigma_data off by a factor of more than 1.25; sigma_min more than 4 times too large and sigma_max
        less than half (the other way they only cost steps); P_mean off by more than P_std; P_std by a factor of more
        than 2.
        """
        far: dict[str, Callable[[float, float], bool]] = {
            "sigma_data": lambda used, proposed: _ratio(used, proposed) > 1.25,
            "sigma_min": lambda used, proposed: used > 4 * proposed,
            "sigma_max": lambda used, proposed: used < proposed / 2,
            "P_mean": lambda used, proposed: abs(used - proposed) > self.P_std.value,
            "P_std": lambda used, proposed: _ratio(used, proposed) > 2,
        }
        return tuple(
            f"{p.name} = {value:g}, but the data suggest {p.value:.3g}: {p.reason}"
            for p in self
            if (value := used.get(p.name)) is not None and far[p.name](value, p.value)
        )


def _ratio(one: float, other: float) -> float:
    return max(one / other, other / one)


def propose(x: Float[Tensor, "n *dims"], step: float | None = None) -> Proposals:
    """The proposals for samples x of which not all elements are equal.

    `step` is the distance of neighbouring values in x where they are quantised (2/255 for 8-bit images).
    """
    sigma_data = float(x.std(correction=0))
    sigma_min, sigma_max = _sigma_min(sigma_data, step), _sigma_max(x)
    P_mean, P_std = _noise_distribution(x, sigma_data, sigma_min.value, sigma_max.value)
    reason = "the standard deviation of all elements, which gives the network an input of variance 1"
    return Proposals(Proposal("sigma_data", sigma_data, reason), sigma_min, sigma_max, P_mean, P_std)


def _sigma_min(sigma_data: float, step: float | None) -> Proposal:
    """What is left of the noise at the end must be invisible."""
    finest = _PAPER["sigma_min"] / _PAPER["sigma_data"] * sigma_data
    if step is not None and finest < step / math.sqrt(12) and step < sigma_data / 2:
        return Proposal("sigma_min", step / math.sqrt(12), f"the rounding error of steps of {step:.3g}, step/√12")
    return Proposal("sigma_min", finest, "the paper's fraction of sigma_data, 1/250")


def _sigma_max(x: Tensor) -> Proposal:
    """The noise at the start must drown the data: what is visible of them there is missing from the samples.

    The largest root mean square of x along any direction, times 5. Sampling starts from N(0, σ_max²), whose width along
    that direction is then less than 2 % from that of the noisy data, √(1 + 1/25). (The largest distance between two
    samples, technique 1 of Song and Ermon 2020, is nearly the same for images.)
    """
    flat = x.flatten(1)
    found, tested = (flat[0::2], flat[1::2]) if len(flat) >= _FEW else (flat, flat)
    direction = found[found.norm(dim=1).argmax()]
    for _ in range(30):  # power iteration on every other sample; the rest measures the width
        turned = found.T @ (found @ direction)
        direction = turned / turned.norm().clamp_min(torch.finfo(turned.dtype).tiny)
    squares = torch.stack([(tested @ direction).square().mean(), flat.square().mean()])
    width = float(squares.max().sqrt())  # the widest direction is no narrower than the mean one
    reason = f"{_WIDTH:g} times the root mean square along the widest direction, {width:.3g}"
    return Proposal("sigma_max", _WIDTH * width, reason)


def _noise_distribution(x: Tensor, sigma_data: float, sigma_min: float, sigma_max: float) -> tuple[Proposal, Proposal]:
    """Mean and standard deviation of ln σ under the density r(σ)·c_out(σ)/σ, from σ_min to σ_max.

    r is the share of the loss that can be learnt. c_out/σ is the weight of the network in the ODE, dx/dσ = (x − D)/σ:
    where the noise is larger than the data it falls as σ_data/σ. If necessary the standard deviation is widened until
    twice it reaches from P_mean to 2·sigma_data: up to there the network matters to the ODE and must be trained.
    """
    if len(x) < _FEW:
        return _paper_values("too few samples to measure their structure", sigma_data)
    z = coordinates(x)
    ln_sigma = torch.linspace(math.log(sigma_min), math.log(sigma_max), _LEVELS, dtype=torch.float64, device="cpu")
    sigmas = ln_sigma.exp()
    share = learnable_share(z, sigmas)
    best = int(share.argmax())
    if share[best] < _NOISE:
        return _paper_values("the samples hardly differ from white noise", sigma_data)

    density = share / (1 + sigmas**2 / mode_variances(z).mean()).sqrt()
    density = density / density.sum()
    mean = float((density * ln_sigma).sum())
    std = float((density * (ln_sigma - mean) ** 2).sum().sqrt())
    reach = (math.log(2 * sigma_data) - mean) / 2
    gain = f"up to {float(share[best]):.0%} of the loss (at σ = {float(sigmas[best]):.2g})"
    why_mean = f"the mean of ln σ where there is something to learn, {gain}"
    why_std = f"the spread of ln σ there is {std:.2g}"
    if reach > std:
        why_std += "; widened to reach up to σ = 2·sigma_data"
    return Proposal("P_mean", mean, why_mean), Proposal("P_std", max(std, reach), why_std)


def _paper_values(why: str, sigma_data: float) -> tuple[Proposal, Proposal]:
    moved = LogNormal.for_data(sigma_data)
    return (
        Proposal("P_mean", moved.P_mean, f"{why}: the paper's value, shifted to this sigma_data"),
        Proposal("P_std", moved.P_std, f"{why}: the paper's value"),
    )
