"""Draws of σ against the distributions of Table 1 in closed form, plain and stratified."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings, strategies as st

from diffspace.objective import IDDPMUniform, LogNormal, LogUniform, VPUniform
from diffspace.process import IDDPMLevels


def vp_time(sigma, beta_d=19.9, beta_min=0.1):
    return ((beta_min**2 + 2 * beta_d * torch.log1p(sigma**2)).sqrt() - beta_min) / beta_d


def share_of(distribution):
    return lambda sigma: torch.as_tensor(distribution.cdf(sigma.numpy()))


# the share of draws below σ
CONTINUOUS = {
    "edm": (LogNormal(), share_of(scipy.stats.lognorm(1.2, scale=math.exp(-1.2)))),
    "edm-other": (LogNormal(0.5, 0.3), share_of(scipy.stats.lognorm(0.3, scale=math.exp(0.5)))),
    "ve": (LogUniform(), share_of(scipy.stats.loguniform(0.02, 100.0))),
    "vp": (VPUniform(), lambda sigma: (vp_time(sigma) - 1e-5) / (1 - 1e-5)),
}
continuous = pytest.mark.parametrize(("noise", "share"), CONTINUOUS.values(), ids=CONTINUOUS)
each = pytest.mark.parametrize("noise", [*(noise for noise, _ in CONTINUOUS.values()), IDDPMUniform()], ids=repr)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def agrees_with_uniform(u):
    return scipy.stats.kstest(u.numpy(), "uniform").pvalue > 1e-4


@continuous
@settings(max_examples=50, deadline=None)
@given(u=st.floats(1e-6, 1 - 1e-6))
def test_the_quantile_inverts_the_distribution(noise, share, u):
    at = torch.tensor([u], dtype=torch.float64)
    assert share(noise.quantile(at)).item() == pytest.approx(u, rel=1e-9, abs=1e-12)


@continuous
@pytest.mark.parametrize("stratified", [False, True])
def test_draws_follow_the_distribution(noise, share, stratified):
    sigma = noise.sample(20_000, stratified=stratified, generator=seeded())
    assert sigma.dtype == torch.float64
    assert agrees_with_uniform(share(sigma))


@pytest.mark.parametrize("M", [1000, 7])
def test_iddpm_draws_each_level_as_often(M):
    noise, table = IDDPMUniform(M), IDDPMLevels(M).table()
    middle = (torch.arange(M, dtype=torch.float64) + 0.5) / M
    assert torch.equal(noise.quantile(middle), table)
    values, counts = noise.sample(200 * M, generator=seeded()).unique(return_counts=True)
    assert torch.equal(values, table)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-4
    # a stratified batch of M has each exactly once
    assert torch.equal(noise.sample(M, stratified=True, generator=seeded()).sort().values, table)


@continuous
@pytest.mark.parametrize("n", [1, 2, 64, 1000])
def test_a_stratified_batch_has_one_draw_in_each_stratum(noise, share, n):
    u = share(noise.sample(n, stratified=True, generator=seeded()))
    assert (u * n).floor().long().sort().values.tolist() == list(range(n))


@continuous
def test_every_position_of_a_stratified_batch_has_the_whole_distribution(noise, share):
    generator = seeded()
    batches = torch.stack([noise.sample(8, stratified=True, generator=generator) for _ in range(2000)])
    for position in (0, 3, 7):
        assert agrees_with_uniform(share(batches[:, position]))


@each
def test_strata_keep_the_mean_and_shrink_its_variance(noise):
    """The mean of ln σ over a batch of 64 varies 60 (iDDPM) to 4000 (log-uniform) times less."""
    generator = seeded()

    def means(stratified):
        draws = [noise.sample(64, stratified=stratified, generator=generator).log().mean() for _ in range(1000)]
        return torch.stack(draws)

    plain, stratified = means(False), means(True)
    assert abs(plain.mean() - stratified.mean()) < 4 * plain.std() / math.sqrt(1000)
    assert stratified.var() < plain.var() / 40


@each
def test_draws_come_from_the_generator(noise):
    for stratified in (False, True):
        first, again = (noise.sample(5, stratified=stratified, generator=seeded(3)) for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, noise.sample(5, stratified=stratified, generator=seeded(4)))
        torch.manual_seed(3)  # without one, from torch's own
        assert torch.equal(first, noise.sample(5, stratified=stratified))


@each
def test_the_ends_of_the_unit_interval_are_within_reach(noise, monkeypatch):
    for value in (0.0, 1 - 2**-53):
        monkeypatch.setattr(torch, "rand", lambda n, value=value, **_: torch.full((n,), value, dtype=torch.float64))
        sigma = noise.sample(3, stratified=True)
        assert (torch.isfinite(sigma) & (sigma > 0)).all()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: LogNormal(P_mean=math.inf), "P_mean"),
        (lambda: LogNormal(P_std=0.0), "P_std"),
        (lambda: LogNormal(P_std=math.nan), "P_std"),
        (lambda: LogUniform(0.0, 1.0), "sigma_min"),
        (lambda: LogUniform(1.0, math.inf), "sigma_max"),
        (lambda: LogUniform(2.0, 1.0), "sigma_max"),
        (lambda: VPUniform(beta_d=0.0), "beta_d"),
        (lambda: VPUniform(epsilon_t=0.0), "epsilon_t"),
        (lambda: VPUniform(epsilon_t=1.0), "epsilon_t"),
        (lambda: VPUniform(beta_min=-0.1), "epsilon_t"),  # σ(ε_t) is not real
        (lambda: IDDPMUniform(M=0), "M"),
        (lambda: LogNormal().sample(0), "n"),
    ],
)
def test_bad_parameters_are_named(make, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        make()
