"""The transforms beside those of the paper authors' implementation, at fixed parameters.

tests/golden/augment.json was computed with NVlabs/edm, commit 008a4e5, on a CPU; it says how its images are made.
"""

import json
from pathlib import Path

import pytest
import torch

from diffspace.data.augmentation import Augmentation

CASES = json.loads((Path(__file__).parents[2] / "golden" / "augment.json").read_text())["cases"]
PARAMETERS = {
    "xflip=1": {"xflip": 1},
    "yflip=1": {"yflip": 1},
    "rotate_int=1": {"rotate_int": 1},
    "rotate_int=2": {"rotate_int": 2},
    "scale w=0.8": {"scale": 0.8},
    "scale w=-1.1": {"scale": -1.1},
    "rotate_frac theta=0.6": {"rotate_frac": 0.6},
    "translate_frac (0.5,-0.7)": {"translate_frac": (0.5, -0.7)},
    "brightness w=0.7": {"brightness": 0.7},
    "contrast w=-0.6": {"contrast": -0.6},
    "lumaflip": {"lumaflip": 1},
    "hue theta=1.1": {"hue": 1.1},
    "saturation w=0.5": {"saturation": 0.5},
    "edm default, xflip=1 yflip=0 scale=.5 rot=.3 aniso=(.4,.2) translate=(.2,.1)": {
        "xflip": 1,
        "yflip": 0,
        "scale": 0.5,
        "rotate_frac": 0.3,
        "aniso": (0.4, 0.2),
        "translate_frac": (0.2, 0.1),
    },
    "one channel: brightness w=0.7": {"brightness": 0.7},
    "one channel: contrast w=-0.6": {"contrast": -0.6},
}


def images(channels):
    i = torch.arange(2 * channels * 256, dtype=torch.float64)
    return ((0.37 * i).sin() * (0.011 * i).cos()).float().reshape(2, channels, 16, 16)


def test_every_case_is_tried():
    assert set(CASES) == set(PARAMETERS)


@pytest.mark.parametrize("name", CASES)
def test_transform_and_labels(name):
    case = CASES[name]
    channels = case.get("channels", 3)
    augmentation = Augmentation(**case["params"])
    parameters = {key: torch.tensor([value, value], dtype=torch.float64) for key, value in PARAMETERS[name].items()}
    y, labels = augmentation.apply(images(channels), parameters)
    close = {"rtol": 0, "atol": 1e-5}
    assert augmentation.label_dim == case["label_dim"]
    torch.testing.assert_close(labels, torch.tensor([case["labels"]] * 2), **close)
    torch.testing.assert_close(y[0, min(1, channels - 1), 5], torch.tensor(case["row"]), **close)
    torch.testing.assert_close(y[1, min(2, channels - 1), :, 9], torch.tensor(case["col"]), **close)
    assert y.double().mean().item() == pytest.approx(case["mean"], abs=1e-7)
    assert y.double().std().item() == pytest.approx(case["std"], abs=1e-6)


def test_the_paper_s_choice_is_that_of_the_reference():
    case = CASES["edm default, xflip=1 yflip=0 scale=.5 rot=.3 aniso=(.4,.2) translate=(.2,.1)"]
    augmentation = Augmentation.edm(0.12)
    assert augmentation.enabled == tuple(case["params"])
    assert augmentation.label_dim == 9
