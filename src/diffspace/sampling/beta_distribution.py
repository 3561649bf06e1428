"""The quantiles of a Beta distribution, to rounding and without scipy."""

from __future__ import annotations

import math


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of I_x(a, b) by Lentz's method (DLMF 8.17.22); converges fast for x < (a+1)/(a+b+2)."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for numerator in (even, odd):
            d, c = 1 / (1 + numerator * d), 1 + numerator / c
            value *= c * d
        if abs(value - before) <= 1e-16 * abs(value):
            break
    return value


def _cumulative(x: float, a: float, b: float) -> float:
    """I_x(a, b), the distribution function of Beta(a, b)."""
    if x in (0, 1):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - _cumulative(1 - x, b, a)
    log_factor = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_factor) / a * _fraction(x, a, b)


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p, 0 ≤ p ≤ 1, a and b positive, by bisection."""
    if p in (0, 1):
        return p
    low, high = 0.0, 1.0
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            return middle
        if _cumulative(middle, a, b) < p:
            low = middle
        else:
            high = middle
