"""The coefficients against Table 1, and the derivation of the paper's own (Appendix B.6) as measurements."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from diffspace.preconditioning import (
    ContinuousTime,
    EDMPreconditioning,
    EpsilonPrediction,
    FlowPrediction,
    IDDPMPreconditioning,
    LevelIndex,
    VEPreconditioning,
    VPPreconditioning,
    VPrediction,
    X0Prediction,
)
from diffspace.process import CosineSchedule, DiscreteLevels, FlowSchedule, IDDPMLevels, VPSchedule

SIGMAS = torch.logspace(-6, 6, 61, dtype=torch.float64)


def vp_time(sigma):
    """(M − 1)·σ⁻¹(σ) in 40 digits: the formula as it is written cancels at small σ."""
    with mpmath.workdps(40):
        beta_d, beta_min = mpmath.mpf("19.9"), mpmath.mpf("0.1")
        root = mpmath.sqrt(beta_min**2 + 2 * beta_d * mpmath.log(1 + mpmath.mpf(sigma) ** 2))
        return float(999 * (root - beta_min) / beta_d)


def iddpm_index(sigma):
    u = IDDPMLevels().table().flip(0)
    return 999 - (u - sigma).abs().argmin().item()


# σ to c_skip, c_out, c_in, c_noise, as Table 1 has them (σ_data is 0.5), or as the prediction is defined
TABLE_1 = {
    VPPreconditioning(): lambda s: (1, -s, 1 / math.sqrt(s**2 + 1), vp_time(s)),
    VEPreconditioning(): lambda s: (1, s, 1, math.log(s / 2)),
    IDDPMPreconditioning(): lambda s: (1, -s, 1 / math.sqrt(s**2 + 1), iddpm_index(s)),
    EDMPreconditioning(): lambda s: (
        0.25 / (s**2 + 0.25),
        s * 0.5 / math.sqrt(s**2 + 0.25),
        1 / math.sqrt(0.25 + s**2),
        math.log(s) / 4,
    ),
    EpsilonPrediction(): lambda s: (1, -s, 1 / math.sqrt(s**2 + 1), vp_time(s)),
    VPrediction(): lambda s: (1 / (s**2 + 1), -s / math.sqrt(s**2 + 1), 1 / math.sqrt(s**2 + 1), vp_time(s)),
    X0Prediction(): lambda s: (0, 1, 1 / math.sqrt(s**2 + 1), vp_time(s)),
    FlowPrediction(): lambda s: (1 / (1 + s), -s / (1 + s), 1 / (1 + s), s / (1 + s)),
}
each = pytest.mark.parametrize("preconditioning", TABLE_1, ids=lambda p: type(p).__name__)


@each
def test_values_of_table_1(preconditioning):
    expected = torch.tensor([TABLE_1[preconditioning](s) for s in SIGMAS.tolist()], dtype=torch.float64)
    actual = torch.stack([*preconditioning.coefficients(SIGMAS), preconditioning.c_noise(SIGMAS)], 1)
    torch.testing.assert_close(actual, expected, rtol=4e-15, atol=1e-15)


@each
def test_the_weight_makes_the_loss_of_the_network_uniform(preconditioning):
    """λ·c_out² = 1."""
    c_out = preconditioning.coefficients(SIGMAS).c_out
    one = torch.ones_like(SIGMAS)
    torch.testing.assert_close(preconditioning.weight(SIGMAS) * c_out**2, one, rtol=1e-14, atol=0)


@each
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_shapes_follow_sigma(preconditioning, shape):
    sigma = torch.full(shape, 0.7)
    values = [*preconditioning.coefficients(sigma), preconditioning.c_noise(sigma), preconditioning.weight(sigma)]
    assert all(value.shape == shape and value.dtype == torch.float32 for value in values)


@each
def test_all_are_finite_at_zero(preconditioning):
    zero = torch.zeros(1, dtype=torch.float64)
    c_skip, c_out, c_in = preconditioning.coefficients(zero)
    assert torch.isfinite(torch.cat([c_skip, c_out, c_in, preconditioning.c_noise(zero)])).all()
    if not isinstance(preconditioning, X0Prediction):
        assert (c_skip.item(), c_out.item()) == (1, 0)


def test_v_prediction_is_edm_with_unit_variance_and_the_sign_changed():
    v, edm = VPrediction().coefficients(SIGMAS), EDMPreconditioning(sigma_data=1.0).coefficients(SIGMAS)
    assert torch.equal(v.c_skip, edm.c_skip)
    assert torch.equal(v.c_out, -edm.c_out)
    assert torch.equal(v.c_in, edm.c_in)


def test_iddpm_rounds_only_what_the_network_is_told():
    iddpm, vp = IDDPMPreconditioning(), VPPreconditioning()
    between = IDDPMLevels().table()[:-1] * 1.0001
    for own, other in zip(iddpm.coefficients(between), vp.coefficients(between), strict=True):
        assert torch.equal(own, other)
    assert torch.equal(iddpm.c_noise(between), torch.arange(999, dtype=torch.float64))
    assert torch.equal(iddpm.round_sigma(between), IDDPMLevels().table()[:-1])
    assert torch.equal(vp.round_sigma(between), between)


def test_ranges():
    assert EDMPreconditioning().sigma_range == (0.0, math.inf)
    assert EDMPreconditioning(0.5, 0.002, 80.0).sigma_range == (0.002, 80.0)
    assert VEPreconditioning().sigma_range == (0.02, 100.0)
    vp = VPSchedule()
    assert VPPreconditioning().sigma_range == pytest.approx((vp.sigma(1e-5), vp.sigma(1.0)), rel=1e-15)
    table = IDDPMLevels().table()
    assert IDDPMPreconditioning().sigma_range == (table[0].item(), table[-1].item())
    assert FlowPrediction().sigma_range == (0.0, math.inf)
    assert EpsilonPrediction(LevelIndex(DiscreteLevels((0.1, 3.0)))).sigma_range == (0.1, 3.0)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 3.7])
class TestDerivation:
    """Appendix B.6, for data y of variance σ_data² and noise n of variance σ²."""

    def coefficients(self, sigma_data):
        return EDMPreconditioning(sigma_data=sigma_data).coefficients(SIGMAS)

    def test_input_and_target_have_unit_variance(self, sigma_data):
        """Var[c_in(y + n)] = 1 and Var[(y − c_skip(y + n))/c_out] = 1 (Eqs. 114 to 131)."""
        c_skip, c_out, c_in = self.coefficients(sigma_data)
        variance_in = c_in**2 * (sigma_data**2 + SIGMAS**2)
        # 1 − c_skip = σ²/(σ² + σ_data²), which float64 cannot form at small σ
        gap = SIGMAS**2 / (SIGMAS**2 + sigma_data**2)
        variance_target = (gap**2 * sigma_data**2 + c_skip**2 * SIGMAS**2) / c_out**2
        torch.testing.assert_close(variance_in, torch.ones_like(SIGMAS), rtol=1e-14, atol=0)
        torch.testing.assert_close(variance_target, torch.ones_like(SIGMAS), rtol=1e-14, atol=0)

    def test_input_and_target_have_unit_variance_in_draws(self, sigma_data):
        n = 100_000
        generator = torch.Generator().manual_seed(0)
        normal = torch.randn(2, n, dtype=torch.float64, generator=generator)
        for sigma in (0.01, 0.5, 80.0):
            c_skip, c_out, c_in = EDMPreconditioning(sigma_data=sigma_data).coefficients(
                torch.tensor(sigma, dtype=torch.float64)
            )
            y, noise = sigma_data * normal[0], sigma * normal[1]
            for values in (c_in * (y + noise), (y - c_skip * (y + noise)) / c_out):
                assert abs(values.var().item() - 1) < 4 * math.sqrt(2 / n)

    def test_c_skip_amplifies_the_errors_of_the_network_least(self, sigma_data):
        """c_skip minimises c_out² = (1 − c_skip)²·σ_data² + c_skip²·σ² (Eq. 132)."""
        c_skip, c_out, _ = self.coefficients(sigma_data)

        def square(c):
            return (1 - c) ** 2 * sigma_data**2 + c**2 * SIGMAS**2

        at = c_skip.clone().requires_grad_()
        (slope,) = torch.autograd.grad(square(at).sum(), at)
        curvature = 2 * (sigma_data**2 + SIGMAS**2)
        assert (slope.abs() <= 1e-14 * curvature).all()
        assert (curvature > 0).all()
        # the minimum itself, where 1 − c_skip has digits left
        middle = SIGMAS >= 1e-3
        torch.testing.assert_close(square(c_skip)[middle], (c_out**2)[middle], rtol=1e-9, atol=0)
        grid = torch.linspace(-1, 2, 3001, dtype=torch.float64)[:, None]
        values = square(grid)
        assert (values >= square(c_skip) * (1 - 1e-12)).all()
        assert ((grid[values.argmin(0), 0] - c_skip).abs() <= 0.5001e-3).all()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: EDMPreconditioning(sigma_data=0.0), "sigma_data"),
        (lambda: EDMPreconditioning(sigma_data=math.nan), "sigma_data"),
        (lambda: EDMPreconditioning(0.5, 1.0, 1.0), "sigma_max"),
        (lambda: EDMPreconditioning(0.5, -1.0), "sigma_min"),
        (lambda: VEPreconditioning(2.0, 1.0), "sigma_max"),
        (lambda: VPPreconditioning(M=1), "M"),
        (lambda: VPPreconditioning(beta_d=-1.0), "beta_d"),
        (lambda: VPPreconditioning(epsilon_t=1.0), "epsilon_t"),
        (lambda: VPPreconditioning(beta_min=-0.1), "schedule"),  # σ(ε_t) is not real
        (lambda: IDDPMPreconditioning(M=0), "M"),
        (lambda: ContinuousTime(t_min=1.0, t_max=0.5), "t_max"),
        (lambda: ContinuousTime(factor=math.nan), "factor"),
        (lambda: ContinuousTime(FlowSchedule(), t_max=1.5), "schedule"),  # beyond the pole
        (lambda: ContinuousTime(CosineSchedule(), t_max=1.5), "schedule"),
    ],
)
def test_bad_parameters_are_named(make, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        make()
