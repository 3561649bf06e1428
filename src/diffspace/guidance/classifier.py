"""Guidance by the gradient of a log-probability."""

from __future__ import annotations

from collections.abc import Callable

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_callable
from diffspace.guidance.wrapper import Guidance, GuidanceWeight, Rows, column, record, tracked
from diffspace.protocols import Cond, Denoiser

LogProb = Callable[[Tensor, Tensor, Cond | None], Tensor]
"""ln p(y | x; σ) of shape (B,) from (x, sigma, cond), differentiable by x, which is noisy and unscaled."""


class ClassifierGuidance(Guidance):
    """D(x; σ) + w(σ)·σ²·∇ₓ ln p(y | x; σ) (Dhariwal & Nichol 2021, Sec. 4; Eq. 3 for the score).

    With w = 1 and the exact classifier of noisy x it is the conditional denoiser, by Bayes' rule. `log_prob(x, sigma,
    cond)` returns (B,), each sample independent of the others. `weight` is a number or a function of σ; where it is 0,
    no gradient is computed. The denoiser does not receive the conditions in `classifier_only` (usually the labels).
    Gradients are computed under `torch.no_grad` too; where gradients are recorded, the result is differentiable.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        log_prob: LogProb,
        weight: GuidanceWeight = 1.0,
        *,
        classifier_only: tuple[str, ...] = (),
    ) -> None:
        super().__init__(denoiser, weight)
        check_callable("log_prob", log_prob, "log_prob(x, sigma, cond)")
        self.log_prob = log_prob
        self.classifier_only = tuple(classifier_only)

    def _unguided(self, x: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        own = {name: value for name, value in (cond or {}).items() if name not in self.classifier_only}
        return self.denoiser(x, sigma, own or None)

    def _guided(self, x: Tensor, sigma: Tensor, cond: Cond | None, weight: float | Tensor, rows: Rows) -> Tensor:
        denoised = self._unguided(x, sigma, cond)
        return denoised + column(weight * sigma**2, denoised) * self._gradient(x, sigma, cond).to(denoised)

    def _gradient(self, x: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            at = tracked(x, recording)
            value = self.log_prob(at, sigma, cond)
            if value.shape != (len(x),):
                raise ValueError(f"log_prob: expected values of shape ({len(x)},), got {tuple(value.shape)}")
            (slope,) = torch.autograd.grad(record("log_prob", value).sum(), at, create_graph=recording)
        return slope
