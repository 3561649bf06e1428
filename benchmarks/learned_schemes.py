"""Solvers with free parameters from the literature, for a frozen denoiser; `learned_solvers.py` trains them.

Written from the formulas of the papers. ε_j = (x_j − D(x_j; σ'_j))/σ'_j, with the level that the denoiser is told,
σ'_j = σ_j·e^{ξ_j}; g_j is ε_j where the base solver is iPNDM, x_j − σ_j·ε_j where it is DPM-Solver++.

- LD3 (Tong et al. 2024, arXiv 2405.15506): σ_n and ξ_n; the coefficients are those of the base solver at σ_n.
- S4S (Frankel et al. 2025, arXiv 2502.17423): x⁺ = a(σ, σ⁺)·x + b(σ, σ⁺)·Σ_{j > n−K} c_jn·g_j with free c; S4S-Alt: σ_n
  and ξ_n too. a and b are those of a first-order step, K is the order of the base solver.
- GS (Oganov et al. 2025, arXiv 2510.17699) without the adversarial term: x⁺ = Σ_{j ≤ n} a_jn·x_j + Σ_{j ≤ n} c_jn·g_j,
  the coefficients of the base solver at σ_n plus free numbers, σ_n and ξ_n, all at once. The numbers are added in the
  variance-preserving scaling, and to the base solver's coefficients of finite differences (their Algorithm 1).
- DyWeight (Zhao et al. 2026, arXiv 2603.11607): x⁺ = x + (t_{n+1} − t'_n)·Σ_{j ≤ n} w_jn·d_j with fixed t_n,
  d_n = (x_n − D(x_n; s_n·t'_n))/t'_n and t'_{n+1} = t'_n + Σ_j w_jn·(t_{n+1} − t'_n); w and s are free. The first step
  may be analytical, d_0 = x_0/√(1 + t_0²), which costs no evaluation.

The papers end at a small σ_min; here the last step goes to 0, as in every sampler of the library.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffspace.protocols import Denoiser

_EQUAL_STEPS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


class Base(NamedTuple):
    """A solver with known coefficients, "ipndm" or "dpm++", and its order."""

    kind: str
    k: int


class Start(NamedTuple):
    """Where a training starts: falling levels, the last 0, a base solver, and whether the first step is analytical."""

    levels: Tensor
    base: Base
    afs: bool = False


class Known(NamedTuple):
    """x⁺ = ratio·x + scale·Σ_i c_i·Σ_j differences_ij·g_{n−j}."""

    ratio: Tensor
    scale: Tensor
    c: Tensor
    differences: Tensor


def known(base: Base, levels: Tensor, n: int) -> Known:
    """The step from σ_n of a base solver, of a lower order in the first steps; DPM-Solver++ also in the last ones."""
    start, end = levels[n], levels[n + 1]
    k = min(base.k, n + 1)
    if base.kind == "ipndm":
        eye = torch.eye(k, dtype=levels.dtype)
        return Known(torch.ones_like(start), end - start, levels.new_tensor(_EQUAL_STEPS[k - 1]), eye)
    ratio, k = end / start, min(k, len(levels) - 1 - n)
    if k == 1:
        return Known(ratio, 1 - ratio, levels.new_ones(1), levels.new_ones(1, 1))
    h, before = (start / end).log(), (levels[n - 1] / start).log()
    if k == 2:
        rows = torch.stack([levels.new_tensor([1.0, 0.0]), torch.stack([h, -h]) / before])
        return Known(ratio, 1 - ratio, levels.new_tensor([1.0, 0.5]), rows)
    earlier, zero = (levels[n - 2] / levels[n - 1]).log(), torch.zeros_like(h)
    slopes = torch.stack([h, -h, zero]) / before, torch.stack([zero, h, -h]) / earlier
    second = (slopes[0] - slopes[1]) * h / (before + earlier)
    rows = torch.stack([levels.new_tensor([1.0, 0.0, 0.0]), slopes[0] + second * before / h, second])
    phi_2 = 1 - (1 - ratio) / h
    return Known(ratio, 1 - ratio, torch.stack([1 - ratio, phi_2, 0.5 - phi_2 / h]) / (1 - ratio), rows)


def combined(weights: Tensor, values: list[Tensor]) -> Tensor:
    """Σ_j w_j·v_j over as many values as there are weights."""
    return torch.tensordot(weights, torch.stack(values[: len(weights)]), 1)


class Scheme(torch.nn.Module):
    """A solver with parameters, LD3 as it stands: levels, and how the past, newest first, makes the next state.

    ln σ falls from σ_max to `lowest` by the softmax of N numbers; `lowest`, the last of N + 1, is taken as 0. ξ is 0
    at the first level, and elsewhere less than half the least gap.
    """

    def __init__(self, start: Start, lowest: float) -> None:
        super().__init__()
        self.base, self.afs, self.times, self.lowest = start.base, start.afs, start.levels, lowest
        self.num_steps = len(self.times) - 1
        logs = self.times[:-1].log()
        gaps = -torch.cat([logs, logs.new_tensor([math.log(lowest)])]).diff()
        self.theta = torch.nn.Parameter(self.free(gaps.clamp_min(0.02)))
        self.xi = torch.nn.Parameter(torch.zeros_like(gaps))

    def free(self, gaps: Tensor) -> Tensor:
        """θ that gives these gaps."""
        return gaps.log()

    def shares(self) -> Tensor:
        """The N gaps in ln σ, as shares of the whole."""
        return self.theta.softmax(0)

    def levels(self) -> Tensor:
        first = self.times[0]
        inner = first * (-(first / self.lowest).log() * self.shares()[:-1].cumsum(0)).exp()
        return torch.cat([first[None], inner, first.new_zeros(1)])

    def shifts(self, levels: Tensor) -> Tensor:
        gaps = -levels[:-1].detach().log().diff()
        most = 0.5 * float(gaps.min()) if len(gaps) else 0.0
        return torch.cat([0 * self.xi[:1], self.xi[1:].clamp(-most, most)])

    def told(self, sigma: Tensor) -> Tensor:
        """A level inside the range of the run."""
        return sigma.clamp(self.lowest, float(self.times[0]))

    def forward(self, denoiser: Denoiser, latents: Tensor) -> Tensor:
        levels = self.levels()
        told = self.told(levels[:-1] * self.shifts(levels).exp())
        x = latents * levels[0]
        states, past = [x], list[Tensor]()
        for n in range(self.num_steps):
            epsilon = (x - denoiser(x, told[n])) / told[n]
            past.insert(0, epsilon if self.base.kind == "ipndm" else x - levels[n] * epsilon)
            x = self.step(n, levels, states, past)
            states.insert(0, x)
        return x

    def step(self, n: int, levels: Tensor, states: list[Tensor], past: list[Tensor]) -> Tensor:
        step = known(self.base, levels, n)
        return step.ratio * states[0] + combined(step.scale * (step.c @ step.differences), past)


class S4S(Scheme):
    """Free c, which start as those of the base solver."""

    def __init__(self, start: Start, lowest: float) -> None:
        super().__init__(start, lowest)
        self.c = torch.nn.Parameter(start.levels.new_zeros(self.num_steps, self.base.k))
        for n, row in enumerate(self.c.data):
            step = known(self.base, start.levels, n)
            row[: len(step.c)] = step.c @ step.differences

    def step(self, n: int, levels: Tensor, states: list[Tensor], past: list[Tensor]) -> Tensor:
        step = known(Base(self.base.kind, 1), levels, n)
        return step.ratio * states[0] + combined(step.scale * self.c[n, : n + 1], past)


class GS(Scheme):
    """Numbers added to the coefficients of the base solver; levels by stick-breaking, ξ without bounds."""

    def __init__(self, start: Start, lowest: float) -> None:
        super().__init__(start, lowest)
        n = self.num_steps
        self.a, self.c = (torch.nn.Parameter(start.levels.new_zeros(n, n)) for _ in range(2))

    def free(self, gaps: Tensor) -> Tensor:
        left = (1 - gaps.cumsum(0) / gaps.sum())[:-1]
        return (left / torch.cat([torch.ones_like(left[:1]), left[:-1]])).logit()

    def shares(self) -> Tensor:
        left = self.theta.sigmoid().cumprod(0)
        return -torch.cat([left.new_ones(1), left, left.new_zeros(1)]).diff()

    def shifts(self, levels: Tensor) -> Tensor:
        return self.xi

    def step(self, n: int, levels: Tensor, states: list[Tensor], past: list[Tensor]) -> Tensor:
        step, scales = known(self.base, levels, n), (1 + levels**2).sqrt()
        k, c = len(step.c), scales[n + 1] * self.c[n, : n + 1]
        weights = torch.cat([(step.scale * step.c + c[:k]) @ step.differences, c[k:]])
        kept = self.a[n, : n + 1] * scales[n + 1] / scales[: n + 1].flip(0)
        return step.ratio * states[0] + combined(kept, states) + combined(weights, past)


class DyWeight(Scheme):
    """Free weights w of all d_j, which start as those of iPNDM, and s = e^ξ."""

    def __init__(self, start: Start, lowest: float) -> None:
        super().__init__(start, lowest)
        self.w = torch.nn.Parameter(start.levels.new_zeros(self.num_steps, self.num_steps))
        for n, row in enumerate(self.w.data):
            k = min(n + 1, self.base.k)
            row[:k] = row.new_tensor(_EQUAL_STEPS[k - 1])

    def forward(self, denoiser: Denoiser, latents: Tensor) -> Tensor:
        t = self.times[0]
        x, past = latents * t, list[Tensor]()
        for n in range(self.num_steps):
            analytical = self.afs and n == 0
            d = x / (1 + t * t).sqrt() if analytical else (x - denoiser(x, self.told(t * self.xi[n].exp()))) / t
            past.insert(0, d)
            w, move = self.w[n, : n + 1], self.times[n + 1] - t
            x = x + move * combined(w, past)
            t = (t + w.sum() * move).abs().clamp_min(0.1 * self.lowest)
        return x
