"""What the article says of the ODE, measured on a trained model: where it leads, how it bends, what F sees."""

from __future__ import annotations

from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.model import Model
from diffspace.preconditioning import EDMPreconditioning
from diffspace.process import Process, VPSchedule
from diffspace.reproduction.bench import Bench
from diffspace.sampling import EDMSteps, Execution, GivenTimes, Heun, Sampler, sample
from diffspace.solverlab import REFERENCE_SAMPLER, Reference, reference
from diffspace.solverlab.end_points import mean_squares
from diffspace.studies import strange_process
from diffspace.studies.flows import spread_times

_FINE, _RHOS = 200, (1.0, 3.0, 7.0)


def geometry(bench: Bench, model: Model) -> dict[str, Any]:
    """All of it, as JSON."""
    truth = _ends(bench, model, bench.sampler.steps)
    found: dict[str, Any] = {"rho": {}, "variance": _variances(bench), "turning": _turning(bench, truth)}
    for rho in _RHOS:
        steps: Any = bench.sampler.steps
        own = Sampler(EDMSteps(18, steps.sigma_min, steps.sigma_max, rho=rho))
        found["rho"][f"{rho:g}"] = _squares(bench, model, own, truth)
    found["spread"] = float(truth.x.std())

    fine, odd = bench.scale.reference_steps, strange_process()
    as_vp = Sampler(bench.sampler.with_num_steps(fine).steps, Heun(), Process(VPSchedule()))
    found["vp"] = _squares(bench, model, as_vp, truth)
    times = spread_times(odd, 1.0, 2 * fine)
    lower = _ends(bench, model, EDMSteps(18, float(odd.sigma(times[-2])), float(odd.sigma(1.0))))
    found["strange"] = _squares(bench, model, Sampler(GivenTimes(tuple(times)), Heun(), odd), lower)
    return found


def _ends(bench: Bench, model: Model, steps: Any) -> Reference:
    count = bench.scale.ends
    sampler = Sampler(EDMSteps(_FINE, steps.sigma_min, steps.sigma_max), REFERENCE_SAMPLER.solver)
    bench.show("end points of the article", 0, None)
    execution = Execution(trajectory=True)
    return reference(model, seeds=range(count), cond=bench.cond(count), sampler=sampler, execution=execution)


def _squares(bench: Bench, model: Model, sampler: Sampler, truth: Reference) -> list[float]:
    """Squared distances from end points, a mean over the elements for each sample."""
    bench.show("the article's processes", 0, None)
    x = sample(model, latents=truth.latents, cond=truth.cond, sampler=sampler).x
    return [float(value) for value in mean_squares(x.to(truth.x) - truth.x)]


def _turning(bench: Bench, truth: Reference) -> dict[str, list[float]]:
    """How far the tangent of each trajectory turns, in radians, at low, middle and high noise levels.

    The middle is the range from a fifth of σ_data to five times it, a tenth of the levels in ln σ and less in σ.
    """
    if truth.path is None:
        raise ValueError("path: the end points were computed without a trajectory")
    sigma = truth.sigmas[:-1]
    x, denoised = truth.path.x[:-1], truth.path.denoised
    tangents = ((x - denoised) / sigma.to(x).reshape(-1, *[1] * (x.ndim - 1))).flatten(2)
    cosines = torch.nn.functional.cosine_similarity(tangents[1:], tangents[:-1], dim=2).clamp(-1, 1)
    angles, level = torch.arccos(cosines), sigma[1:] / bench.sigma_data
    ranges = {"low": level < 0.2, "middle": (level >= 0.2) & (level <= 5), "high": level > 5}
    return {name: angles[chosen.to(angles.device)].sum(0).tolist() for name, chosen in ranges.items()}


def _variances(bench: Bench) -> dict[str, list[float]]:
    """Of c_in·(y + n) and of F's target (y − c_skip·(y + n))/c_out over real data, at low to high noise levels."""
    y = bench.training.batch().double()
    sigma = bench.unit * torch.tensor([0.002, 0.05, 0.5, 5.0, 80.0], dtype=torch.float64, device="cpu")
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(y.shape, generator=generator, dtype=torch.float64, device="cpu")
    c = EDMPreconditioning(bench.sigma_data).coefficients(sigma)

    found: dict[str, list[float]] = {"sigma": sigma.tolist()}

    def add(name: str, values: Tensor) -> None:
        squares = (values - values.mean()).square().flatten(1).mean(1)
        found.setdefault(name, []).append(float(squares.mean()))
        found.setdefault(f"{name} error", []).append(float(squares.std()) / len(squares) ** 0.5)

    for k, level in enumerate(sigma.tolist()):
        x = y + level * noise
        add("input", c.c_in[k] * x)
        add("target", (y - c.c_skip[k] * x) / c.c_out[k])
    return found
