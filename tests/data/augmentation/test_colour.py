import math

import pytest
import torch

from diffspace.data.augmentation import Augmentation

COLOURS = ("brightness", "contrast", "lumaflip", "hue", "saturation")


def images(channels=3):
    return torch.randn(2, channels, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def coloured(x, **parameters):
    augmentation = Augmentation(**dict.fromkeys(parameters, 1))
    given = {name: torch.full((len(x),), value, dtype=torch.float64) for name, value in parameters.items()}
    return augmentation.apply(x, given)[0]


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_brightness_contrast_and_luma_flip_on_any_number_of_channels(channels):
    x = images(channels)
    assert_close(coloured(x, brightness=0.7), x + 0.14)
    assert_close(coloured(x, contrast=-0.6), x * 2**-0.3)
    assert_close(coloured(x, lumaflip=1.0), x - 2 * x.mean(1, keepdim=True))


def test_luma_flip_twice_is_the_identity():
    x = images()
    assert_close(coloured(coloured(x, lumaflip=1.0), lumaflip=1.0), x)


def test_hue_rotations_add_up():
    x = images()
    assert_close(coloured(coloured(x, hue=0.8), hue=-1.9), coloured(x, hue=-1.1))
    assert_close(coloured(x, hue=2 * math.pi), x)


def test_a_third_of_a_turn_of_hue_hands_red_to_green_to_blue():
    x = images()
    assert_close(coloured(x, hue=2 * math.pi / 3), x.roll(1, dims=1))


def test_hue_and_saturation_leave_grays_and_act_across():
    x = images()
    gray = x.mean(1, keepdim=True)
    assert_close(coloured(x, saturation=0.5), gray + (x - gray) * 2**0.5)
    turned = coloured(x, hue=0.9)
    assert_close(turned.mean(1, keepdim=True), gray)
    assert_close(turned.square().sum(1), x.square().sum(1))
    assert_close(coloured(gray.expand_as(x), hue=0.9, saturation=1.3), gray.expand_as(x))


def test_all_together_are_one_after_the_other():
    x = images()
    parameters = dict(zip(COLOURS, (0.7, -0.6, 1.0, 1.1, 0.5), strict=True))
    step_by_step = x
    for name, value in parameters.items():
        step_by_step = coloured(step_by_step, **{name: value})
    assert_close(coloured(x, **parameters), step_by_step)
