"""What the page asks for, checked: data, processes and samplers, each with the Python that makes it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

import diffspace as ds
from diffspace.checks import check_number
from diffspace.oracles import GaussianMixture
from diffspace.process import Formula, Process
from diffspace.studies import processes

MODES, POINTS = 24, 500
"""The most that the page takes."""

_FARTHEST = 100.0
_FINE, _LOWEST = 240, 1e-4  # steps of the exact flow, and its last level before 0


@dataclass(frozen=True)
class Data:
    """A mixture on the line or in the plane, or points, of which each is a mode of one width.

    Rows of `modes` are (weight, std, x) or (weight, std, x, y), those of `points` (x,) or (x, y). Points, where there
    are any, are the data.
    """

    modes: tuple[tuple[float, ...], ...] = ((0.4, 0.12, -1.0), (0.25, 0.08, 0.2), (0.35, 0.15, 1.2))
    points: tuple[tuple[float, ...], ...] = ()
    width: float = 0.03

    def __post_init__(self) -> None:
        rows, name, most = (self.points, "points", POINTS) if self.points else (self.modes, "modes", MODES)
        if not 1 <= len(rows) <= most:
            raise ValueError(f"{name}: expected 1 to {most}, got {len(rows)}")
        check_number("width", self.width, "[0.001, 10]")
        fixed = 0 if self.points else 2
        if len(rows[0]) - fixed not in (1, 2) or {len(row) for row in rows} != {len(rows[0])}:
            raise ValueError(f"{name}: expected rows of {1 + fixed} numbers (a line) or {2 + fixed} (the plane)")
        for row in rows:
            for value in row[fixed:]:
                check_number(name, value, f"[-{_FARTHEST:g}, {_FARTHEST:g}]")
            if fixed:
                check_number("modes, weight", row[0], "[0.0001, 10000]")
                check_number("modes, std", row[1], "[0.001, 10]")

    @property
    def dim(self) -> int:
        return len(self.points[0]) if self.points else len(self.modes[0]) - 2

    @property
    def mixture(self) -> GaussianMixture:
        """The exact denoiser."""
        return _mixture(self)

    @property
    def python(self) -> str:
        """The lines that make it, as `data`."""
        if self.points:
            rows = "\n".join(f"        {list(row)}," for row in self.points)
            width = f"torch.full(({len(self.points)},), {self.width!r}, dtype=torch.float64)"
            return (
                f"points = torch.tensor(\n    [\n{rows}\n    ],\n    dtype=torch.float64,\n)\n"
                f"data = ds.oracles.GaussianMixture(points, stds={width})"
            )
        means = [list(row[2:]) for row in self.modes]
        stds, weights = ([row[k] for row in self.modes] for k in (1, 0))
        return (
            "data = ds.oracles.GaussianMixture(\n"
            f"    torch.tensor({means}, dtype=torch.float64),\n"
            f"    stds=torch.tensor({stds}, dtype=torch.float64),\n"
            f"    weights=torch.tensor({weights}, dtype=torch.float64),\n)"
        )


@functools.lru_cache(16)
def _mixture(data: Data) -> GaussianMixture:
    def tensor(rows: Sequence[float | tuple[float, ...]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.float64, device="cpu")

    if data.points:
        return GaussianMixture(tensor(data.points), tensor([data.width] * len(data.points)))
    means, stds, weights = (tensor([row[k] for row in data.modes]) for k in (slice(2, None), 1, 0))
    return GaussianMixture(means, stds, weights)


@dataclass(frozen=True)
class Choice:
    """A process by the name of its column, or by formulas of t up to `t_max`."""

    name: Literal["EDM", "VP", "VE", "cosine", "rectified flow", "formula"] = "EDM"
    sigma: str = "3 t (1 + 0.55 sin(14 t))"
    s: str = "(1 + 0.35 sin(11 t)) / sqrt(1 + 4 t^2)"
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if self.name == "formula":
            check_number("t_max", self.t_max, "[0.001, 1000]")
            Formula(self.sigma, "sigma"), Formula(self.s, "s")

    def build(self, sigma_max: float) -> tuple[Process, float]:
        """The process, and the time where it begins: that of σ_max, or `t_max` of formulas."""
        if self.name == "formula":
            return Process(sigma=Formula(self.sigma, "sigma"), s=Formula(self.s, "s"), t_max=self.t_max), self.t_max
        process = processes()[self.name][0]
        return process, process.sigma_inv(sigma_max)

    def python(self, sigma_max: float, name: str = "process", end: str = "t_max") -> str:
        """The lines that make it, as variables of these names."""
        if self.name == "formula":
            return (
                f"{name} = ds.Process(\n    sigma=ds.Formula({self.sigma!r}, 'sigma'),\n"
                f"    s=ds.Formula({self.s!r}, 's'),\n    t_max={self.t_max!r},\n)\n{end} = {self.t_max!r}"
            )
        return f"{name} = processes()[{self.name!r}][0]\n{end} = {name}.sigma_inv({sigma_max!r})"


@functools.lru_cache(8)
def exact_flow(data: Data, sigma_max: float, first: int, count: int, path: bool) -> ds.Reference:
    """The exact solutions from the latents of `count` seeds, down to σ = 0."""
    sampler = ds.Sampler(ds.EDMSteps(_FINE, _LOWEST, sigma_max), ds.AdamsBashforth(4, "x0", "log_sigma"))
    seeds = range(first, first + count)
    return ds.reference(data.mixture, seeds=seeds, sampler=sampler, execution=ds.Execution(trajectory=path))


def exact_flow_python(sigma_max: float, seeds: str, name: str = "truth", path: bool = False) -> str:
    """The lines that make it."""
    execution = ", execution=ds.Execution(trajectory=True)" if path else ""
    steps = f"ds.EDMSteps({_FINE}, {_LOWEST!r}, {sigma_max!r})"
    return (
        f'exact = ds.Sampler({steps}, ds.AdamsBashforth(4, "x0", "log_sigma"))\n'
        f"{name} = ds.reference(data, seeds={seeds}, sampler=exact{execution})"
    )


def rises(process: Process, t_max: float) -> bool:
    """Whether σ(t) rises all the way to t_max."""
    t = torch.linspace(0, t_max, 4097, dtype=torch.float64, device="cpu")
    return bool((process.sigma(t).diff() > 0).all())


def largest_sigma(process: Process, t_max: float) -> float:
    """The greatest σ(t) up to t_max, where σ(t) may rise and fall."""
    t = torch.linspace(0, t_max, 4097, dtype=torch.float64, device="cpu")
    found = float(process.sigma(t).max())
    return found if math.isfinite(found) else 0.0
