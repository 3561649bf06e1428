"""Where samples start: seeds and a shape, unit-variance latents, or a state at a noise level."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_seeds
from diffspace.protocols import Increment, check_denoiser, stated
from diffspace.sampling.brownian import BrownianPath
from diffspace.sampling.streams import initial_latents, step_noise
from diffspace.tensors import check_floating

Noise = Callable[[int, Tensor], Tensor]


def is_finite(x: Tensor) -> bool:
    # a finite sum is proof enough and cheap; one that is not finite may come from overflow
    return math.isfinite(x.detach().sum().item()) or bool(torch.isfinite(x).all())


def not_finite(x: Tensor, first: int = 0) -> str:
    """The numbers of the samples that are not finite, from `first` on; "" where all are."""
    if is_finite(x):
        return ""
    bad = (first + (~torch.isfinite(x.reshape(len(x), -1)).all(1)).nonzero().flatten()).tolist()
    return f"{bad[:8]}{' …' if len(bad) > 8 else ''}"


def check_finite(name: str, x: Tensor) -> None:
    if bad := not_finite(x):
        raise ValueError(f"{name}: not finite in samples {bad}")


@dataclass(frozen=True)
class Start:
    """The start of `count` samples. `tensor` holds states at a noise level if `at_sigma`, else unit latents."""

    count: int
    shape: tuple[int, ...]
    seeds: tuple[int, ...] | None
    tensor: Tensor | None
    at_sigma: bool

    def slice(self, rows: slice) -> Start:
        seeds = None if self.seeds is None else self.seeds[rows]
        tensor = None if self.tensor is None else self.tensor[rows]
        return Start(len(range(self.count)[rows]), self.shape, seeds, tensor, self.at_sigma)

    def state(self, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The unscaled state at the first noise level."""
        drawn = initial_latents(self.seeds or (), self.shape) if self.tensor is None else self.tensor
        x = drawn.to(device, dtype)
        return x.clone() if self.at_sigma else x * sigma

    def noise(self, injected: Noise | None) -> Noise:
        """The churn noise of each step, by (seed, step) or as injected."""
        return injected or (lambda step, like: step_noise(self.seeds or (), step, self.shape))

    def increments(self, injected: Noise | None) -> Callable[[Increment, Tensor], Tensor]:
        """Brownian increments of a stochastic solver: of each seed's own path, or made of injected unit noise."""
        if injected is not None:
            draws = itertools.count()
            return lambda of, like: math.sqrt(abs(of.end - of.start)) * injected(next(draws), like)
        path = functools.cache(lambda: BrownianPath(self.seeds or (), self.shape))
        return lambda of, like: path().increment(*of)


def make_start(
    denoiser: object,
    *,
    shape: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    latents: Tensor | None = None,
    x: Tensor | None = None,
) -> Start:
    """Check the arguments against each other and against what the denoiser states; x is a state at a noise level."""
    check_denoiser(denoiser)
    tensor, name = (latents, "latents") if x is None else (x, "x")
    if shape is not None and not isinstance(shape, tuple | list):
        raise ValueError(f"shape: expected sizes such as (3, 32, 32), got {shape!r}")
    frozen = None if seeds is None else check_seeds(seeds)
    if tensor is not None:
        check_floating(name, tensor, batch=True)
        if shape is not None and tuple(shape) != tuple(tensor.shape[1:]):
            raise ValueError(f"shape: {tuple(shape)}, but {name} has samples of shape {tuple(tensor.shape[1:])}")
        check_finite(name, tensor)
        shape = tensor.shape[1:]
        if frozen is not None and len(frozen) != len(tensor):
            raise ValueError(f"seeds: {len(frozen)} for {len(tensor)} samples; expected one for each")
    elif frozen is None:
        raise ValueError("seeds: expected seeds (with shape) or latents, got neither")
    known: Sequence[int] | None = stated(denoiser, "sample_shape")
    shape = known if shape is None else shape
    if shape is None:
        raise ValueError("shape: the denoiser does not state the shape of a sample; give shape=(…)")
    # a model that takes any image size still fixes the number of dimensions and of channels
    if known is not None and (len(known) != len(shape) or tuple(known[:1]) != tuple(shape[:1])):
        raise ValueError(f"shape: {tuple(shape)}, but the model was made for samples like {tuple(known)}")
    if any(not isinstance(size, int) or size < 1 for size in shape):
        raise ValueError(f"shape: expected positive sizes, got {tuple(shape)}")
    count = len(frozen or ()) if tensor is None else len(tensor)
    if count == 0:
        raise ValueError(f"{'seeds' if tensor is None else name}: expected at least one sample, got none")
    return Start(count, tuple(shape), frozen, tensor, x is not None)
