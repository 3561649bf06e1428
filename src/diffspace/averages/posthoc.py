"""Averages of any width, after training, from snapshots of a few (Karras et al. 2024, arXiv:2312.02696, Section 3.2).

A snapshot taken at t with exponent γ is the mean of all weights until then under p(τ) = (γ + 1)·τ^γ/t^(γ + 1), and a
linear combination of snapshots is the mean under the same combination of their profiles. The coefficients are
those that come nearest to the required profile, in least squares.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from diffspace._shapes import Float, Tensor
from diffspace.averages.ema import LARGEST_WIDTH, width_to_exponent
from diffspace.averages.snapshots import Snapshot, Snapshots

MISMATCH = 0.1
"""No average is reconstructed whose profile is matched worse, ‖Σ x_i·p_i − p‖ > 0.1·‖p‖."""


Averages = Sequence[tuple[float, float]]
"""Averages by the images after which they were taken and their width."""


def _profiles(averages: Averages) -> tuple[Tensor, Tensor]:
    """Times and exponents in float64, checked."""
    if not averages:
        raise ValueError("averages: expected at least one")
    if not all(time > 0 for time, _ in averages):
        raise ValueError(f"averages: expected positive numbers of images, got {min(averages)[0]}")
    pairs = [(time, width_to_exponent(width)) for time, width in averages]
    times, exponents = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    return times, exponents


def correlation(a: Averages, b: Averages) -> Float[Tensor, "n m"]:
    """⟨p_i, q_j⟩ = ∫ p_i(τ)·q_j(τ) dτ of power-function profiles, per image, in float64 (Appendix C).

    With t_a ≤ t_b it is (γ_a + 1)·(γ_b + 1)/(γ_a + γ_b + 1) · (t_a/t_b)^γ_b/t_b.
    """
    times_a, gamma_a = (v[:, None] for v in _profiles(a))
    times_b, gamma_b = _profiles(b)
    late = torch.maximum(times_a, times_b)
    gamma_late = torch.where(times_a > times_b, gamma_a, gamma_b)
    scale = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    product: Tensor = scale * torch.pow(torch.minimum(times_a, times_b) / late, gamma_late) / late
    return product


def solve(given: Averages, required: Averages) -> Float[Tensor, "n m"]:
    """The coefficients x_ij, Σ_i x_ij = 1, with which n given averages make m others, in float64 (Appendix C).

    They minimise ‖Σ_i x_ij·p_i − q_j‖² before they are divided by their sum. ValueError where two given are equal.
    """
    if len(set(given)) < len(given):
        raise ValueError("averages: expected each once")
    gram = correlation(given, given)
    # profiles of unit norm: early ones are tall, and their squares would drown the others in rounding
    norm = gram.diagonal().sqrt()
    target = correlation(given, required) / norm[:, None]
    x: Tensor = torch.linalg.solve(gram / (norm[:, None] * norm), target) / norm[:, None]
    return x / x.sum(0)


def mismatch(given: Averages, required: Averages) -> Float[Tensor, "m"]:
    """‖Σ_i x_ij·p_i − q_j‖/‖q_j‖ with the coefficients of `solve`.

    It is the relative error in what the noise of training leaves in an average; below about 1e-8 it is rounding.
    """
    x = solve(given, required)
    time, gamma = _profiles(required)
    own = (gamma + 1) ** 2 / ((2 * gamma + 1) * time)
    square = (x * (correlation(given, given) @ x - 2 * correlation(given, required))).sum(0) + own
    return (square / own).clamp(min=0).sqrt()


def attainable(snapshots: Sequence[Snapshot], images: int) -> tuple[float, float]:
    """The smallest and the largest width, around those of the snapshots until `images`, with a mismatch ≤ `MISMATCH`.

    They are known to about a hundredth of themselves.
    """
    present = [s.width for s in snapshots if s.images == images]
    grid = sorted({*torch.logspace(-3, 0, 700, dtype=torch.float64).mul(LARGEST_WIDTH).tolist()[:-1], *present})
    errors = mismatch(_until(snapshots, images), [(images, width) for width in grid]).tolist()
    good = {width for width, error in zip(grid, errors, strict=True) if error <= MISMATCH} | set(present)
    low = list(itertools.takewhile(good.__contains__, (w for w in reversed(grid) if w <= min(present))))
    high = list(itertools.takewhile(good.__contains__, (w for w in grid if w >= max(present))))
    return low[-1], high[-1]


def _until(snapshots: Sequence[Snapshot], images: int) -> Averages:
    return [(s.images, s.width) for s in snapshots if s.images <= images]


@dataclass(frozen=True)
class Reconstruction:
    """The average of a width at a number of images: which snapshots make it, with which coefficients."""

    width: float
    images: int
    parts: Mapping[Snapshot, float]
    mismatch: float

    @classmethod
    def plan(cls, snapshots: Sequence[Snapshot], width: float, images: int | None = None) -> Reconstruction:
        """From the snapshots until `images` (None: the last), of which one has to be at `images`.

        ValueError, which says what is possible, where there is no snapshot or the width is out of reach.
        """
        times = sorted({s.images for s in snapshots})
        images = times[-1] if images is None else images
        if images not in times:
            near = ", ".join(map(str, sorted(sorted(times, key=lambda t: abs(t - images))[:2])))
            raise ValueError(f"images: there is no snapshot after {images}; the nearest are after {near}")
        width_to_exponent(width)
        for snapshot in snapshots:
            if (snapshot.images, snapshot.width) == (images, width):
                return cls(width, images, {snapshot: 1.0}, 0.0)
        used = _until(snapshots, images)
        error = float(mismatch(used, [(images, width)]))
        if error > MISMATCH:
            low, high = attainable(snapshots, images)
            raise ValueError(f"width: {width:g} is outside of what the snapshots allow, {low:.3g} to {high:.3g}")
        coefficients = solve(used, [(images, width)])[:, 0].tolist()
        parts = zip((s for s in snapshots if s.images <= images), coefficients, strict=True)
        return cls(width, images, dict(parts), error)

    def compute(self) -> dict[str, Tensor]:
        """The state dict of the averaged module, float32; summed in float64, one snapshot in memory at a time.

        ValueError names a snapshot that is damaged or of another module.
        """
        total: dict[str, Tensor] = {}
        shapes: dict[str, torch.Size] = {}
        newest = max(self.parts, key=lambda s: s.images)
        for snapshot, coefficient in self.parts.items():
            here = {}
            for name, value, averaged in snapshot.tensors():
                here[name] = value.shape
                if shapes and shapes.get(name) != value.shape:
                    break
                if averaged:
                    part = value.double().mul_(coefficient)
                    total[name] = part if name not in total else total[name].add_(part)
                elif snapshot == newest:
                    total[name] = value
            shapes = shapes or here
            if here != shapes:
                raise ValueError(f"snapshot: {snapshot.path} is of another network than those before it")
        return {name: value.float() if value.dtype == torch.float64 else value for name, value in total.items()}


def reconstruct(folder: str | Path, width: float, images: int | None = None) -> dict[str, Tensor]:
    """The averaged weights of a width from the snapshots of a run: `Reconstruction.plan` and `compute`."""
    return Reconstruction.plan(Snapshots(folder).all(), width, images).compute()
