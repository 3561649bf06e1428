"""Verdicts: their level on equal distributions, what they see of unequal ones, and what they leave out."""

import pytest
import torch

from diffspace.metrics import Features, FeatureStatistics, compare, frechet, frechet_infinity, is_worse, kid
from diffspace.metrics.comparison import LEAST

JUDGED = [score for score in LEAST if score != "inception"]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def three(seed: int, n: int = 60, dim: int = 4) -> tuple[Features, Features, Features]:
    """Samples, real items and a reference, all of one distribution."""
    return tuple(Features(part) for part in normal(3 * n, dim, seed=seed).split(n))


def test_equal_distributions_are_called_worse_in_five_percent() -> None:
    # the level is 5 % exactly: of 40 trials, more than 7 in 0.1 % of cases
    found = [compare(*three(seed, n=40), scores=JUDGED, permutations=39) for seed in range(100, 140)]
    for place, score in enumerate(JUDGED):
        rows = [rows[place] for rows in found]
        assert rows[0].score == score
        assert sum(row.outcome == "worse" for row in rows) <= 7
        assert sum(row.outcome == "better" for row in rows) <= 7


def test_differences_are_seen_by_the_scores_that_measure_them() -> None:
    samples, real, reference = three(0, n=300)
    noised = Features(torch.cat([samples.values[:150] + 2 * normal(150, 4, seed=9), samples.values[150:]]))
    rows = {row.score: row for row in compare(noised, real, reference)}
    for score in ("frechet", "mind", "precision", "density"):
        assert rows[score].outcome == "worse"
        assert rows[score].verdict.startswith("worse than real by ")
        assert rows[score].z > 3
    assert rows["recall"].outcome != "worse"
    assert is_worse(list(rows.values()))
    narrow = {row.score: row for row in compare(Features(0.5 * samples.values), real, reference)}
    for score in ("frechet", "recall", "coverage"):
        assert narrow[score].outcome == "worse"
    assert narrow["precision"].outcome == "better"


def test_rows_hold_the_values_of_sets() -> None:
    samples, real, reference = Features(normal(90, 3)), Features(normal(70, 3, seed=1)), Features(normal(50, 3, seed=2))
    rows = compare(samples, real, reference, n=30, scores=["frechet", "kid"])
    parts = [Features(part) for part in samples.values.split(30)]
    assert [row.score for row in rows] == ["frechet", "kid"]
    assert rows[0].sets == tuple(frechet(part, reference).value for part in parts)
    assert rows[1].sets == tuple(kid(part, reference).value for part in parts)
    assert rows[0].best == min(rows[0].sets)
    assert rows[0].samples.value == pytest.approx(sum(rows[0].sets) / 3)
    assert (rows[0].n, len(rows[0].real_sets)) == (30, 2)
    assert compare(samples, real, reference, n=30, scores=["frechet", "kid"]) == rows


def test_the_distance_for_infinite_n_stands_beside_that_of_n_where_n_is_large_enough() -> None:
    samples, real, reference = (
        Features(normal(400, 3)),
        Features(normal(400, 3, seed=1)),
        Features(normal(400, 3, seed=2)),
    )
    rows = {row.score: row for row in compare(samples, real, reference, n=200)}
    found = rows["frechet_infinity"]
    assert found.sets == (frechet_infinity(samples.part(0, 200), reference).value,)
    assert (found.p_value, found.verdict) == (None, "judged as the distance of n items is")
    assert len(found.real_sets) == 1
    wide = Features(normal(90, 30))
    assert "frechet_infinity" not in {row.score for row in compare(wide.part(0, 40), wide.part(40, 80), wide)}


def test_real_items_within_the_reference_are_taken_out_of_it() -> None:
    samples, reference = Features(normal(200, 8)), Features(normal(600, 8, seed=1))
    inside = compare(samples, reference.take(torch.arange(200)), reference, scores=["frechet", "precision"])
    outside = compare(samples, reference.take(torch.arange(200)), reference.take(torch.arange(200, 600)))
    assert inside == [row for row in outside if row.score in ("frechet", "precision")]


def test_items_with_the_values_of_others_stay_in_the_reference() -> None:
    """Rows of six bits: nearly every real one has the values of some of the reference's."""
    bits = (normal(1400, 6) > 0).float()
    samples, real, reference = (Features(bits[a:b]) for a, b in ((0, 200), (200, 400), (400, 1400)))
    rows = {row.score: row for row in compare(samples, real, reference, disjoint=True, permutations=99)}
    assert all(row.outcome != "worse" for row in rows.values())
    assert rows["frechet"].sets[0] < 0.1
    whole = Features(torch.cat([real.values, reference.values]))  # of each value as many are left as there were
    taken = {row.score: row for row in compare(samples, real, whole, permutations=99)}
    for name, row in rows.items():
        assert taken[name].sets == pytest.approx(row.sets, rel=1e-6), name


def test_classes_are_matched_and_exchanged_within() -> None:
    # class 1 is far away: samples of it alone are like real items of it
    labels = torch.tensor([0, 1]).repeat(150)
    real = Features(normal(300, 4, seed=1) + 8 * labels[:, None], labels=labels)
    reference = Features(normal(300, 4, seed=2) + 8 * labels[:, None])
    ones = torch.ones(100, dtype=torch.int64)
    samples = Features(normal(100, 4, seed=3) + 8, labels=ones)
    (row,) = compare(samples, real, reference, scores=["frechet"])
    assert row.outcome != "worse"
    (row,) = compare(Features(samples.values), Features(real.values), reference, scores=["frechet"])
    assert row.outcome == "worse"


def test_statistics_allow_the_frechet_distance_alone() -> None:
    samples, real, reference = three(3)
    row, extrapolated = compare(samples, real, reference.statistics)
    assert extrapolated.score == "frechet_infinity"
    (same,) = compare(samples, real, reference, scores=["frechet"])
    assert row == same
    alone, _ = compare(samples, None, reference.statistics)
    assert (alone.samples, alone.real, alone.outcome) == (frechet(samples, reference), None, "not compared")
    assert alone.verdict == "no real data to compare with"


def test_errors() -> None:
    samples, real, reference = three(0)
    with pytest.raises(ValueError, match="reference: expected 4 features as of samples, got 5"):
        compare(samples, real, FeatureStatistics.of(normal(20, 5)))
    with pytest.raises(ValueError, match=r"n: .* from 2 to 60, got 61"):
        compare(samples, real, reference, n=61)
    with pytest.raises(ValueError, match=r"scores: expected .* got 'inception'"):
        compare(samples, real, reference, scores=["inception"])
    with pytest.raises(ValueError, match="reference: has no other items than real"):
        compare(samples, real, real)
    with pytest.raises(ValueError, match=r"features of pixels, those of samples features|its features are of pixels"):
        compare(samples, real, Features(reference.values, "pixels"))
    with pytest.raises(ValueError, match="values that are not finite"):
        Features(normal(3, 2) / 0)


def test_items_are_taken_out_of_a_reference_of_another_dtype() -> None:
    samples, reference = normal(200, 4), normal(400, 4, seed=1)
    reference[0, 0] = 0.0
    real, wide = reference[:200].clone(), reference.double()
    wide[0, 0] = -0.0
    narrow, other = (compare(*map(Features, (samples, real, each)), scores=["kid"])[0] for each in (reference, wide))
    assert narrow.sets == pytest.approx(other.sets, rel=1e-6)
    assert narrow.real_sets == pytest.approx(other.real_sets, rel=1e-6)
