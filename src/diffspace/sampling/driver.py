"""The loop that all solvers share: it adds churn, answers requests for D and for noise, and counts evaluations."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.process import Process
from diffspace.protocols import Increment, Request, TimeSteps, sigma_range, stated
from diffspace.sampling.sampler import Churn, Sampler, State
from diffspace.sampling.solvers.base import Point, Solver
from diffspace.sampling.steps import GivenTimes, steps_for

_CHANGED = "denoiser: it changed its x, or a result that it gave before, in place; expected a new tensor each time"
STATE_CHANGED = "states: x or denoised of one was changed in place, which are those of the run; expected a copy"


_NEAR, _SLOPE_TOLERANCE = 1e-4, 1e-2  # of slopes: the distance in time, and what is found to be wrong, both relative


class Kick(NamedTuple):
    """Churn before a step: the point at σ̂, and the standard deviation of the noise that leads there."""

    point: Point
    std: float


class Grid(NamedTuple):
    """The points between which a run takes its steps, and the churn before each step (None where there is none)."""

    points: list[Point]
    kicks: list[Kick | None]

    @property
    def sigmas(self) -> list[float]:
        """The noise levels of the points."""
        return [point.sigma for point in self.points]


def round_sigmas(denoiser: object, sigmas: Tensor) -> Tensor:
    """The nearest levels that the model knows; sigmas themselves where it does not say."""
    rounding: Callable[[Tensor], Tensor] | None = stated(denoiser, "round_sigma")
    return sigmas if rounding is None else rounding(sigmas)


def _at_given_times(
    denoiser: object, steps: GivenTimes, process: Process, start: float | None
) -> tuple[Tensor, Tensor]:
    """(t, σ) of a run whose times are given."""
    times = torch.tensor(steps.times, dtype=torch.float64, device="cpu")
    sigmas = process.sigma(times)
    if not bool((sigmas[:-1] > 0).all()) or not float(sigmas[-1]) >= 0 or not bool(torch.isfinite(sigmas).all()):
        raise ValueError("times: σ(t) must be finite, and positive at every time but the last")
    if not torch.equal(times == 0, sigmas == 0):
        raise ValueError("times: σ(t) must be 0 at t = 0 and nowhere else")
    if not sigmas[-1] < sigmas[0]:
        raise ValueError(f"times: σ(t) goes from {float(sigmas[0]):g} to {float(sigmas[-1]):g}; expected a fall")
    (least, greatest), low, high = sigma_range(denoiser), float(sigmas[sigmas > 0].min()), float(sigmas.max())
    if not least <= low <= high <= greatest:
        raise ValueError(f"times: σ(t) from {low:g} to {high:g} leaves the model's range [{least:g}, {greatest:g}]")
    for sigma, known in zip(sigmas.tolist(), round_sigmas(denoiser, sigmas).tolist(), strict=True):
        if not math.isclose(sigma, known, rel_tol=1e-6):
            raise ValueError(
                f"times: σ(t) = {sigma:g} is between the model's levels, of which the nearest is {known:g}"
            )
    if start is not None and not math.isclose(start, float(sigmas[0]), rel_tol=1e-6):
        raise ValueError(f"sigma_start: expected σ = {float(sigmas[0]):g}, where the given times begin, got {start:g}")
    return times, sigmas


def _at_levels(denoiser: object, steps: TimeSteps, process: Process, start: float | None) -> tuple[Tensor, Tensor]:
    """(t, σ) of a run whose noise levels are given by `steps`; that of a given state is not rounded."""
    sigmas = steps_for(denoiser, steps).sigmas(sigma_range(denoiser), start=start)
    if not isinstance(sigmas, Tensor) or sigmas.shape != (steps.num_steps + 1,):
        got = tuple(sigmas.shape) if isinstance(sigmas, Tensor) else f"a {type(sigmas).__name__}"
        raise ValueError(f"steps: expected a tensor of num_steps + 1 = {steps.num_steps + 1} levels, got {got}")
    sigmas = round_sigmas(denoiser, sigmas)
    if start is not None:
        sigmas = torch.cat([sigmas.new_tensor([start]), sigmas[1:].clamp_max(start)])
    for i, (high, low) in enumerate(pairwise(sigmas.tolist())):
        if not (0 < high < math.inf and 0 <= low <= high):
            raise ValueError(f"steps: expected levels that fall, but step {i} goes from σ = {high:g} to {low:g}")
    times = torch.where(sigmas > 0, process.sigma_inv(sigmas), 0.0)
    for t, sigma, level in zip(times.tolist(), process.sigma(times).tolist(), sigmas.tolist(), strict=True):
        if not math.isclose(sigma, level, rel_tol=1e-4):
            raise ValueError(f"process: σ(t) is {sigma:g} at t = {t:g}, where a step needs σ = {level:g}")
    return times, sigmas


def _check_slopes(process: Process, times: Sequence[float]) -> None:
    """ValueError where a σ̇(t) or ṡ(t) from outside diffspace is not the slope of its σ(t) or s(t), on neither side."""
    own = [type(part).__module__.startswith("diffspace.") for part in (process.schedule, process.scaling)]
    for name, known, value, slope in (
        ("schedule.sigma_dot", own[0], process.sigma, process.sigma_dot),
        ("scaling.s_dot", all(own), process.s, process.s_dot),
    ):
        for t in () if known else times:
            given, at = float(slope(t)), float(value(t))
            h = _NEAR * min(t, abs(at / given) if given else t)  # short beside the distance of a pole
            measured = []
            for side in (-h, h):
                with contextlib.suppress(ArithmeticError, ValueError):  # there may be no times on one side
                    near, far = float(value(t + side)), float(value(t + 2 * side))
                    measured.append((4 * near - far - 3 * at) / (2 * side))
            if measured and not any(abs(given - m) <= _SLOPE_TOLERANCE * max(abs(m), abs(at) / t) for m in measured):
                raise ValueError(f"{name}: is {given:g} at t = {t:g}, where the slope is {measured[0]:g}")


def make_grid(denoiser: object, sampler: Sampler, *, start: float | None = None, upward: bool = False) -> Grid:
    """Everything about a run that is known before its first evaluation.

    `denoiser` states its range of σ and the levels that it knows; `start` is a noise level from which the steps are
    spaced anew; `upward` goes from the last level to the first. ValueError where steps or churn leave the range.
    """
    steps, process = sampler.steps, sampler.process
    if isinstance(steps, GivenTimes):
        times, sigmas = _at_given_times(denoiser, steps, process, start)
    else:
        times, sigmas = _at_levels(denoiser, steps, process, start)
    _check_slopes(process, [t for t in times.tolist() if t > 0])
    if upward:
        if sigmas[-1] == 0:
            raise ValueError("steps: a run upward cannot start at σ = 0; make them with terminal='sigma_min'")
        if sampler.solver.first_denoiser is not None:
            raise ValueError(
                f"solver: {type(sampler.solver).__name__} knows D at high noise, where no run upward starts"
            )
        sigmas, times = sigmas.flip(0), times.flip(0)
    scales = process.scaling.s(times, sigmas)
    for t, s in zip(times.tolist(), scales.tolist(), strict=True):
        if not 0 < s < math.inf:
            raise ValueError(
                f"process: expected a positive s(t), got {s:g} at t = {t:g}, where σ(t) = {process.sigma(t):g}"
            )
    levels = zip(times.tolist(), sigmas.tolist(), scales.tolist(), strict=True)
    points = [Point(process, *level, steps_left=steps.num_steps - i) for i, level in enumerate(levels)]
    for one, other in pairwise(points):
        if other.sigma > 0:
            sampler.solver.check_step(one, other)
    kicks: list[Kick | None] = [None] * steps.num_steps
    if sampler.churn.S_churn > 0:
        kicks = [_kick(denoiser, sampler.churn, steps.num_steps, point) for point in points[:-1]]
    return Grid(points, kicks)


def _kick(denoiser: object, churn: Churn, num_steps: int, point: Point) -> Kick | None:
    sigma, process = point.sigma, point.process
    gamma = churn.gamma(sigma, num_steps)
    if gamma == 0:
        return None
    greatest = sigma_range(denoiser)[1]
    if sigma * (1 + gamma) > greatest:
        raise ValueError(
            f"S_tmax: {churn.S_tmax:g} lets churn lift σ = {sigma:g} to {sigma * (1 + gamma):g}, above the model's "
            f"sigma_max = {greatest:g}; set S_tmax below {sigma:g}"
        )
    lifted = float(round_sigmas(denoiser, torch.tensor(sigma * (1 + gamma), dtype=torch.float64, device="cpu")))
    if lifted <= sigma:
        return None
    try:
        t = process.sigma_inv(lifted)
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise ValueError(f"churn: the time at which σ(t) = {lifted:g} is not known: {reason}") from None
    return Kick(
        Point(process, t, lifted, process.s(t), point.steps_left), math.sqrt(lifted**2 - sigma**2) * churn.S_noise
    )


def _noise_like(state: Tensor, noise: Tensor) -> Tensor:
    if noise.shape != state.shape:
        raise ValueError(f"noise: expected the shape of the state, {tuple(state.shape)}, got {tuple(noise.shape)}")
    return noise.to(state)


def as_tensor(sigma: float | Tensor, like: Tensor) -> Tensor:
    """A noise level as the tensor that a denoiser takes."""
    return sigma if isinstance(sigma, Tensor) else like.new_full((), sigma)


def changes(*tensors: Tensor | None) -> list[int]:
    """How often each tensor was changed in place so far, by the count that torch keeps; None is left out.

    So are tensors of torch.inference_mode, which have no count.
    """
    return [x._version for x in tensors if x is not None and not x.is_inference()]


def _checked_answer(answer: object, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """What a denoiser returned, in the dtype of the state."""
    if not isinstance(answer, Tensor) or answer.shape != shape or not answer.is_floating_point():
        got = f"{tuple(answer.shape)} of {answer.dtype}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
        raise ValueError(f"denoiser: expected a result of shape {tuple(shape)}, like x, got {got}")
    return answer if answer.dtype == dtype else answer.to(dtype)


def _request(solver: Solver, asked: object) -> Request:
    """What a step yielded, if it is a request."""
    if isinstance(asked, Request):
        return asked
    who, got = type(solver).__name__, type(asked).__name__
    raise ValueError(f"solver: {who}.step must yield a Request or an Increment, got a {got}")


def _result(solver: Solver, value: Any) -> tuple[Tensor, Any]:
    """What a step returned, if it is a state with a memory."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Tensor):
        return value
    who, got = type(solver).__name__, type(value).__name__
    raise ValueError(f"solver: {who}.step must return a new state and a memory (or None), got a {got}")


def run_steps(
    solver: Solver,
    grid: Grid,
    x: Tensor,
    noise: Callable[[int, Tensor], Tensor],
    increment: Callable[[Increment, Tensor], Tensor],
) -> Generator[Request | State, Tensor | None, None]:
    """All steps of a run as one coroutine: the place where requests of solvers are answered.

    It yields a `Request` wherever D has to be evaluated, and is sent the value; and after each step the `State`, for
    which it is sent None, or a tensor from which to go on instead. x and states are unscaled.
    """
    points, kicks = grid
    shape, dtype = x.shape, x.dtype
    first_denoiser = solver.first_denoiser
    held: list[weakref.ref[Tensor]] = []  # results that a solver may still have
    memory, nfe = None, 0
    state = points[0].scale(x)
    for i, kick in enumerate(kicks):
        start, end = points[i], points[i + 1]
        if kick is not None:
            state = kick.point.scale(start.unscale(state) + kick.std * _noise_like(state, noise(i, state)))
            start = kick.point
        step = (solver.step if end.sigma > 0 else solver.step_to_zero)(state, start, end, memory)
        if not isinstance(step, Generator):
            raise ValueError(f"solver: {type(solver).__name__}.step must yield Requests, got a {type(step).__name__}")
        first: Tensor | None = None
        answer: Tensor | None = None  # None starts the coroutine of the step
        while True:
            try:
                asked = step.send(answer)  # type: ignore[arg-type]
            except StopIteration as finished:
                state, memory = _result(solver, finished.value)
                break
            if isinstance(asked, Increment):
                answer = _noise_like(state, increment(asked, state))
                continue
            answer = _request(solver, asked).known
            if answer is None and first_denoiser is not None:
                answer = first_denoiser(asked.x, as_tensor(asked.sigma, state))
            if answer is None:
                others = [y for ref in held if (y := ref()) is not None]
                before = changes(asked.x, *others)
                answer = yield asked
                if changes(asked.x, *others) != before:
                    raise ValueError(_CHANGED)
                held = [weakref.ref(y) for y in others]
                del others
                nfe += 1
            answer = _checked_answer(answer, shape, dtype)
            held.append(weakref.ref(answer))
            first_denoiser = None
            first = answer if first is None else first
        told = State(i + 1, len(kicks), end.sigma, end.unscale(state), first, nfe)
        before = changes(told.x, first)
        replacement = yield told
        if changes(told.x, first) != before:
            raise ValueError(STATE_CHANGED)
        if replacement is not None:
            state = end.scale(replacement)
