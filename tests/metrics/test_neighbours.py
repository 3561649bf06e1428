"""Nearest neighbours against brute force, and the check's statistics against repeated draws of known data."""

import itertools
import math

import pytest
import torch
from real_digits import Digits

from diffspace.metrics import memorisation, nearest_neighbours


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dims", "offset"), [((2,), 0.0), ((3, 40, 30), 0.0), ((5,), 1e4)])
def test_neighbours_against_brute_force(dims: tuple[int, ...], offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x, reference = normal(70, *dims) + offset, normal(130, *dims, seed=1) + offset
    flat_x, flat = x.flatten(1).double(), reference.flatten(1).double()
    exact = (flat_x[:, None] - flat[None]).square().sum(2).sqrt()
    monkeypatch.setattr("diffspace.metrics.neighbours._BLOCK_ELEMENTS", 2**17)
    distance, index = nearest_neighbours(x, reference)
    assert torch.equal(index, exact.argmin(1))
    torch.testing.assert_close(distance, exact.min(1).values, rtol=1e-13, atol=0)


def test_a_copy_is_at_exactly_zero() -> None:
    reference = 1000 + normal(50, 1, 8, 8)
    distance, index = nearest_neighbours(reference[[3, 40, 3]], reference)
    assert distance.tolist() == [0, 0, 0]
    assert index.tolist() == [3, 40, 3]


def test_copies_of_training_digits_are_named(digits: Digits) -> None:
    samples = digits.held_out[:200].clone()
    samples[[5, 17, 60, 61]] = digits.train[[900, 2, 33, 33]]
    report = memorisation(samples, digits.train, digits.held_out[200:])
    assert report.copies == ((5, 900), (17, 2), (60, 33), (61, 33))
    assert report.held_out_copies == 0
    assert not report.clean
    assert report.verdict == "memorised: 4 of 200 samples are exact copies of training items"


def test_blurred_copies_are_too_close(digits: Digits) -> None:
    samples = digits.train[:200] + 0.05 * normal(200, 1, 8, 8)
    report = memorisation(samples, digits.train, digits.held_out)
    assert report.copies == ()
    assert not report.clean
    assert report.verdict.startswith("too close: 100.0% of the samples")
    assert [c.observed for c in report.closeness] == [1, 1]
    assert report.median == pytest.approx(0.05 * 8, rel=0.05)


def test_a_tenth_of_blurred_copies_is_found(digits: Digits) -> None:
    samples = digits.held_out[:200].clone()
    samples[:20] = digits.train[:20] + 0.05 * normal(20, 1, 8, 8)
    assert not memorisation(samples, digits.train, digits.held_out[200:]).clean


def test_held_out_data_are_clean_against_themselves(digits: Digits) -> None:
    report = memorisation(digits.held_out[:225], digits.train, digits.held_out[225:])
    assert report.clean
    assert report.verdict.startswith("clean")


def test_statistics_over_repeated_draws() -> None:
    # samples, training and held-out data of one distribution: all that is expected of them is known
    trials, n, m = 400, 150, 120
    generator = torch.Generator().manual_seed(0)
    reports = []
    for _ in range(trials):
        parts = torch.randn(n + m + 80, 2, generator=generator).split((n, m, 80))
        reports.append(memorisation(parts[0], parts[2], parts[1]))
    for k, quantile in enumerate((0.01, 0.05)):
        check = reports[0].closeness[k]
        observed = torch.tensor([r.closeness[k].observed for r in reports]).double()
        assert check.expected == math.floor(quantile * (m + 1)) / (m + 1)
        assert float(observed.mean()) == pytest.approx(check.expected, abs=4 * check.standard_error / trials**0.5)
        assert float(observed.std()) == pytest.approx(check.standard_error, rel=0.2)
    # the bound of 1 % on false alarms, with four standard errors of its count
    alarms = sum(not r.clean for r in reports)
    assert alarms <= 0.01 * trials + 4 * math.sqrt(0.01 * trials)


def test_p_value_by_counting_all_orders() -> None:
    # 4 held-out and 3 sample distances in all 35 orders: how often are at least 2 samples below the lowest?
    orders = list(itertools.combinations(range(7), 3))
    as_many = sum(sum(s < min(set(range(7)) - set(order)) for s in order) >= 2 for order in orders)
    train = torch.zeros(1, 1)
    samples, held_out = torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([[3.0], [4.0], [5.0], [6.0]])
    check = memorisation(samples, train, held_out).closeness[1]
    assert (check.threshold, check.expected, check.observed) == (3, 1 / 5, 2 / 3)
    assert check.p_value == pytest.approx(as_many / len(orders), rel=1e-12)


def test_duplicates_in_the_data_are_no_memorisation() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(0, 8, (900, 2), generator=generator).float()
    report = memorisation(points[:300], points[300:600], points[600:])
    assert len(report.copies) > 250
    assert report.clean


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(5, 2)
    with pytest.raises(ValueError, match=r"samples, held_out: .* got 0 and 5"):
        memorisation(x[:0], x, x)
    with pytest.raises(ValueError, match=r"reference: .* got shape \(0, 2\)"):
        nearest_neighbours(x, x[:0])
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"reference: .* got shape \(5, 3\)"):
        nearest_neighbours(x, normal(5, 3))


def test_where_held_out_data_are_copies_nothing_can_be_told() -> None:
    train = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    assert memorisation(train[:20] + 1e-3, train, train[20:]).verdict.startswith("cannot tell: most of the held-out")


def test_what_is_not_finite_is_no_clean_sample() -> None:
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="samples: holds values that are not finite"):
        memorisation(torch.full((3, 2), torch.nan), x[:40], x[40:])
