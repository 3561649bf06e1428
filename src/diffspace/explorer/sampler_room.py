"""Room 2: steps, solvers and noise on exact denoisers, each run beside the exact solution from the same latents."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch

import diffspace as ds
from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer, check_number, nearest
from diffspace.config import from_text, to_options
from diffspace.explorer.jobs import Job
from diffspace.explorer.settings import Choice, Data
from diffspace.oracles import GaussianMixture
from diffspace.protocols import Cond
from diffspace.solverlab import SolverSearch, compare_solvers, search_solver
from diffspace.studies.flows import check_process
from diffspace.studies.problems import even, quantiles

SOLVERS: Mapping[str, str] = MappingProxyType(
    {
        "euler": "Euler (DDIM)",
        "heun": "Heun, order 2, with α",
        "rk4": "Runge–Kutta, order 4",
        "ab:k=2": "Adams–Bashforth, order 2",
        "ab:k=3": "Adams–Bashforth, order 3",
        "ab:k=4": "Adams–Bashforth, order 4",
        "ipndm:k=4": "iPNDM, order 4",
        "dpm2": "DPM-Solver, order 2",
        "dpm3": "DPM-Solver, order 3",
        "dpmpp2s": "DPM-Solver++ 2S",
        "dpmpp2m": "DPM-Solver++ 2M",
        "dpmpp3m": "DPM-Solver++ 3M",
        "unipc:k=2": "UniPC, order 2",
        "deis": "DEIS",
        "sde": "SDE (Eq. 6) with β(t), Euler–Maruyama",
        "sde:stages=2": "SDE (Eq. 6) with β(t), Heun",
        "euler-ancestral": "Euler, ancestral (DDPM)",
        "dpmpp2m-sde": "DPM-Solver++ 2M SDE",
        "fitted": "fitted to these data and N",
    }
)
"""The solvers that the page offers, in the words of `config.from_text`, with their labels."""

FRONT = ("euler", "heun", "rk4", "ab:k=4", "ipndm:k=4", "dpmpp2m", "unipc:k=2", "deis")
BUDGETS = (4, 6, 8, 10, 14, 20, 28, 40, 56)
_DIRECTIONS, _FINE, _LOWEST = 12, 240, 1e-4
_FIT_SEEDS, _JUDGING, _FIRST_SEED, _ITERATIONS = 512, 1024, 1_000_000, 4


@dataclass(frozen=True)
class SamplerChoice:
    """One way to sample: solver, steps and noise. α is Heun's, `eta` is β in units of σ̇/σ of the solvers of the SDE."""

    solver: str = "heun"
    alpha: float = 1.0
    eta: float = 1.0
    beta: str = ""
    steps: Literal["edm", "loglinear", "time"] = "edm"
    num_steps: int = 18
    rho: float = 7.0
    S_churn: float = 0.0
    S_tmin: float = 0.0
    S_tmax: float = 1000.0
    S_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"solver: {self.solver[:40]!r} is unknown; {nearest(self.solver[:40], SOLVERS)}")
        check_integer("num_steps", self.num_steps, 1, 30 if self.solver == "fitted" else 200)
        check_number("alpha", self.alpha, "[0.1, 1]")
        check_number("eta", self.eta, "[0, 10]")
        check_number("rho", self.rho, "[0.2, 100]")
        check_number("S_churn", self.S_churn, "[0, 1000]")
        check_number("S_noise", self.S_noise, "[0, 2]")
        check_number("S_tmin", self.S_tmin, "[0, 1e6]")
        check_number("S_tmax", self.S_tmax, "[0, 1e6]")

    def build_solver(self) -> ds.Solver:
        """The solver with the options that the page has controls for."""
        if self.solver == "heun":
            return ds.Heun(self.alpha)
        if self.solver.startswith("sde"):
            stages = 2 if self.solver.endswith("2") else 1
            if self.beta:
                return ds.GeneralSDE(stages=stages, beta=ds.Formula(self.beta, "beta"))
            return ds.GeneralSDE(self.eta, stages=stages)
        solver: ds.Solver = from_text("solver", self.solver)
        return solver


@dataclass(frozen=True)
class SamplerSettings:
    """What room 2 shows: one way to sample or two on the same noise, on data, in a process, from σ_max down to σ_min.

    `shrink` is an error of the denoiser, as of a network: it pulls each D towards the mean of the data by this part.
    `shift` is an error at the start, in units of σ_max, added to every sample.
    """

    data: Data = field(default_factory=Data)
    noising: Choice = field(default_factory=Choice)
    a: SamplerChoice = field(default_factory=SamplerChoice)
    b: SamplerChoice | None = None
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    shrink: float = 0.0
    shift: float = 0.0
    lines: int = 12
    count: int = 256

    def __post_init__(self) -> None:
        check_number("sigma_max", self.sigma_max, "[0.05, 1000]")
        check_number("sigma_min", self.sigma_min, f"[0.0001, {self.sigma_max / 2:g}]")
        check_number("shrink", self.shrink, "[0, 0.5]")
        check_number("shift", self.shift, "[-3, 3]")
        check_integer("lines", self.lines, 1, 60)
        check_integer("count", self.count, 16, 2000)

    @property
    def top(self) -> float:
        """Where samples start: σ_max, or where formulas begin."""
        process, t_max = self.noising.build(self.sigma_max)
        check_process(process, t_max)
        return float(process.sigma(t_max)) if self.noising.name == "formula" else self.sigma_max

    def sampler(self, choice: SamplerChoice) -> ds.Sampler:
        """A choice as a value of the library."""
        process, t_max = self.noising.build(self.sigma_max)
        if choice.solver == "fitted":
            found = fitted(FitSettings(self.data, choice.num_steps, self.sigma_min, self.sigma_max))
            return found.sampler
        steps: Any
        if choice.steps == "time":
            if self.noising.name == "formula":
                steps = ds.GivenTimes(tuple(t_max * (1 - i / choice.num_steps) for i in range(choice.num_steps + 1)))
            else:
                steps = ds.ScheduleSteps(choice.num_steps, self.sigma_min, self.sigma_max, schedule=process.schedule)
        elif not _rises(process, t_max):
            raise ValueError("steps: σ(t) falls on its way, so only equal steps in the time t can be taken")
        elif choice.steps == "edm":
            steps = ds.EDMSteps(choice.num_steps, min(self.sigma_min, self.top / 2), self.top, rho=choice.rho)
        else:
            steps = ds.LogLinearSteps(choice.num_steps, min(self.sigma_min, self.top / 2), self.top)
        churn = ds.Churn(choice.S_churn, choice.S_tmin, choice.S_tmax, choice.S_noise)
        return ds.Sampler(steps, choice.build_solver(), process, churn)


def _rises(process: ds.Process, t_max: float) -> bool:
    t = torch.linspace(0, t_max, 4097, dtype=torch.float64, device="cpu")
    return bool((process.sigma(t).diff() > 0).all())


@functools.lru_cache(8)
def exact_flow(data: Data, sigma_max: float, first: int, count: int, path: bool) -> ds.Reference:
    """The exact solutions from the latents of `count` seeds, down to σ = 0."""
    sampler = ds.Sampler(ds.EDMSteps(_FINE, _LOWEST, sigma_max), ds.AdamsBashforth(4, "x0", "log_sigma"))
    seeds = range(first, first + count)
    return ds.reference(data.mixture, seeds=seeds, sampler=sampler, execution=ds.Execution(trajectory=path))


@functools.lru_cache(8)
def _fine_lines(data: Data, sigma_max: float, count: int) -> tuple[Tensor, Tensor]:
    """σ and the states of the exact flow there, densest near the data."""
    truth = exact_flow(data, sigma_max, 0, count, True)
    fine = sigma_max * torch.linspace(0, 1, 120, dtype=torch.float64, device="cpu") ** 3
    return fine, torch.stack([truth.at(level) for level in fine.tolist()])


def _noise(k: int, like: Tensor) -> Tensor:
    """The noise of a step: of all samples at once, which is faster than the streams of their seeds."""
    return torch.randn(like.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(k), device="cpu")


class _Recording:
    """An oracle that keeps where it was asked, of the first rows, and may pull towards the mean."""

    def __init__(self, oracle: GaussianMixture, rows: int, shrink: float) -> None:
        self.oracle, self.rows, self.asked = oracle, rows, list[tuple[float, Tensor]]()
        self.shrink, self.mean = shrink, oracle.mean()
        self.sample_shape, self.sigma_data = oracle.sample_shape, oracle.sigma_data

    def __call__(self, x: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        self.asked.append((float(sigma.max()), x[: self.rows].clone()))
        denoised = self.oracle(x, sigma, cond)
        return denoised + self.shrink * (self.mean - denoised) if self.shrink else denoised


def sampler_picture(settings: SamplerSettings, job: Job) -> dict[str, Any]:
    """Both runs, and the exact flow from the same latents."""
    truth = exact_flow(settings.data, settings.top, 0, settings.count, False)
    job.check()
    fine, x = _fine_lines(settings.data, settings.top, settings.lines)
    result: dict[str, Any] = {
        "dim": settings.data.dim,
        "sigma": fine,
        "x": x,
        "ends": truth.x,
        "known": truth.error.rms,
        "distance": _distance(settings.data, truth.x),
        "density": _density(settings.data),
    }
    choices = {"a": settings.a} | ({} if settings.b is None else {"b": settings.b})
    for name, choice in choices.items():
        try:
            result[name] = _run(settings, choice, truth)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None
        job.check()
    return result | {"python": _python(settings)}


def _run(settings: SamplerSettings, choice: SamplerChoice, truth: ds.Reference) -> dict[str, Any]:
    """States and ends of one sampler, and how far they are from the exact ones."""
    data, sampler = settings.data.mixture, settings.sampler(choice)
    recording, shown = _Recording(data, settings.lines, settings.shrink), settings.lines
    run = ds.sample(
        recording,
        seeds=range(settings.count),
        latents=truth.latents + settings.shift,
        sampler=sampler,
        noise=_noise if sampler.adds_noise else None,
        execution=ds.Execution(trajectory=True),
    )
    if run.trajectory is None:
        raise ValueError("num_steps: expected at least one step")
    denoised = run.trajectory.denoised[:, :shown]
    first = sampler.solver.evaluations(False) or 1
    skipped = int(sampler.solver.first_denoiser is not None)
    firsts = [max(0, i * first - skipped) for i in range(run.num_steps)]
    hats = [recording.asked[min(k, len(recording.asked) - 1)] for k in firsts]
    error = truth.error_of(run.x)
    elsewhere = (_mode(data, run.x) != _mode(data, truth.x)).double().mean()
    return {
        "sigma": run.sigmas,
        "x": run.trajectory.x[:, :shown],
        "denoised": denoised,
        "sigma_hat": torch.tensor([level for level, _ in hats], dtype=torch.float64, device="cpu"),
        "x_hat": torch.stack([x for _, x in hats]),
        "ends": run.x,
        "nfe": run.nfe,
        "num_steps": run.num_steps,
        "rms": error.rms,
        "median": error.median,
        "elsewhere": float(elsewhere),
        "distance": _distance(settings.data, run.x),
        "spread": float((run.x.var(0).sum() / _variance(data)).sqrt()),
        "adds_noise": sampler.adds_noise,
    }


def _variance(data: GaussianMixture) -> Tensor:
    """The variance of the data, over all dimensions together."""
    return data.covariance().trace()


def _mode(data: GaussianMixture, x: Float[Tensor, "n d"]) -> Tensor:
    """The mode that most likely made each point."""
    squares = (x[:, None] - data.means).square().sum(2)
    variance = data.variances[:, 0]
    return (data.weights.log() - 0.5 * squares / variance - 0.5 * x.shape[1] * variance.log()).argmax(1)


def _distance(data: Data, x: Float[Tensor, "n d"]) -> float:
    """The Wasserstein distance ∫|F_n − F| from samples to the data: in the plane, the mean over 12 directions."""
    exact, directions = _projected(data, len(x))
    return float(((x @ directions.T).sort(0).values - exact).abs().mean())


@functools.lru_cache(8)
def _projected(data: Data, count: int) -> tuple[Tensor, Tensor]:
    """The quantiles of the data along some directions, (count, directions), and the directions."""
    angles = math.pi * torch.arange(_DIRECTIONS, dtype=torch.float64, device="cpu") / _DIRECTIONS
    plane = torch.stack([angles.cos(), angles.sin()], 1)
    directions = plane if data.dim == 2 else torch.ones(1, 1, dtype=torch.float64, device="cpu")
    mixture, zero = data.mixture, torch.zeros(1, dtype=torch.float64, device="cpu")
    stds = mixture.variances[:, 0].sqrt()
    along = [GaussianMixture((mixture.means @ u)[:, None], stds, mixture.weights) for u in directions]
    return torch.stack([quantiles(one, even(count), zero)[0] for one in along], 1), directions


@functools.lru_cache(8)
def _density(data: Data) -> dict[str, Any]:
    """The density of the data on a line or a grid that holds them."""
    from diffspace.studies import plane_density

    mixture = data.mixture
    reach = 1.15 * float((mixture.means.abs() + 3 * mixture.variances.sqrt()).max())
    if data.dim == 2:
        return {"reach": reach, "p": plane_density(mixture, 0.0, 1.0, reach, 96).float()}
    x = reach * torch.linspace(-1, 1, 801, dtype=torch.float64, device="cpu")
    return {"reach": reach, "p": mixture.log_prob(x[:, None], torch.zeros((), dtype=torch.float64)).exp()}


@dataclass(frozen=True)
class FrontSettings:
    """The data and the range on which known solvers are compared."""

    data: Data = field(default_factory=Data)
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        SamplerSettings(sigma_min=self.sigma_min, sigma_max=self.sigma_max)


def front_picture(settings: FrontSettings, job: Job) -> dict[str, Any]:
    """RMS errors of known solvers over their evaluations, with the paper's steps, on the first 64 seeds."""
    return _front(settings)


@functools.lru_cache(16)
def _front(settings: FrontSettings) -> dict[str, Any]:
    truth = exact_flow(settings.data, settings.sigma_max, 0, 64, False)
    steps = ds.EDMSteps(18, settings.sigma_min, settings.sigma_max)
    samplers = {word: ds.Sampler(steps, from_text("solver", word)) for word in FRONT}
    rows = compare_solvers(settings.data.mixture, truth, samplers, BUDGETS).rows
    found: dict[str, dict[int, float]] = {word: {} for word in FRONT}
    for row in rows:
        if not row.failure:
            found[row.name][row.nfe] = row.error.rms
    curves = [
        {"solver": SOLVERS[word], "nfe": list(errors), "rms": list(errors.values())} for word, errors in found.items()
    ]
    return {"curves": curves, "known": truth.error.rms, "python": _front_python(settings)}


@dataclass(frozen=True)
class FitSettings:
    """What a solver is fitted to: data, evaluations, and the range of σ."""

    data: Data = field(default_factory=Data)
    num_steps: int = 6
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_integer("num_steps", self.num_steps, 2, 30)
        SamplerSettings(sigma_min=self.sigma_min, sigma_max=self.sigma_max)


_fits: dict[FitSettings, SolverSearch] = {}


def fitted(settings: FitSettings) -> SolverSearch:
    """The search that was made for these settings."""
    if settings not in _fits:
        raise ValueError("solver: nothing is fitted yet to these data and N; press “Find the best”")
    return _fits[settings]


def fit_picture(settings: FitSettings, job: Job) -> dict[str, Any]:
    """Find the best sampler of N evaluations, and keep it for `SamplerChoice`."""
    if settings not in _fits:
        seeds = (settings.data, settings.sigma_max, _FIRST_SEED)
        truth = exact_flow(*seeds, _FIT_SEEDS, True)
        ends = exact_flow(settings.data, settings.sigma_max, _FIRST_SEED + _FIT_SEEDS, _JUDGING, False)

        def tell(done: int, total: int, rms: float) -> None:
            job.tell(done=done, total=total, rms=rms)

        found = search_solver(
            settings.data.mixture, settings.num_steps, truth, validation=ends, iterations=_ITERATIONS, progress=tell
        )
        while len(_fits) >= 32:
            _fits.pop(next(iter(_fits)))
        _fits[settings] = found
    found = _fits[settings]
    levels = ds.sample(settings.data.mixture, seeds=[0], sampler=found.sampler).sigmas
    return {
        "choice": found.choice.name,
        "rms": found.choice.error.rms,
        "standard_error": found.standard_error,
        "seen": found.fit.error.rms,
        "samples": found.comparison.samples,
        "sigma": levels,
        "config": to_options(found.sampler),
    }


def _spelled(thing: object) -> str:
    """The Python of a part, from its repr."""
    return re.sub(r"\b([A-Z]\w*)\(", r"ds.\1(", repr(thing))


def _truth_python(settings: FrontSettings | FitSettings | SamplerSettings, seeds: str, name: str = "truth") -> str:
    top = settings.top if isinstance(settings, SamplerSettings) else settings.sigma_max
    path = ", execution=ds.Execution(trajectory=True)" if name == "paths" else ""
    return (
        f'exact = ds.Sampler(ds.EDMSteps({_FINE}, {_LOWEST!r}, {top!r}), ds.AdamsBashforth(4, "x0", "log_sigma"))\n'
        f"{name} = ds.reference(data, seeds={seeds}, sampler=exact{path})"
    )


def _fit_python(settings: FitSettings, variable: str) -> str:
    first, last = _FIRST_SEED + _FIT_SEEDS, _FIRST_SEED + _FIT_SEEDS + _JUDGING
    unseen = _truth_python(settings, f"range({first}, {last})", "unseen")
    return (
        f"{_truth_python(settings, f'range({_FIRST_SEED}, {first})', 'paths')}\n{unseen}\n"
        f"{variable} = ds.fit_solver(data, {settings.num_steps}, paths, validation=unseen, iterations={_ITERATIONS})"
    )


def _python(settings: SamplerSettings) -> str:
    parts = ["import torch", "import diffspace as ds"]
    formula = settings.noising.name == "formula"
    parts += [] if formula else ["from diffspace.studies import processes"]
    parts += ["", settings.data.python, settings.noising.python(settings.sigma_max)]
    parts.append(_truth_python(settings, f"range({settings.count})"))
    if any(choice is not None and settings.sampler(choice).adds_noise for choice in (settings.a, settings.b)):
        generator = "torch.Generator().manual_seed(k)"
        made = f"torch.randn(like.shape, dtype=torch.float64, generator={generator})"
        parts.append(f"\n\ndef noise(k, like):\n    return {made}\n\n")
    denoiser = "data"
    if settings.shrink:
        denoiser = "denoiser"
        pulled = f"data(x, sigma) + {settings.shrink!r} * (data.mean() - data(x, sigma))"
        parts.append(f"\n\ndef denoiser(x, sigma, cond=None):\n    return {pulled}\n\n")
        parts.append("denoiser.sample_shape, denoiser.sigma_data = data.sample_shape, data.sigma_data")
    for name, choice in (("a", settings.a), ("b", settings.b)):
        if choice is None:
            continue
        if choice.solver == "fitted":
            wanted = FitSettings(settings.data, choice.num_steps, settings.sigma_min, settings.sigma_max)
            parts.append(_fit_python(wanted, name))
        else:
            built = settings.sampler(choice)
            steps, schedule = _spelled(built.steps), ""
            if choice.steps == "time" and not formula:
                low, high = settings.sigma_min, settings.sigma_max
                steps = f"ds.ScheduleSteps({choice.num_steps}, {low!r}, {high!r}, schedule=process.schedule)"
            solver, churn = _spelled(built.solver), ""
            if choice.S_churn > 0:
                churn = f", churn={_spelled(built.churn)}"
            parts.append(f"{name} = ds.Sampler({steps}, {solver}, process{churn}){schedule}")
        noise = ", noise=noise" if settings.sampler(choice).adds_noise else ""
        if settings.shift:
            noise = f", latents=truth.latents + {settings.shift!r}{noise}"
        parts.append(
            f"run_{name} = ds.sample({denoiser}, seeds=range({settings.count}), sampler={name}{noise})\n"
            f"print({name!r}, run_{name}.nfe, truth.error_of(run_{name}.x))"
        )
    return "\n".join(parts)


def _front_python(settings: FrontSettings) -> str:
    steps = f"ds.EDMSteps(18, {settings.sigma_min!r}, {settings.sigma_max!r})"
    return "\n".join(
        [
            "import torch",
            "import diffspace as ds",
            "from diffspace.config import from_text",
            "from diffspace.solverlab import compare_solvers",
            "",
            settings.data.python,
            _truth_python(settings, "range(64)"),
            f"words = {list(FRONT)}",
            f'samplers = {{word: ds.Sampler({steps}, from_text("solver", word)) for word in words}}',
            f"comparison = compare_solvers(data, truth, samplers, {BUDGETS})",
            "for row in comparison.rows:",
            "    print(row.name, row.nfe, row.error.rms)",
        ]
    )
