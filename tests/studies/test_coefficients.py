"""Preconditioning over σ: the statements of Appendix B.6 for the columns of Table 1 and the other predictions."""

import pytest
import torch

from diffspace.objective import IDDPMUniform, LogNormal, LogUniform
from diffspace.preconditioning import EDMPreconditioning
from diffspace.studies import COLUMNS, coefficient_curves, column, predictions, target_curves, training_density

SIGMA = torch.logspace(-3, 2, 101, dtype=torch.float64)
ONE = torch.ones_like(SIGMA)
SIGMA_DATA = (0.1, 0.5, 1.0, 3.0)
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def curves(name, sigma_data):
    return target_curves(*predictions(sigma_data)[name], SIGMA, sigma_data)


@pytest.mark.parametrize("sigma_data", SIGMA_DATA)
@pytest.mark.parametrize("name", COLUMNS)
def test_target_variance_and_effective_weight_of_all_columns_are_one(name, sigma_data):
    found = curves(name, sigma_data)
    torch.testing.assert_close(found.target_variance, ONE, **EXACT)
    torch.testing.assert_close(found.effective_weight, ONE, **EXACT)


@pytest.mark.parametrize("sigma_data", SIGMA_DATA)
def test_input_variance_is_one_for_edm_alone(sigma_data):
    torch.testing.assert_close(curves("EDM", sigma_data).input_variance, ONE, **EXACT)
    total = SIGMA**2 + sigma_data**2
    for name in ("VP", "iDDPM"):
        torch.testing.assert_close(curves(name, sigma_data).input_variance, total / (SIGMA**2 + 1), **EXACT)
    torch.testing.assert_close(curves("VE", sigma_data).input_variance, total, **EXACT)
    for name in ("VP", "iDDPM", "VE"):
        off = (curves(name, sigma_data).input_variance - 1).abs().max()
        assert (float(off) > 0.5) == (sigma_data != 1.0 or name == "VE")


@pytest.mark.parametrize("sigma_data", SIGMA_DATA)
def test_edm_amplifies_errors_least(sigma_data):
    edm = curves("EDM", sigma_data)
    assert bool((edm.c_out < sigma_data).all())
    for name in ("VP", "VE", "iDDPM"):
        torch.testing.assert_close(curves(name, sigma_data).c_out, SIGMA, **EXACT)
    # c_out of every c_skip that leaves the target with variance 1 (Eq. 122), of which EDM's is the least
    c_skip = torch.linspace(-0.5, 1.5, 2001, dtype=torch.float64)[:, None]
    c_out = (((1 - c_skip) * sigma_data) ** 2 + (c_skip * SIGMA) ** 2).sqrt()
    assert bool((c_out >= edm.c_out * (1 - 1e-12)).all())
    best = coefficient_curves(column("EDM", sigma_data), SIGMA).c_skip
    least = ((1 - best) ** 2 * sigma_data**2 + best**2 * SIGMA**2).sqrt()
    torch.testing.assert_close(edm.c_out, least, **EXACT)


@pytest.mark.parametrize("sigma_data", SIGMA_DATA)
def test_what_each_prediction_is_trained_to_give(sigma_data):
    root, total = (SIGMA**2 + 1).sqrt(), (SIGMA**2 + sigma_data**2).sqrt()
    expected = {
        "ε": (0 * ONE, ONE),
        "VP": (0 * ONE, ONE),
        "VE": (0 * ONE, -ONE),
        "x₀": (ONE, 0 * ONE),
        "v": (-SIGMA / root, 1 / root),
        "flow": (-ONE, ONE),
        "EDM": (SIGMA / (sigma_data * total), -sigma_data / total),
    }
    for name, (signal, noise) in expected.items():
        found = curves(name, sigma_data)
        torch.testing.assert_close(found.signal, signal, rtol=1e-9, atol=1e-12)  # 1 − c_skip cancels at low σ
        torch.testing.assert_close(found.noise, noise, **EXACT)
    torch.testing.assert_close(curves("x₀", sigma_data).target_variance, sigma_data**2 * ONE, **EXACT)
    v = (SIGMA**2 * sigma_data**2 + 1) / (SIGMA**2 + 1)
    torch.testing.assert_close(curves("v", sigma_data).target_variance, v, **EXACT)
    share = SIGMA**2 / (SIGMA**2 + sigma_data**2)
    torch.testing.assert_close(curves("EDM", sigma_data).signal_share, share, **EXACT)


def test_v_prediction_is_edm_for_unit_data():
    for which in ("input_variance", "target_variance", "c_out", "effective_weight", "signal_share"):
        torch.testing.assert_close(getattr(curves("v", 1.0), which), getattr(curves("EDM", 1.0), which), **EXACT)


def test_coefficients_end_with_the_range_of_the_network():
    found = coefficient_curves(column("VE", 0.5), torch.tensor([0.01, 0.02, 100.0, 101.0], dtype=torch.float64))
    assert found.c_noise.isnan().tolist() == [True, False, False, True]
    assert found.c_out[1:3].tolist() == [0.02, 100.0]
    whole = coefficient_curves(EDMPreconditioning(2.0), SIGMA)
    torch.testing.assert_close(whole.c_noise, SIGMA.log() / 4, **EXACT)


def test_training_density():
    sigma = torch.logspace(-4, 3, 141, dtype=torch.float64)
    z = (sigma.log() + 1.2) / 1.2
    normal = (-0.5 * z**2).exp() / (1.2 * (2 * torch.pi) ** 0.5)
    torch.testing.assert_close(training_density(LogNormal(), sigma), normal, rtol=0.01, atol=1e-3)
    uniform = training_density(LogUniform(0.02, 100.0), sigma)
    inside = (sigma > 0.03) & (sigma < 90)
    torch.testing.assert_close(uniform[inside], torch.full_like(uniform[inside], 1 / torch.tensor(5000.0).log().item()))
    assert uniform[sigma < 0.015].abs().max() == 0
    # each of the 1000 levels of iDDPM has the same part of the draws
    assert float(torch.trapezoid(training_density(IDDPMUniform(), sigma), sigma.log())) == pytest.approx(
        0.996, abs=5e-3
    )
