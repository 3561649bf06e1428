"""Ways between two latents that stay where Gaussian noise lies."""

from __future__ import annotations

import math
from typing import Literal

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_choice, check_integer
from diffspace.tensors import check_floating


def interpolate(
    a: Float[Tensor, "*dims"], b: Float[Tensor, "..."], n: int, *, kind: Literal["spherical", "mixing"] = "spherical"
) -> Float[Tensor, "{n} *dims"]:
    """n points from the latent a to the latent b, the ends among them: a batch for `decode` or `sample(latents=…)`.

    a and b are one sample each, of any scale, taken as vectors. With w = i/(n − 1):

    "spherical": ‖z‖ = (1 − w)·‖a‖ + w·‖b‖, and the direction turns by equal angles along the great circle. Noise in d
    dimensions has a norm of nearly σ√d, which a straight line would leave.
    "mixing": z = cos(½πw)·a + sin(½πw)·b, which is again N(0, σ²I) if a and b are independent draws of it.

    Parallel vectors, numbers (d = 1), and a vector and 0 are joined by the straight line, opposite vectors by way of
    the axis in which a is least. The ends are a and b themselves.
    """
    check_integer("n", n, 2)
    check_floating("a", a)
    check_floating("b", b)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            f"b: expected the shape and dtype of a, {tuple(a.shape)}, {a.dtype}, got {tuple(b.shape)}, {b.dtype}"
        )
    check_choice("kind", kind, ("spherical", "mixing"))
    for name, end in (("a", a), ("b", b)):
        if not bool(torch.isfinite(end).all()):
            raise ValueError(f"{name}: holds values that are not finite")
    wide = a.dtype if a.device.type == "mps" else torch.float64
    u, v = a.reshape(-1).to(wide), b.to(a.device).reshape(-1).to(wide)
    w = torch.linspace(0, 1, n, dtype=wide, device=a.device)[:, None]
    if kind == "mixing":
        angle = 0.5 * math.pi * w
        way = angle.cos() * u + angle.sin() * v
    else:
        way = _great_circle(u, v, w)
    points = way.to(a.dtype).reshape(n, *a.shape)
    points[0], points[-1] = a, b
    return points


def _great_circle(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    norm_u, norm_v = torch.linalg.vector_norm(u), torch.linalg.vector_norm(v)
    straight = (1 - w) * u + w * v
    if norm_u == 0 or norm_v == 0:
        return straight
    u, v = u / norm_u, v / norm_v
    # v = cos θ·u + sin θ·p with p across u: exact at small and at large angles, unlike sin((1 − w)θ)/sin θ
    across = _across(v, u)
    sine, cosine = torch.linalg.vector_norm(across), u @ v
    if sine <= 4 * torch.finfo(u.dtype).eps:
        if cosine > 0 or len(u) == 1:
            return straight
        across = _across(torch.nn.functional.one_hot(u.abs().argmin(), len(u)).to(u), u)
    theta = torch.atan2(sine, cosine)
    turn = w * theta
    direction = turn.cos() * u + turn.sin() * (across / torch.linalg.vector_norm(across))
    points: Tensor = ((1 - w) * norm_u + w * norm_v) * direction
    return points


def _across(v: Tensor, u: Tensor) -> Tensor:
    """The part of v that is at right angles to the unit vector u, orthogonalised twice against cancellation."""
    v = v - (v @ u) * u
    return v - (v @ u) * u
