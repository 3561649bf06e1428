"""Errors of scores and of their differences against their spread over fresh samples, and who reaches a target when."""

import dataclasses
import json
import math
from statistics import fmean, stdev

import pytest
import torch

from diffspace.metrics.scores import Features
from diffspace.metrics.sweep import Quality, SweepPoint, best_of, least, reach, targets


def normals(seed, n, dim=4, **change):
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Features(change.get("scale", 1.0) * x + change.get("shift", 0.0))


@pytest.mark.parametrize("score", ["frechet", "kid"])
def test_the_standard_error_is_the_spread_over_fresh_samples(score):
    reference = normals(0, 300)
    found = [Quality.of(score, normals(seed, 200, shift=0.4), reference) for seed in range(1, 61)]
    spread = stdev(q.value for q in found)  # known to 9 %
    assert fmean(q.standard_error for q in found) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("score", ["frechet", "kid"])
def test_a_difference_of_the_same_seeds_is_known_better(score):
    reference = normals(0, 300)
    pairs = [
        [Quality.of(score, normals(seed, 200, shift=shift), reference) for shift in (0.4, 0.42)]
        for seed in range(1, 31)
    ]
    differences = [b.above(a) for a, b in pairs]
    assert fmean(d.standard_error for d in differences) == pytest.approx(stdev(d.value for d in differences), rel=0.35)
    assert fmean(d.standard_error for d in differences) < 0.2 * fmean(a.standard_error for a, _ in pairs)


def test_the_error_of_a_sum_of_blocks():
    one, other = Quality(5.0, (1.0, -1.0)), Quality(3.0, (0.5, -0.5))
    assert one.standard_error == math.sqrt(2 / (2 * 1))  # √(Σ b²/(G(G − 1)))
    assert one.above(other, 2.0) == Quality(-1.0, (0.0, 0.0))
    with pytest.raises(ValueError, match="finite"):
        Quality(math.nan, (1.0, -1.0))


def point(method, nfe, value, error=0.0, **more):
    """A score whose difference from another one has an error, too: the errors do not cancel."""
    blocks = (error, -error) if method == "heun" else (-error, error)
    return SweepPoint(method, nfe, nfe, nfe / 1000, nfe / 1000, Quality(value, blocks), **more)


def test_what_reaches_the_target_and_when():
    target = point("heun", 35, 1.0)
    points = [
        *(point("heun", 9, 2.0), target),
        *(point("sure", 5, 1.2), point("sure", 8, 1.04), point("sure", 12, 1.0)),
        *(point("unsure", 8, 1.1, 0.05), point("unsure", 12, 1.0, 0.05), point("unsure", 18, 1.0, 0.01)),
        *(point("never", 8, 1.5), point("never", 35, 1.2)),
        point("guided", 5, 0.5, guidance="2"),
    ]
    found = {one.name: one for one in reach(points, target, tolerance=0.05)}
    assert set(found) == {"heun", "sure", "unsure", "never"}  # a target for each guidance
    nfes = {name: tuple(p and p.nfe for p in (one.possible, one.shown)) for name, one in found.items()}
    assert nfes == {"heun": (35, 35), "sure": (8, 8), "unsure": (8, 18), "never": (None, None)}
    assert best_of(list(found.values()), "s") is found["sure"]
    assert best_of(list(found.values()), "") is found["sure"]
    assert best_of(list(found.values()), "x") is None
    assert {one.name: one.shown for one in reach(points, target, tolerance=0.25)}["sure"].nfe == 5
    failed = dataclasses.replace(target, quality=None, failure="diverged")
    with pytest.raises(ValueError, match="heun at NFE 35 has no score: diverged"):
        reach(points, failed)


def test_points_go_through_json():
    for one in (point("ab:k=4", 8, 1.0, 0.1, rms=0.3, churn=2.0), SweepPoint("x", 5, 5, 0.0, 0.0, None, failure="no")):
        assert SweepPoint.from_dict(json.loads(json.dumps(one.as_dict()))) == one
    assert point("heun", 5, 1.0, churn=20.0, guidance="2:0.3,5").name == "heun, churn 20, guidance 2:0.3,5"


def test_targets_are_those_of_each_guidance():
    guided = point("heun", 35, 1.0, guidance="2")
    others = [point("heun", 9, 1.0), point("heun", 35, 1.0, churn=4.0), point("ab", 35, 1.0)]
    assert targets([*others, guided, point("heun", 35, 2.0)]) == {"2": guided, "": point("heun", 35, 2.0)}


def test_the_least_within_each_budget_and_what_cannot_be_told_from_it():
    points = [
        point("heun", 35, 1.0, 0.01),
        point("heun", 5, 9.0),
        point("ab", 5, 2.0, 0.3),
        point("fitted", 5, 1.8, 0.1),
        point("ab", 8, 1.5, 0.1),
        point("fitted", 8, 1.9, 0.05),
        point("other weight", 5, 0.1, guidance="2"),
        dataclasses.replace(point("failed", 5, 0.0), quality=None),
    ]
    found = [(one.budget, one.point.name, one.point.nfe, [p.name for p in one.close]) for one in least(points)]
    assert found == [(5, "fitted", 5, ["ab"]), (8, "ab", 8, []), (35, "heun", 35, [])]
    assert least(points)[0].as_dict()["close"] == [{"name": "ab", "nfe": 5}]
    assert [one.point.name for one in least(points, "2")] == ["other weight, guidance 2"]


@pytest.mark.parametrize(("value", "reaches"), [(-1.02e-4, True), (-1e-4, True), (-0.97e-4, True), (-0.9e-4, False)])
def test_what_is_as_good_as_a_negative_score(value, reaches):
    target, other = point("heun", 35, -1e-4), point("other", 8, value)
    found = next(one for one in reach([target, other], target) if one.name == "other")
    assert (found.shown is other) == reaches
