"""The palettes: told apart with any common colour vision, and seen against the paper."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from diffspace.figures.style import THEMES, new_figure, theme, using

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
# Oklab (Ottosson 2020)
TO_CONES = [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]
TO_LAB = [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]


def linear(colour):
    rgb = np.asarray(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def oklab(colour, vision):
    seen = np.clip(np.asarray(vision) @ linear(colour), 0, 1)
    return np.asarray(TO_LAB) @ np.cbrt(np.asarray(TO_CONES) @ seen)


def contrast(colour, paper):
    darker, lighter = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (colour, paper))
    return lighter / darker


@pytest.mark.parametrize("name", THEMES)
def test_colours_are_told_apart_by_everybody(name):
    for vision in VISIONS.values():
        places = [oklab(colour, vision) for colour in THEMES[name].palette]
        assert min(np.linalg.norm(a - b) for a, b in combinations(places, 2)) > 0.08


@pytest.mark.parametrize("name", THEMES)
def test_colours_are_seen_on_the_paper(name):
    chosen = THEMES[name]
    assert min(contrast(colour, chosen.paper) for colour in chosen.palette) >= 3
    assert contrast(chosen.ink, chosen.paper) > 12


def test_a_theme_holds_within_its_context_alone():
    before = Figure().get_facecolor()
    with using("dark") as dark:
        assert theme() is dark
        assert new_figure(1, 1).get_facecolor()[:3] == pytest.approx(to_rgb(dark.paper))
    assert theme() is THEMES["light"]
    assert Figure().get_facecolor() == before
    with pytest.raises(ValueError, match="theme: expected 'light' or 'dark', got 'blue'"), using("blue"):
        pass
