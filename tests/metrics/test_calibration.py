"""Samples of an oracle are called worse than real data in one case of twenty, and damaged ones nearly always."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location(
    "score_calibration", Path(__file__).parents[2] / "benchmarks" / "score_calibration.py"
)
calibration = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(calibration)


def test_few_trials_of_the_frechet_distance() -> None:
    oracle = calibration.mixture()
    equal, damaged = (
        [calibration.trial(oracle, seed, 200, 500, damaged, ["frechet"])["frechet"] for seed in range(20)]
        for damaged in (False, True)
    )
    assert equal.count("worse") <= 4  # more in 0.3 % of cases
    assert damaged.count("worse") >= 10


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("oracle", calibration.ORACLES)
def test_levels_and_power(oracle: str, n: int) -> None:
    equal, damaged = (
        {row["score"]: row for row in calibration.measure(oracle, n, 1000, damaged, range(200))}
        for damaged in (False, True)
    )
    for row in equal.values():
        assert row["worse"] <= 0.095, row
    if n == 1000:
        assert damaged["frechet"]["worse"] >= 0.95
        assert damaged[calibration.ANY]["worse"] >= 0.95
