"""Bits per dimension against densities of which they are known."""

import math

import pytest
import torch
from scipy import integrate, stats

from diffspace import EDMPreconditioning, EDMSteps, Heun, Model, Preconditioned
from diffspace.likelihood import Hutchinson, bits_per_dim, log_likelihood
from diffspace.networks import MLP
from diffspace.oracles import FiniteData, Gaussian
from diffspace.sampling import Execution, Sampler
from diffspace.transform import PIXELS, Transform

SIGMA_MIN = 0.002


def steps(n):
    return EDMSteps(n, SIGMA_MIN, 80.0, terminal="sigma_min")


@pytest.fixture(scope="module")
def narrow():
    """Pixels that are N(m, s²) in raw units with s of 0.8 and 2.5, so that the density bends within a bin."""
    means, stds = torch.tensor([120.0, 131.0]).double(), torch.tensor([0.8, 2.5]).double()
    oracle = Gaussian((means - 127.5) / 127.5, torch.diag((stds / 127.5) ** 2))
    return oracle, means, (stds**2 + (127.5 * SIGMA_MIN) ** 2).sqrt()


RAW = torch.tensor([[120, 131], [121, 127], [118, 134]], dtype=torch.uint8)


def test_a_gaussian_of_pixels_against_quadrature(narrow):
    """The bound is −∫log₂p over the bin, the importance-weighted one tends to −log₂∫p, both known to all digits."""
    oracle, means, stds = narrow
    found = bits_per_dim(
        oracle,
        RAW,
        seeds=range(3),
        draws=400,
        transform=PIXELS,
        prior=oracle.log_prob,
        sampler=Sampler(EDMSteps(100, SIGMA_MIN, 0.5, terminal="sigma_min"), Heun(1 / 2)),
    )
    bound, probability = torch.zeros(3), torch.zeros(3)
    for pixel in range(2):
        density = stats.norm(float(means[pixel]), float(stds[pixel]))
        for i, k in enumerate(RAW[:, pixel].tolist()):
            bound[i] -= integrate.quad(density.logpdf, k - 0.5, k + 0.5)[0] / (2 * math.log(2))
            probability[i] -= math.log2(density.cdf(k + 0.5) - density.cdf(k - 0.5)) / 2
    assert (bound > probability + 0.0005).all()
    assert ((found.bits - bound).abs() < 3.5 * found.standard_error + 1e-3).all()  # 1e-3 bits are the steps
    assert (found.standard_error < 0.04).all()
    torch.testing.assert_close(found.importance_weighted, probability.double(), rtol=0, atol=0.04)
    assert (found.importance_weighted < found.bits).all()
    assert found.mean == pytest.approx(float(bound.mean()), abs=3.5 * found.estimator_error + 1e-3)
    assert found.mean_error == pytest.approx(float(found.bits.std()) / 3**0.5)
    assert found.log_probs.shape == (400, 3)


def test_uniform_pixels_take_eight_bits():
    """A density that is flat over [−½, 255½), made of points closer than σ_min."""
    points = (torch.linspace(-0.5, 255.5, 2049).double() - 127.5) / 127.5
    uniform = FiniteData(points[:, None])
    raw = torch.tensor([[30], [128], [201]], dtype=torch.uint8)
    found = bits_per_dim(
        uniform, raw, seeds=range(3), transform=PIXELS, prior=uniform.log_prob, sampler=Sampler(steps(200), Heun(1 / 2))
    )
    torch.testing.assert_close(found.bits, torch.full((3,), 8.0).double(), rtol=0, atol=2e-3)


def test_bits_are_nats_of_raw_values_over_the_dimensions():
    """One channel of scale 10, one of −0.5; nats to bits by ln 2, for each number and not for each pixel."""
    transform = Transform((5.0, 1.0), (10.0, -0.5), kind="integer", dtype="int16")
    assert transform.log_volume((2, 3)) == pytest.approx(-3 * math.log(10) + 3 * math.log(2))
    assert PIXELS.log_volume((3, 4, 4)) == pytest.approx(-48 * math.log(127.5))
    noise = torch.tensor([[[0.25, -0.5, 0.0], [0.25, -0.5, 0.0]]])
    x = transform.dequantise(torch.tensor([[[5, 15, -5], [1, 2, 0]]], dtype=torch.int16), noise)
    expected = [[[0.025, 0.95, -1.0], [-0.5, -1.0, 2.0]]]
    torch.testing.assert_close(x, torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-7)
    oracle = Gaussian(torch.zeros(2, 3).double(), torch.eye(6).double())
    raw = torch.tensor([[[5, 15, -5], [1, 2, 0]]], dtype=torch.int16)
    found = bits_per_dim(
        oracle, raw, seeds=[3], transform=transform, prior=oracle.log_prob, sampler=Sampler(steps(60), Heun(1 / 2))
    )
    nats = found.log_probs[0] - 3 * math.log(10) - 3 * math.log(0.5)
    torch.testing.assert_close(found.bits, -nats / 6 / math.log(2))
    # at −log₂ of a density that reaches 6 bits over the space of raw values, nothing else is of this size
    closed = 0.5 * math.log2(2 * math.pi) + 0.5 * math.log2(10) + 0.5 * math.log2(0.5)
    assert float(found.bits) > closed
    assert float(found.bits) < closed + 0.5 * 12 / 6 / math.log(2)


def test_a_model_brings_its_transform():
    torch.manual_seed(0)
    transform = Transform((8.0,), (8.0,), lowest=0.0, highest=16.0, kind="integer", dtype="uint8")
    model = Model(Preconditioned(MLP((4,)), EDMPreconditioning(0.5)), transform).eval()
    raw = torch.tensor([[0, 4, 9, 16], [3, 3, 1, 0]], dtype=torch.uint8)
    options = {"seeds": [5, 6], "sampler": Sampler(steps(6), Heun(1 / 2))}
    found = bits_per_dim(model, raw, **options)
    torch.testing.assert_close(found.bits, bits_per_dim(model.denoiser, raw, transform=transform, **options).bits)
    # near −log₂ p(x) + log₂ 8 at the middle of the bins
    x = transform.forward(raw)
    middle = -log_likelihood(model, x, sampler=Sampler(steps(6), Heun(1 / 2))).log_prob / (4 * math.log(2)) + 3
    assert (found.bits - middle).abs().max() < 3
    for batch_size in (1, None):
        again = bits_per_dim(
            model,
            raw.flip(0),
            seeds=[6, 5],
            sampler=Sampler(steps(6), Heun(1 / 2)),
            execution=Execution(batch_size=batch_size),
        )
        torch.testing.assert_close(again.bits.flip(0), found.bits, rtol=1e-6, atol=0)


def test_draws_and_probes_are_independent_and_their_errors_add(narrow):
    oracle, _, _ = narrow
    correlated = Gaussian(oracle.mean, torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double() * (5 / 127.5) ** 2)
    raw = RAW[:1].expand(300, 2)
    options = {"transform": PIXELS, "sampler": Sampler(steps(8), Heun(1 / 2)), "trace": Hutchinson(2, "gaussian")}
    found = bits_per_dim(correlated, raw, seeds=range(300), draws=6, **options)
    scatter = float(found.bits.std())
    assert float(found.standard_error.square().mean().sqrt()) == pytest.approx(scatter, rel=0.1)
    draws = found.log_probs - found.log_probs.mean(1, keepdim=True)
    assert float((torch.corrcoef(draws) - torch.eye(6)).abs().max()) < 4 / 300**0.5
    assert found.importance_weighted is None
    assert found.estimator_error == pytest.approx(scatter / 300**0.5, rel=0.1)
    once = bits_per_dim(correlated, raw[:4], seeds=range(4), **options)
    assert (once.standard_error > 0).all()
    single = bits_per_dim(correlated, raw[:4], seeds=range(4), **options | {"trace": Hutchinson(1)})
    assert single.standard_error.isnan().all()


def test_progress_counts_through_the_draws(narrow):
    seen = []
    bits_per_dim(
        narrow[0],
        RAW,
        seeds=range(3),
        draws=2,
        transform=PIXELS,
        sampler=Sampler(steps(1), Heun(1 / 2)),
        execution=Execution(batch_size=2, progress=lambda first, state: seen.append((first, state.step))),
    )
    assert seen == [(0, 0), (0, 1), (2, 0), (2, 1), (4, 0), (4, 1)]
