"""The rule of verdicts, against closed forms, scipy, and what chance does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from diffspace.reproduction.claims import Effect, alike, mean_of, paired, welch


@pytest.mark.parametrize(
    ("value", "error", "dof", "verdict"),
    [
        (1.97, 1.0, math.inf, "shown"),
        (1.95, 1.0, math.inf, "cannot tell"),
        (-1.97, 1.0, math.inf, "not shown"),
        (2.7, 1.0, 4.0, "cannot tell"),  # the 97.5 % quantile of 4 degrees of freedom is 2.776
        (2.8, 1.0, 4.0, "shown"),
        (0.0, 0.0, math.inf, "cannot tell"),
        (1e9, math.inf, math.inf, "cannot tell"),
        (math.nan, 1.0, math.inf, "cannot tell"),
    ],
)
def test_the_rule(value, error, dof, verdict):
    assert Effect(value, error, dof).verdict == verdict


def test_effects_are_those_of_t_tests():
    a, b = [3.1, 2.7, 3.6], [2.2, 2.0, 2.9]
    for effect, test in (
        (welch(a, b), stats.ttest_ind(a, b, equal_var=False)),
        (paired(np.subtract(a, b).tolist()), stats.ttest_rel(a, b)),
    ):
        assert effect.value / effect.error == pytest.approx(test.statistic)
        assert effect.dof == pytest.approx(test.df)
        assert (effect.verdict == "shown") == (test.pvalue < 0.05 and test.statistic > 0)
    # for two groups of three that spread alike, the number in the text of the rule
    assert welch([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]).critical == pytest.approx(2.776, abs=1e-3)


def test_one_measurement_tells_nothing():
    assert welch([1.0], [0.0, 0.1]).verdict == paired([5.0]).verdict == "cannot tell"


def test_chance_alone_is_called_shown_in_at_most_a_fortieth_of_cases():
    draws = np.random.default_rng(0).normal(size=(1000, 6))
    shown = np.mean([welch(row[:3].tolist(), row[3:].tolist()).verdict == "shown" for row in draws])
    assert shown < 0.025 + 3 * math.sqrt(0.025 * 0.975 / len(draws))


def test_things_that_are_alike():
    same, apart, noisy = Effect(0.01, 0.01), Effect(0.3, 0.01), Effect(0.01, 0.2)
    assert [alike(effect, 0.1).verdict for effect in (same, apart, noisy)] == ["shown", "not shown", "cannot tell"]


def test_means_with_their_spread():
    assert mean_of([1.0, 2.0, 3.0]) == "2 ± 1"
    assert mean_of([1.234]) == "1.23"
