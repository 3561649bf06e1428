"""UniPC (Zhao et al. 2023): an Adams–Bashforth predictor, corrected by the evaluation that it leads to."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

from diffspace._shapes import Tensor
from diffspace.checks import check_choice, check_integer
from diffspace.sampling.solvers.multistep import LinearMultistep, Past, add_past, polynomial_weights
from diffspace.sampling.solvers.quadrature import Exponential, exponential_moments, line_weights, phi

Variant = Literal["bh1", "bh2"]


@dataclass(frozen=True)
class UniPC(LinearMultistep):
    """UniPC-k: exponential multistep in ln σ whose every prediction is corrected when D is known there.

    The predictor follows a polynomial through the last k evaluations of D (or ε). The next step begins with the
    correction, the same step with the polynomial through the new evaluation as well: one evaluation a step, order
    k + 1, or 2 with `lower_final`. The last prediction is not corrected.

    `variant` is the B(h) of the paper: h for "bh1", e^h − 1 for "bh2". It has an effect only where the authors' code
    sets a coefficient of B(h) to ½, in predictors of order 2 and correctors of order 1.
    """

    k: int = 3
    variant: Variant = "bh2"
    prediction: Exponential = "x0"
    lower_final: bool = True

    def __post_init__(self) -> None:
        check_integer("k", self.k, 1, 3)
        check_choice("variant", self.variant, Variant)
        check_choice("prediction", self.prediction, Exponential)

    @property
    def order(self) -> int:
        return 2 if self.lower_final else self.k + 1

    def _simple(self, sigma: float, other: float, end: float) -> tuple[float, float]:
        """Weights of g at σ and at another level, with the weight B(h)/2 for its rise over the step."""
        (mean,) = exponential_moments(self.prediction, sigma, end, 1)
        h = math.log(sigma / end)
        share = 1.0 if self.variant == "bh2" else 1 / phi(1, h if self.prediction == "epsilon" else -h)
        return line_weights(mean, 0.5 * share * mean, sigma, other, end)

    def weights_at(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        if len(sigmas) == 2:
            return self._simple(*sigmas, end)
        return polynomial_weights(self.prediction, "log_sigma", sigmas, end)

    def corrected(self, x: Tensor, past: tuple[Past, ...]) -> Tensor:
        if len(past) == 1:
            return x
        return add_past(x, 1.0, past, _correction(self, tuple(node.sigma for node in past)))

    def correction(self, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        """The weight of each g in the step to the newest level: that of the corrector less that of the predictor."""
        end, *levels = sigmas
        if len(levels) == 1:
            newest_last: tuple[float, ...] = self._simple(levels[0], end, end)
        else:
            newest_last = polynomial_weights(self.prediction, "log_sigma", (*levels, end), end)
        predictor = self.weights_at(tuple(levels), end)
        return newest_last[-1], *(b - a for a, b in zip(predictor, newest_last[:-1], strict=True))


@functools.lru_cache(maxsize=4096)
def _correction(solver: UniPC, sigmas: tuple[float, ...]) -> tuple[float, ...]:
    return solver.correction(sigmas)
