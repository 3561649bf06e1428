"""Means by bin against means taken by hand."""

import math

import pytest
import torch

from diffspace.objective import IDDPMUniform, LogNormal, LogUniform, SigmaBins


def by_hand(edges, sigma, value):
    """Sums and counts of the bins [e_k, e_k+1), the outer ones open."""
    sums, counts = [0.0] * (len(edges) - 1), [0] * (len(edges) - 1)
    for s, v in zip(sigma.tolist(), value.tolist(), strict=True):
        if math.isfinite(v):
            place = max(k for k in range(len(edges) - 1) if k == 0 or s >= edges[k])
            sums[place] += v
            counts[place] += 1
    return sums, counts


def test_means_are_those_of_each_bin():
    generator = torch.Generator().manual_seed(0)
    bins = SigmaBins(LogNormal(), bins=10)
    seen = []
    for _ in range(20):
        sigma = LogNormal(P_std=2.5).sample(64, generator=generator)  # some lie beyond the edges
        value = torch.rand(64, generator=generator)
        seen.append((sigma, value))
        bins.add(sigma, value)
    sums, counts = by_hand(bins.edges.tolist(), *(torch.cat(part) for part in zip(*seen, strict=True)))
    read = bins.read()
    assert read["count"] == counts
    assert read["loss"] == pytest.approx([s / n for s, n in zip(sums, counts, strict=True)], rel=1e-12)


@pytest.mark.parametrize("noise", [LogNormal(), LogUniform(), IDDPMUniform()])
def test_edges_are_even_in_the_logarithm_and_cover_the_noise(noise):
    bins = SigmaBins(noise, bins=12)
    log = bins.edges.log()
    torch.testing.assert_close(log.diff(), (log[-1] - log[0]).div(12).expand(12), rtol=1e-9, atol=0)
    drawn = noise.sample(20_000, stratified=True, generator=torch.Generator().manual_seed(0))
    outside = ((drawn < bins.edges[0]) | (drawn > bins.edges[-1])).double().mean()
    assert outside == pytest.approx(2e-3, abs=1.1e-3)  # iDDPM's levels have a thousandth of the draws each
    middle = [math.sqrt(a * b) for a, b in zip(bins.edges.tolist(), bins.edges[1:].tolist(), strict=False)]
    assert bins.read()["sigma"] == pytest.approx(middle)


def test_a_bin_without_draws_has_no_mean_and_what_is_not_finite_is_left_out():
    bins = SigmaBins(edges=[1.0, 2.0, 4.0, 8.0])
    bins.add(torch.tensor([1.5, 1.5, 3.0, 3.5]), torch.tensor([1.0, math.nan, 5.0, math.inf]))
    read = bins.read()
    assert (read["loss"], read["count"]) == ([1.0, 5.0, None], [1, 1, 0])
    bins.reset()
    assert bins.read()["loss"] == [None] * 3


def test_sums_of_two_processes_add_up():
    generator = torch.Generator().manual_seed(1)
    sigma, value = LogNormal().sample(128, generator=generator), torch.rand(128, generator=generator)
    whole, first, second = (SigmaBins(LogNormal()) for _ in range(3))
    whole.add(sigma, value)
    first.add(sigma[:50], value[:50])
    second.add(sigma[50:], value[50:])
    first.sums += second.sums
    assert first.read()["count"] == whole.read()["count"]
    torch.testing.assert_close(first.sums, whole.sums, rtol=1e-13, atol=0)


@pytest.mark.parametrize("edges", [[1.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
def test_bad_edges_are_named(edges):
    with pytest.raises(ValueError, match=r"^edges: "):
        SigmaBins(edges=edges)


def test_noise_or_edges():
    with pytest.raises(ValueError, match=r"^noise, edges: expected one of the two"):
        SigmaBins()
    with pytest.raises(ValueError, match=r"^noise, edges: expected one of the two"):
        SigmaBins(LogNormal(), edges=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"^bins: expected an integer of at least 1, got 0"):
        SigmaBins(LogNormal(), bins=0)
