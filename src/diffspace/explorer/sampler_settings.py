"""What room 2 asks for, checked: ways to sample, and what known solvers are compared on and new ones fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import diffspace as ds
from diffspace.checks import check_integer, check_number, nearest
from diffspace.config import from_text
from diffspace.explorer.settings import Choice, Data, rises
from diffspace.solverlab import SolverSearch
from diffspace.studies.flows import check_process

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
FIT_SEEDS, JUDGING, FIRST_SEED, ITERATIONS = 512, 1024, 1_000_000, 4  # of fits


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
            found = fitted(FitSettings(self.data, self.sigma_min, self.sigma_max, choice.num_steps))
            return found.sampler
        steps: Any
        if choice.steps == "time":
            if self.noising.name == "formula":
                steps = ds.GivenTimes(tuple(t_max * (1 - i / choice.num_steps) for i in range(choice.num_steps + 1)))
            else:
                steps = ds.ScheduleSteps(choice.num_steps, self.sigma_min, self.sigma_max, schedule=process.schedule)
        elif not rises(process, t_max):
            raise ValueError("steps: σ(t) falls on its way, so only equal steps in the time t can be taken")
        elif choice.steps == "edm":
            steps = ds.EDMSteps(choice.num_steps, min(self.sigma_min, self.top / 2), self.top, rho=choice.rho)
        else:
            steps = ds.LogLinearSteps(choice.num_steps, min(self.sigma_min, self.top / 2), self.top)
        churn = ds.Churn(choice.S_churn, choice.S_tmin, choice.S_tmax, choice.S_noise)
        return ds.Sampler(steps, choice.build_solver(), process, churn)


@dataclass(frozen=True)
class FrontSettings:
    """The data and the range on which known solvers are compared."""

    data: Data = field(default_factory=Data)
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        SamplerSettings(sigma_min=self.sigma_min, sigma_max=self.sigma_max)


@dataclass(frozen=True)
class FitSettings(FrontSettings):
    """What a solver is fitted to: data, evaluations, and the range of σ."""

    num_steps: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("num_steps", self.num_steps, 2, 30)


FITS: dict[FitSettings, SolverSearch] = {}


def fitted(settings: FitSettings) -> SolverSearch:
    """The search that was made for these settings."""
    if settings not in FITS:
        raise ValueError("solver: nothing is fitted yet to these data and N; press “Find the best”")
    return FITS[settings]
