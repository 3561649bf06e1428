"""What is wrong is said, by name, before any work is done."""

import math

import pytest
import torch

from diffspace import Churn, EDMSteps, Heun
from diffspace.likelihood import ExactTrace, GaussianPrior, Hutchinson, bits_per_dim, log_likelihood
from diffspace.sampling import Execution, Sampler
from diffspace.transform import PIXELS, Transform

X = torch.zeros(2, 2, dtype=torch.float64)
SHORT = Sampler(EDMSteps(2, 0.01, 10.0, terminal="sigma_min"), Heun(1 / 2))


def test_of_options():
    for make, name in (
        (lambda: Hutchinson(0), "probes"),
        (lambda: Hutchinson(-3), "probes"),
        (lambda: Hutchinson(2, chunk=0), "chunk"),
        (lambda: ExactTrace(0), "chunk"),
        (lambda: GaussianPrior(math.nan), "mean"),
        (lambda: GaussianPrior(0.0, -1.0), "std"),
        (lambda: GaussianPrior(0.0, math.inf), "std"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: "):
            make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": Sampler(EDMSteps(4))}, "terminal='sigma_min'"),
        (
            {"sampler": Sampler(EDMSteps(4, 0.002, 200.0, terminal="sigma_min"))},
            "sigma_max: 200 is outside the model's range",
        ),
        (
            {"sampler": Sampler(EDMSteps(4, 0.0001, terminal="sigma_min"))},
            "sigma_min: 0.0001 is outside the model's range",
        ),
        ({"trace": Hutchinson(2)}, "seeds: .* one for each"),
        ({"trace": Hutchinson(2), "seeds": [1]}, "seeds: 1 for 2 samples"),
        ({"seeds": [1, 2]}, "seeds: have no effect"),
        ({"execution": Execution(trajectory=True)}, "execution: trajectory has no effect"),
        ({"sampler": Sampler(churn=Churn(1.0))}, "sampler: churn adds noise"),
        ({"cond": {"labels": torch.zeros(3)}}, "cond: 'labels' has shape"),
        ({"prior": lambda x, sigma: x}, "prior: expected values of shape"),
        ({"prior": lambda x, sigma: x[:, 0] / 0}, "prior: not finite"),
    ],
)
def test_of_calls(options, message):
    def denoiser(x, sigma, cond=None):
        return 0.5 * x

    denoiser.sigma_min, denoiser.sigma_max = 0.001, 100.0
    with pytest.raises(ValueError, match=message):
        log_likelihood(denoiser, X, **{"sampler": SHORT} | options)


def test_of_samples():
    def denoiser(x, sigma, cond=None):
        return 0.5 * x

    denoiser.sample_shape = (2,)
    for bad, message in (
        (torch.full((2, 2), math.nan), r"x: not finite in samples \[0, 1\]"),
        (torch.tensor([[0.0, 0.0], [math.inf, 0.0]]), r"x: not finite in samples \[1\]"),
        (torch.zeros(2, 3), "shape: .* the model was made for samples like"),
        (torch.zeros(0, 2), "x: expected at least one sample"),
    ):
        with pytest.raises(ValueError, match=message):
            log_likelihood(denoiser, bad, sampler=SHORT)


def test_of_denoisers_without_a_gradient():
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    for cut in (
        torch.no_grad()(lambda x, sigma, cond: 0.5 * x),
        lambda x, sigma, cond: weight * x.detach(),
        lambda x, sigma, cond: torch.zeros_like(x),
    ):
        for trace, seeds in ((None, None), (Hutchinson(), [0, 1])):
            with pytest.raises(ValueError, match=r"^denoiser: has no gradient with respect to x"):
                log_likelihood(cut, X, trace=trace, seeds=seeds, sampler=SHORT)
    with pytest.raises(ValueError, match="denoiser: returned shape"):
        log_likelihood(lambda x, sigma, cond: x[:, :1], X, sampler=SHORT)


def test_of_results_that_are_not_finite():
    calls = []

    def breaks(x, sigma, cond=None):
        calls.append(1)
        return x * (math.nan if len(calls) > 4 else 0.5)

    with pytest.raises(FloatingPointError, match=r"not finite, in samples \[1\]"):
        log_likelihood(breaks, X, sampler=SHORT, execution=Execution(batch_size=1))


def test_of_bits():
    def denoiser(x, sigma, cond=None):
        return 0.5 * x

    raw = torch.zeros(2, 3, dtype=torch.uint8)
    given = {"seeds": [0, 1], "transform": PIXELS, "sampler": SHORT}
    for images, options, message in (
        (raw, {"draws": 0}, "draws: expected an integer of at least 1, got 0"),
        (raw, {"seeds": [0]}, "seeds: 1 for 2 samples"),
        (raw[:0], {"seeds": []}, "at least one sample"),
        (raw, {"transform": None}, "transform: the denoiser has none"),
        (raw, {"transform": Transform()}, "raw: expected integers"),
        (raw.float(), {}, "raw: .* got torch.float32"),
        (raw.int() + 256, {}, r"raw: .* got \[256, 256\]"),
        (raw, {"transform": Transform((0.0, 0.0), (1.0, 2.0), kind="integer", dtype="uint8")}, "raw: .* 2 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            bits_per_dim(denoiser, images, **given | options)
    with pytest.raises(ValueError, match="shape: expected"):
        Transform((0.0, 0.0), (1.0, 2.0)).log_volume((3, 4))
