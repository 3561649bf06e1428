"""Bad requests: each is refused in one line that names the argument, its value and what is allowed."""

import pytest
import torch

from diffspace import EDMSteps, Heun, sample
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
    with pytest.raises(FloatingPointError, match="not finite, in the batch from sample 2 on"):
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
