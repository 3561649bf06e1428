import math

import numpy as np
import pytest
import torch

from diffspace.data.augmentation import Augmentation
from diffspace.data.image_transforms import _SYM6, affine, reflected, shift, warp

SIZES = [(1, 1), (1, 5), (2, 2), (3, 8), (8, 8), (16, 11)]


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen(x, linear=((1.0, 0.0), (0.0, 1.0)), offset=(0.0, 0.0)):
    n = len(x)
    linear = torch.tensor(linear, dtype=torch.float64).expand(n, 2, 2)
    return warp(x, linear, torch.tensor(offset, dtype=torch.float64).expand(n, 2))


def test_the_filter_is_orthonormal_with_six_vanishing_moments():
    h = torch.tensor(_SYM6, dtype=torch.float64)
    assert float(h.sum()) == pytest.approx(math.sqrt(2), abs=1e-11)
    for lag in range(0, 12, 2):
        assert float((h[lag:] * h[: 12 - lag]).sum()) == pytest.approx(float(lag == 0), abs=1e-11)
    k = torch.arange(12, dtype=torch.float64)
    for moment in range(6):
        assert float(((-1) ** k * (k - 5.5) ** moment * h).sum()) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_reflected_is_numpy_s_reflection(length):
    index = torch.arange(-40, 40 + length)
    expected = np.pad(np.arange(length), 40, mode="reflect")
    np.testing.assert_array_equal(reflected(index, length).numpy(), expected)


@pytest.mark.parametrize("size", SIZES)
def test_without_a_transform_the_filters_cancel(size):
    x = noise(2, 3, *size)
    torch.testing.assert_close(seen(x), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("by", [(1, 0), (0, -2), (5, 3), (-40, 61)])
def test_whole_pixels_are_exact_however_far(size, by):
    x = noise(1, 2, *size)
    expected = shift(x, torch.tensor([by]))
    torch.testing.assert_close(seen(x, offset=(-by[0], -by[1])), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("by", [(3, 0), (0, 2), (-4, 5), (9, -9)])
def test_shift_is_a_window_on_the_reflected_image(by):
    x = noise(1, 1, 5, 6)
    padded = np.pad(x[0, 0].numpy(), 10, mode="reflect")
    top, left = 10 - by[1], 10 - by[0]
    np.testing.assert_array_equal(shift(x, torch.tensor([by]))[0, 0].numpy(), padded[top : top + 5, left : left + 6])


@pytest.mark.parametrize("size", SIZES)
def test_constant_images_stay_constant(size):
    x = torch.full((3, 2, *size), 0.7, dtype=torch.float64)
    augmentation = Augmentation(scale=1, rotate_frac=1, aniso=1, translate_frac=1, scale_std=2, translate_frac_std=3)
    y, _ = augmentation(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(y, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_small_images_and_far_transforms(size):
    x = noise(64, 2, *size).float()
    everything = {"scale": 1, "rotate_frac": 1, "aniso": 1, "translate_frac": 1, "xflip": 1, "translate_int": 1}
    augmentation = Augmentation(**everything, scale_std=6.0, translate_frac_std=50.0, translate_int_max=20.0)
    y, _ = augmentation(x, torch.Generator().manual_seed(0))
    assert y.shape == x.shape
    assert float(y.abs().max()) < 3 * float(x.abs().max())


def turned(p, angle):
    """Points (x, y), y upwards, turned counter-clockwise."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.stack([c * p[..., 0] - s * p[..., 1], s * p[..., 0] + c * p[..., 1]], -1)


# sym6 is not symmetric: its mean lies 0.0983 after the element 5, and so both filters look past the pixel, to the right
# and downwards, by half of that in opposite directions
OFF_CENTRE = torch.tensor([1.0, -1.0], dtype=torch.float64) * (sum(k * h for k, h in enumerate(_SYM6)) / 2**0.5 - 5) / 2


def where_it_was(p, height, width, scale=0.0, rotate_frac=0.0, aniso=(0.0, 0.0), translate_frac=(0.0, 0.0)):
    """The place in the image of what is seen at p: all that was done to it undone, the last first."""
    move = torch.tensor([0.125 * width * translate_frac[0], -0.125 * height * translate_frac[1]], dtype=torch.float64)
    p = p + OFF_CENTRE - move
    stretch = 2 ** (0.2 * aniso[0])
    p = turned(turned(p, -aniso[1]) / torch.tensor([stretch, 1 / stretch], dtype=torch.float64), aniso[1])
    return turned(p, -rotate_frac) / 2 ** (0.2 * scale) - OFF_CENTRE


def wave(p):
    return torch.sin(0.21 * p[..., 0] - 0.13 * p[..., 1] + 0.5)


@pytest.mark.parametrize(
    "parameters",
    [
        {"scale": 1.3},
        {"scale": -1.5},
        {"rotate_frac": 0.7},
        {"rotate_frac": -2.6},
        {"aniso": (1.2, 0.0)},
        {"aniso": (-0.9, 1.1)},
        {"translate_frac": (0.4, 0.9)},
        {"scale": 0.6, "rotate_frac": 0.4, "aniso": (0.8, -0.5), "translate_frac": (0.3, 0.5)},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(40, 40), (30, 44)])
def test_smooth_images_become_what_the_formula_says(size, parameters):
    height, width = size
    y, x = torch.meshgrid(
        (height - 1) / 2 - torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64) - (width - 1) / 2,
        indexing="ij",
    )
    at = torch.stack([x, y], -1)
    augmentation = Augmentation(**dict.fromkeys(parameters, 1))
    given = {name: torch.tensor([value], dtype=torch.float64) for name, value in parameters.items()}
    result, _ = augmentation.apply(wave(at)[None, None], given)
    was = where_it_was(at, height, width, **parameters)
    inside = (was[..., 0].abs() < width / 2 - 5) & (was[..., 1].abs() < height / 2 - 5)
    assert inside.sum() > 200
    # linear interpolation between half pixels errs by at most |k|²/32 = 0.002
    assert float((result[0, 0] - wave(was))[inside].abs().max()) < 3e-3
    assert float((wave(at) - wave(was))[inside].abs().max()) > 0.1


def test_affine_of_nothing_is_the_identity():
    zero, unit = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    linear, offset = affine(unit, zero, unit, zero, torch.zeros(3, 2, dtype=torch.float64))
    assert torch.equal(linear, torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
    assert not offset.any()
