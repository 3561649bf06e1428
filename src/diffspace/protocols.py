"""The structural types on which the parts of diffspace meet.

Nothing has to inherit from these: a plain function is a valid `Denoiser`, any `torch.nn.Module` with the right
`forward` is a valid `Network`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffspace.checks import check_callable

Cond: TypeAlias = Mapping[str, Tensor]
"""Named conditions with leading dimension B: "labels", "augment", "image", …"""

Real = TypeVar("Real", float, Tensor)

PAPER_SIGMA_DATA, PAPER_RANGE = 0.5, (0.002, 80.0)
"""The standard deviation of the paper's data, and the noise levels between which it samples them."""


@runtime_checkable
class Denoiser(Protocol):
    """D(x; σ): the estimate of x₀ from x = x₀ + σε (Eq. 2 of the paper).

    x is the *unscaled* state x_t / s(t), of shape (B, *dims); sigma is a tensor of shape () or (B,); the result is
    like x. Optional attributes that tools read where they exist: `sigma_min` and `sigma_max` (floats, the range on
    which D is defined), `sampling_range` (two floats, between which sampling goes unless the steps say otherwise),
    `sigma_data` (a float, the standard deviation of the data, which moves the paper's constants), `round_sigma(sigma)`
    (the nearest noise level that the network knows), `levels` (their table), `weight(sigma)` (the training weight λ),
    `sample_shape` (the shape of one sample, without the batch), `transform` (from the data to the model's space),
    `made_for(shape)` (the number of samples for which it holds one row each, or None). `stated` also finds them in
    `functools.partial` and in torch's own wrappers. D must not change x, sigma or cond, and must return a new tensor
    each time.
    """

    def __call__(self, x: Tensor, sigma: Tensor, cond: Cond | None = None, /) -> Tensor: ...


@runtime_checkable
class Network(Protocol):
    """F(c_in·x; c_noise): the raw network inside a preconditioned denoiser (Eq. 7); c_noise has shape (B,)."""

    def __call__(self, x: Tensor, c_noise: Tensor, cond: Cond | None = None, /) -> Tensor: ...


@runtime_checkable
class Encoder(Protocol):
    """A map from data to the latents of a model and back: `decode(encode(x))` is near x.

    Each channel of the latents is standardised, so that a model needs only one σ_data. A stochastic encoder returns the
    mean, or with `noise` (unit variance, the shape of the latents) a draw. `decode` takes any latents, such as samples.
    """

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


@runtime_checkable
class Schedule(Protocol):
    """The noise schedule σ(t), its derivative and its inverse, on floats and on tensors alike."""

    @property
    def scaling(self) -> Scaling:
        """The s(t) that the schedule is customarily used with."""
        ...

    def sigma(self, t: Real) -> Real: ...

    def sigma_dot(self, t: Real) -> Real: ...

    def sigma_inv(self, sigma: Real) -> Real: ...


@runtime_checkable
class Scaling(Protocol):
    """The signal scaling s(t) and its derivative, given t and the schedule's σ(t) and σ̇(t)."""

    def s(self, t: Real, sigma: Real) -> Real: ...

    def s_dot(self, t: Real, sigma: Real, sigma_dot: Real) -> Real: ...


class Request(NamedTuple):
    """A solver's request to the driver for D at the unscaled state x and noise level sigma.

    sigma is a tensor of shape (B,) where samples are at different levels. A solver that knows the answer already puts
    it into `known`, for the states that the driver yields.
    """

    x: Tensor
    sigma: float | Tensor
    known: Tensor | None = None


class Increment(NamedTuple):
    """A stochastic solver's request to the driver for B(end) − B(start) of each sample's own Brownian motion B.

    The clock is any function of σ or t that is not negative: B(0) = 0 and the variance of an increment is
    |end − start|. A seed determines B, independently of the steps. The increments of a run must not overlap, because
    noise that replaces B is drawn anew for each.
    """

    start: float
    end: float


@runtime_checkable
class TimeSteps(Protocol):
    """The noise levels of the steps: N+1 from σ_max down to the terminal one, in float64."""

    @property
    def num_steps(self) -> int: ...

    def sigmas(self, model_range: tuple[float, float] = ..., *, start: float | None = ...) -> Tensor:
        """The levels, within `model_range`; re-spaced to begin at `start` where one is given."""
        ...


def inside(denoiser: object) -> object | None:
    """What `functools.partial` or a wrapper of torch's that states nothing itself holds; None for anything else."""
    if isinstance(denoiser, functools.partial):
        return denoiser.func
    if isinstance(denoiser, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
        return denoiser.module
    return None


def module_of(denoiser: object) -> nn.Module | None:
    """The module that a denoiser is, or that a `functools.partial` holds."""
    found: object | None = denoiser
    while found is not None and not isinstance(found, nn.Module):
        found = inside(found)
    return found


def stated(denoiser: object, name: str, default: Any = None) -> Any:
    """The optional attribute of a denoiser, or of what it wraps."""
    while (found := getattr(denoiser, name, None)) is None:
        if (denoiser := inside(denoiser)) is None:
            return default
    return found


def check_denoiser(denoiser: object) -> None:
    """ValueError unless `denoiser` can be called as D(x, sigma, cond)."""
    check_callable("denoiser", denoiser, "D(x, sigma, cond)")
    function: Any = denoiser
    first: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        first, named = (*function.args, *first), {**function.keywords, **named}
        function = function.func
    function = function.forward if isinstance(function, nn.Module) else function
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function that does not say
        return
    try:
        signature.bind(*first, None, None, None, **named)
    except TypeError as error:
        raise ValueError(
            f"denoiser: is called as D(x, sigma, cond), where cond may be None, and takes {signature}: "
            f"{error}; wrap it: lambda x, sigma, cond=None: …"
        ) from None


def sigma_range(denoiser: object) -> tuple[float, float]:
    """The (σ_min, σ_max) on which a denoiser is defined; (0, ∞) if it does not state one."""
    return float(stated(denoiser, "sigma_min", 0.0)), float(stated(denoiser, "sigma_max", float("inf")))


def sampling_range(denoiser: object) -> tuple[float, float] | None:
    """The (σ_min, σ_max) between which a denoiser says that sampling goes; None if it does not."""
    found = stated(denoiser, "sampling_range")
    return None if found is None else (float(found[0]), float(found[1]))


def data_scale(denoiser: object) -> float:
    """σ_data over the paper's 0.5, by which the constants of Table 1 move; 1 if the denoiser does not state σ_data."""
    return float(stated(denoiser, "sigma_data", PAPER_SIGMA_DATA)) / PAPER_SIGMA_DATA


def check_cond(
    cond: Cond | None, known: Iterable[str] | None = None, who: str = "", required: Mapping[str, str] | None = None
) -> Cond:
    """The condition as a mapping of tensors; ValueError for a name that `who` does not know, or that it lacks.

    `known` are its names, None for any; `required` has the remedy for each without which `who` is not evaluated.
    """
    if cond is not None and not isinstance(cond, Mapping):
        raise ValueError(f'cond: expected a mapping such as {{"labels": labels}}, got {type(cond).__name__}')
    for name, value in (cond or {}).items():
        if not isinstance(value, Tensor):
            raise ValueError(f"cond: {name!r} is a {type(value).__name__}; convert it with torch.as_tensor")
    if known is not None and (unknown := sorted(set(cond or ()) - set(known := tuple(known)))):
        allowed = ", ".join(known) if known else "no conditions"
        raise ValueError(f"cond: {who} does not know {', '.join(map(repr, unknown))}; it takes {allowed}")
    if missing := [name for name in required or () if name not in (cond or {})]:
        raise ValueError(f"cond: {who} requires {', '.join(map(repr, missing))}; {(required or {})[missing[0]]}")
    return cond or {}
