"""The u_j of iDDPM against their closed form, and rounding against brute force."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings, strategies as st

from diffspace.process import DiscreteLevels, IDDPMLevels, nearest_level, round_to_levels

several = settings(max_examples=50, deadline=None)
TABLE = IDDPMLevels().table()
TABLES = {
    "iddpm": TABLE,
    "three": torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64),
    "one": torch.tensor([0.7], dtype=torch.float64),
}


@pytest.mark.parametrize(
    ("M", "C_1", "C_2"), [(1000, 0.001, 0.008), (100, 0.001, 0.008), (20, 0.3, 0.1), (1, 0.001, 0.008)]
)
def test_levels_are_those_of_table_1(M, C_1, C_2):
    """Where C_1 does not bind, u_j² + 1 = ᾱ_M/ᾱ_j; below, it grows by the factor 1/C_1 a level."""
    with mpmath.workdps(40):

        def alpha_bar(j):
            return mpmath.sin(mpmath.pi / 2 * j / (M * (1 + mpmath.mpf(C_2)))) ** 2

        first = next(j for j in range(1, M + 1) if alpha_bar(j - 1) / alpha_bar(j) >= C_1 or j == M)
        first = max((j for j in range(M) if alpha_bar(j) < C_1 * alpha_bar(j + 1)), default=-1) + 1
        exact = [
            mpmath.sqrt(alpha_bar(M) / alpha_bar(max(j, first)) * mpmath.mpf(C_1) ** -max(first - j, 0) - 1)
            for j in range(M)
        ]
        expected = torch.tensor([float(u) for u in reversed(exact)], dtype=torch.float64)
    table = IDDPMLevels(M, C_1, C_2).table()
    assert len(table) == M
    torch.testing.assert_close(table, expected, rtol=1e-11, atol=0)


def test_the_levels_that_the_paper_names():
    u = TABLE.flip(0)
    assert u[8].item() == pytest.approx(80.2, abs=0.05)
    assert u[0].item() == pytest.approx(20291, abs=1)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@several
@given(exponents=st.lists(st.floats(-4, 5), min_size=1, max_size=8))
def test_nearest_level_is_the_argmin(table, dtype, exponents):
    sigma = torch.tensor([10.0**e for e in exponents], dtype=dtype)
    expected = (table - sigma[:, None]).abs().argmin(1)
    assert nearest_level(table, sigma).tolist() == expected.tolist()
    assert nearest_level(table, sigma[0]).item() == expected[0]
    assert nearest_level(table, sigma[None]).shape == (1, len(sigma))
    rounded = round_to_levels(table, sigma)
    assert rounded.dtype == dtype
    assert torch.equal(rounded, table[expected].to(dtype))
    assert torch.equal(round_to_levels(table, rounded), rounded)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_levels_keep_their_place_and_zero_stays(table):
    assert nearest_level(table, table).tolist() == list(range(len(table)))
    assert nearest_level(table, table.float()).tolist() == list(range(len(table)))
    assert round_to_levels(table, torch.tensor([0.0])).item() == 0
    middle = (table[1:] + table[:-1]) / 2
    index = torch.arange(len(table) - 1)
    assert torch.equal(nearest_level(table, middle * (1 - 1e-12)), index)
    assert torch.equal(nearest_level(table, middle * (1 + 1e-12)), index + 1)


def test_levels_of_a_ddpm():
    a = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    levels = DiscreteLevels.from_alphas_cumprod(a)
    for n in (0, 1, 500, 999):
        assert levels.sigmas[n] == pytest.approx(math.sqrt((1 - a[n].item()) / a[n].item()), rel=1e-15)
    assert torch.equal(levels.table(), torch.tensor(levels.sigmas, dtype=torch.float64))
    # a float32 table, as checkpoints hold it, is taken as it is: no digits are lost in 1 − a
    rounded = DiscreteLevels.from_alphas_cumprod(a.float()).table()
    a = a.float().double()
    torch.testing.assert_close(rounded, ((1 - a) / a).sqrt(), rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: IDDPMLevels(M=0), "M"),
        (lambda: IDDPMLevels(C_1=0.0), "C_1"),
        (lambda: IDDPMLevels(C_2=-0.1), "C_2"),
        (lambda: DiscreteLevels(()), "sigmas"),
        (lambda: DiscreteLevels((0.0, 1.0)), "sigmas"),
        (lambda: DiscreteLevels((2.0, 1.0)), "sigmas"),
        (lambda: DiscreteLevels((1.0, 1.0)), "sigmas"),
        (lambda: DiscreteLevels((1.0, math.inf)), "sigmas"),
        (lambda: DiscreteLevels((1.0, math.nan, 2.0)), "sigmas"),
        (lambda: DiscreteLevels.from_alphas_cumprod(torch.tensor([0.9, 0.0])), "alphas_cumprod"),
        (lambda: DiscreteLevels.from_alphas_cumprod(torch.tensor([1.0, 0.5])), "alphas_cumprod"),
        (lambda: DiscreteLevels.from_alphas_cumprod(torch.tensor([0.5, 0.9])), "alphas_cumprod"),
        (lambda: DiscreteLevels.from_alphas_cumprod(torch.tensor([0.9, math.nan])), "alphas_cumprod"),
    ],
)
def test_bad_tables_are_named(make, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        make()
