"""UniPC (Zhao et al. 2023): a predictor of Adams and Bashforth's kind, corrected by the evaluation that it led to."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

from diffspace._shapes import Tensor
from diffspace.sampling.solvers.multistep import LinearMultistep, Past, add_past, check_count, polynomial_weights
from diffspace.sampling.solvers.quadrature import Exponential, check_choice, exponential_moments, line_weights, phi

__all__ = ["UniPC"]

Variant = Literal["bh1", "bh2"]


@dataclass(frozen=True)
class UniPC(LinearMultistep):
    """UniPC-k: exponential multistep in ln σ whose every prediction is corrected when D is known there.

    The predictor goes on a polynomial through the last k evaluations of D (or of ε); the corrector takes the same step
    on the one that goes through the new evaluation too, at the point of the prediction. The evaluation then serves the
    next step: one for each, of order k + 1, or 2 with `lower_final`. The state at the end of a step is the prediction;
    the correction is made at the start of the next, and in the last step not at all.

    `variant` is the B(h) of the paper: h for "bh1", e^h − 1 for "bh2". It has an effect only where the authors' code
    sets a coefficient of B(h) to ½ instead of solving for it, in predictors of order 2 and correctors of order 1: for
    k = 3, in the first and last steps.
    """

    k: int = 3
    variant: Variant = "bh2"
    prediction: Exponential = "x0"
    lower_final: bool = True

    def __post_init__(self) -> None:
        check_count(self.k, 3)
        check_choice("variant", self.variant, Variant)
        check_choice("prediction", self.prediction, Exponential)

    @property
    def order(self) -> int:
        return 2 if self.lower_final else self.k + 1

    def _simple(self, sigma: float, other: float, end: float) -> tuple[float, float]:
        """Weights of g at σ and at another level, whose rise over the step counts for B(h)/2."""
        (mean,) = exponential_moments(self.prediction, sigma, end, 1)
        h = math.log(sigma / end)
        share = 1.0 if self.variant == "bh2" else 1 / phi(1, h if self.prediction == "epsilon" else -h)
        return line_weights(mean, 0.5 * share * mean, sigma, other, end)

    def weights(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        if len(sigmas) == 2:
            return self._simple(*sigmas, end)
        return polynomial_weights(self.prediction, "log_sigma", sigmas, end)

    def corrected(self, x: Tensor, past: tuple[Past, ...]) -> Tensor:
        if len(past) == 1:
            return x
        return add_past(x, 1.0, past, _correction(self, tuple(node.sigma for node in past)))

    def correction(self, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        """What each g counts for in the step to the newest level, by corrector less by predictor."""
        end, *levels = sigmas
        nodes = (*levels, end)
        if len(levels) == 1:
            after: tuple[float, ...] = self._simple(levels[0], end, end)
        else:
            after = polynomial_weights(self.prediction, "log_sigma", nodes, end)
        return after[-1], *(b - a for a, b in zip(self.weights(tuple(levels), end), after[:-1], strict=True))


@functools.lru_cache(maxsize=4096)
def _correction(solver: UniPC, sigmas: tuple[float, ...]) -> tuple[float, ...]:
    return solver.correction(sigmas)
