"""Bad requests: each is refused in one line that names the argument, its value and what is allowed."""

import math

import numpy as np
import pytest
import torch

import diffspace as ds
from diffspace import EDMSteps, Heun, sample
from diffspace.data import TwoMoons
from diffspace.guidance import ClassifierFree
from diffspace.objective import loss_by_sigma
from diffspace.sampling import Execution, sample_from

ONE = torch.zeros(1, 2, dtype=torch.float64)


def half(x, sigma, cond=None):
    return 0.5 * x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "seeds: expected seeds"),
        ({"shape": (2,)}, "seeds: expected seeds"),
        ({"seeds": [0]}, "shape: the denoiser does not state the shape of a sample; give shape"),
        ({"seeds": [], "shape": (2,)}, "seeds: expected at least one sample"),
        ({"seeds": [0], "shape": (0,)}, r"shape: expected positive sizes, got \(0,\)"),
        ({"seeds": [0], "shape": (2, -1)}, r"shape: expected positive sizes, got \(2, -1\)"),
        ({"latents": ONE[:0]}, "latents: expected at least one sample"),
        ({"latents": ONE, "shape": (3,)}, r"shape: \(3,\), but latents has samples of shape \(2,\)"),
        ({"latents": ONE, "seeds": [1, 2]}, "seeds: 2 for 1 samples; expected one for each"),
        ({"latents": ONE * torch.nan}, r"latents: not finite in samples \[0\]"),
        ({"latents": ONE + torch.inf}, r"latents: not finite in samples \[0\]"),
        ({"latents": ONE, "cond": {"labels": torch.zeros(3)}}, r"cond: 'labels' has shape \(3,\); expected 1 rows"),
        ({"latents": ONE, "cond": {"labels": torch.tensor(3)}}, r"cond: 'labels' has shape \(\); expected 1 rows"),
    ],
)
def test_the_message_names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        sample(half, **arguments)
    assert "\n" not in str(caught.value)


def test_a_state_is_checked():
    with pytest.raises(ValueError, match=r"x: not finite in samples \[0\]"):
        sample_from(half, ONE * torch.nan, 1.0)


def test_a_batch_holds_a_sample():
    with pytest.raises(ValueError, match="batch_size: expected an integer of at least 1, got 0"):
        Execution(batch_size=0)


def test_bad_samples_are_counted_and_the_first_are_named():
    latents = torch.zeros(20, 2, dtype=torch.float64)
    latents[3:17, 1] = torch.nan
    with pytest.raises(ValueError, match=r"latents: not finite in samples \[3, 4, 5, 6, 7, 8, 9, 10\] …"):
        sample(half, latents=latents)
    with pytest.raises(ValueError, match=r"latents: not finite in samples \[1\]"):
        sample(half, latents=torch.tensor([0.0, torch.nan]))


def test_the_shape_of_a_model_is_kept(mixture):
    with pytest.raises(ValueError, match=r"shape: \(3,\), but the model was made for samples like \(2,\)"):
        sample(mixture, shape=(3,), seeds=[0])
    with pytest.raises(ValueError, match=r"shape: \(1, 2\), but the model was made for samples like \(2,\)"):
        sample(mixture, latents=torch.zeros(1, 1, 2, dtype=torch.float64))


def test_a_model_of_images_takes_any_size_but_no_other_number_of_channels():
    def model(x, sigma, cond=None):
        return 0.5 * x

    model.sample_shape = (3, 8, 8)
    assert sample(model, shape=(3, 16, 12), seeds=[0], steps=EDMSteps(2)).x.shape == (1, 3, 16, 12)
    with pytest.raises(ValueError, match=r"shape: \(1, 8, 8\), but the model was made for samples like \(3, 8, 8\)"):
        sample(model, shape=(1, 8, 8), seeds=[0])


def test_a_denoiser_that_changes_the_shape_is_found_out():
    with pytest.raises(ValueError, match=r"denoiser: expected a result of shape \(1, 2\), like x, got .*1, 1"):
        sample(lambda x, sigma, cond=None: x[:, :1], latents=ONE)


def test_a_denoiser_that_ends_in_nan_is_an_error_that_says_where():
    def broken(x, sigma, cond=None):
        return torch.where(x > 0, x, torch.nan)

    latents = torch.tensor([[1.0], [1.0], [1.0], [-1.0]], dtype=torch.float64)
    with pytest.raises(FloatingPointError, match=r"not finite, in samples \[3\]"):
        sample(broken, latents=latents, steps=EDMSteps(3), execution=Execution(batch_size=2))


def test_a_stop_iteration_of_the_denoiser_does_not_pass_for_the_end_of_a_step():
    def exhausted(x, sigma, cond=None):
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        sample(exhausted, latents=ONE)


@pytest.mark.parametrize("alpha", [0.0, -0.5, 1.1, float("nan"), float("inf")])
def test_alpha_has_a_range(alpha):
    with pytest.raises(ValueError, match=r"alpha: expected a number in \(0, 1\], got"):
        Heun(alpha)


INTEGERS, COMPLEX = torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.complex64)
LABELLED = ds.Preconditioned(ds.networks.MLP((2,), label_dim=3, label_dropout=0.1), ds.EDMPreconditioning()).eval()
ORACLE = ds.oracles.Gaussian(torch.zeros(2), torch.eye(2))
LOSS = ds.DenoisingLoss(ds.LogNormal())
LEVEL = torch.tensor(1.0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (lambda x=x, name=name, f=f: f(x), f"^{name}: expected (a tensor|floating-point numbers), got ")
            for x in (INTEGERS, COMPLEX, np.zeros((1, 2)), [[1.0, 2.0]])
            for name, f in {
                "latents": lambda x: sample(half, latents=x),
                "x": lambda x: ds.encode(half, x),
                "x0": lambda x: LOSS(LABELLED, x),
            }.items()
        ),
        *(
            (lambda x=x, f=f: f(x), "^x0?: expected floating-point numbers")
            for x in (INTEGERS.expand(2, 2), COMPLEX.expand(2, 2))
            for f in (
                lambda x: ds.log_likelihood(half, x),
                lambda x: sample_from(half, x, 1.0),
                lambda x: LABELLED(x, LEVEL),
                lambda x: ORACLE(x, LEVEL),
                lambda x: ORACLE.log_prob(x, LEVEL),
                lambda x: loss_by_sigma(half, x, sigmas=torch.ones(1)),
            )
        ),
        *(
            (lambda cond=cond, f=f: f(cond), f"^cond: {message}")
            for cond, message in (([1], "expected a mapping"), ({"labels": [1]}, "'labels' is a list; convert it"))
            for f in (
                lambda cond: sample(half, latents=ONE, cond=cond),
                lambda cond: LABELLED(ONE, LEVEL, cond),
                lambda cond: ClassifierFree(LABELLED, 2.0)(ONE, LEVEL, cond),
            )
        ),
        *(
            (lambda options=options: sample(half, latents=ONE, **options), f"^{next(iter(options))}: expected ")
            for options in (
                *({"steps": 18}, {"solver": "heun"}, {"process": "vp"}, {"churn": 40}, {"execution": {"grad": True}}),
                *({"sampler": "heun"}, {"sampler": EDMSteps(3)}, {"shape": 2}, {"noise": 0.0}, {"seeds": 3}),
            )
        ),
        *(
            (lambda dtype=dtype: Execution(dtype=dtype), "^dtype: expected a floating-point dtype")
            for dtype in (torch.complex64, torch.int64, "float32")
        ),
        (lambda: Execution(device="gpu"), "^device: 'gpu' is not available: Expected one of cpu"),
        (lambda: Execution(progress=True), "^progress: expected a callable"),
        (lambda: sample("model", latents=ONE), "^denoiser: expected a callable"),
        (lambda: sample_from(half, ONE, "1"), "^sigma_start: expected a number"),
        (lambda: ds.encode(half, ONE, sampler="heun"), "^sampler: expected Sampler"),
        (lambda: ds.log_likelihood(half, ONE, sampler="heun"), "^sampler: expected Sampler"),
        (lambda: ds.DenoisingLoss("lognormal"), "^noise: expected NoiseDistribution"),
        (lambda: LABELLED(ONE, 1.0), "^sigma: expected a tensor, got float"),
    ],
)
def test_wrong_types_are_named_like_wrong_values(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", [-1.0, math.nan, math.inf])
def test_levels_that_are_none_do_not_reach_a_denoiser(level):
    for sigma in (torch.tensor(level), torch.tensor([1.0, level])):
        x = torch.zeros(2, 2)
        for f in (
            LABELLED,
            ORACLE,
            ds.score(half),
            lambda x, sigma: ds.denoising_error(half, x, sigma.expand(2), noise=x),
        ):
            with pytest.raises(ValueError, match=r"^sigma: expected finite noise levels of at least 0, got"):
                f(x, sigma)


@pytest.mark.usefixtures("unchecked")
def test_seeds_are_integers_of_32_bits():
    def start(seeds):
        return sample(half, seeds=seeds, shape=(2,), steps=EDMSteps(1)).seeds

    calls = (start, lambda seeds: ds.initial_latents(seeds, (2,)), lambda seeds: ds.random_labels(seeds, (2,), 3))
    for given in ([0, 2**32 - 1], (3,), range(2), np.arange(3), torch.arange(3), [np.int64(7)]):
        assert start(given) == tuple(int(seed) for seed in given)
        assert all(type(seed) is int for seed in start(given))
    one = [[seed] for seed in (2**32, -1, -(2**32), 1.5, 1.0, "1", True, None, np.float64(1), torch.tensor(1.0), [1])]
    for call in calls:
        for given in one:
            with pytest.raises(ValueError, match=r"^seeds: expected an integer from 0 to 4294967295, got "):
                call(given)
        for given in ("123", {1, 2}, {1: 2}, 5, iter([1]), None if call is not start else b"1"):
            with pytest.raises(ValueError, match=r"^seeds: expected a sequence of integers"):
                call(given)
    for call in (
        lambda: loss_by_sigma(half, ONE.expand(2, 2), sigmas=torch.ones(1), seed=-1),
        lambda: TwoMoons(seed=2**32),
    ):
        with pytest.raises(ValueError, match=r"^seed: expected an integer from 0 to 4294967295, got "):
            call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_of_half_precision_is_that_of_the_same_numbers_in_single(dtype):
    """At σ of 150 the squared error is beyond the range of float16, and x₀ + σ·ε beyond its accuracy."""
    denoiser = ds.Preconditioned(ds.networks.MLP((512,)), ds.VPPreconditioning())
    x0 = torch.randn(4, 512, generator=torch.Generator().manual_seed(0)).to(dtype)
    loss = ds.DenoisingLoss(ds.VPUniform())
    found, expected = (loss(denoiser, x, generator=torch.Generator().manual_seed(1)) for x in (x0, x0.float()))
    assert torch.equal(found, expected)
    assert torch.isfinite(found).all()
