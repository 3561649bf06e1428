"""iPNDM: Adams and Bashforth's weights for equal steps, whatever the steps are."""

from __future__ import annotations

from dataclasses import dataclass

from diffspace.sampling.solvers.multistep import LinearMultistep, check_count

__all__ = ["IPNDM"]

_WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True)
class IPNDM(LinearMultistep):
    """x⁺ = x + (σ⁺ − σ)·Σ_j c_j·ε_j, c_j of Adams and Bashforth for equal steps (Zhang and Chen 2023).

    On steps that are not equal in σ the method is of second order for any k ≥ 2. It is among the best at few
    evaluations all the same, where no order is seen yet. A step to σ = 0 is Euler's.
    """

    k: int = 4
    prediction = "epsilon"

    def __post_init__(self) -> None:
        check_count(self.k, 4)

    @property
    def order(self) -> int:
        return min(self.k, 2)

    def weights(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        h = end - sigmas[0]
        return tuple(h * c for c in _WEIGHTS[len(sigmas) - 1])
