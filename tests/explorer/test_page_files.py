"""What the files of the page repeat of the library, which they cannot import."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import diffspace.explorer
from diffspace.explorer.model_settings import LEAST, MOST
from diffspace.explorer.settings import MODES, POINTS
from diffspace.explorer.training_room import STAGES
from diffspace.figures.style import THEMES

STATIC = Path(diffspace.explorer.__file__).parent / "static"


@pytest.mark.parametrize(("name", "selector"), [("light", ":root"), ("dark", ':root[data-theme="dark"]')])
def test_colours_are_those_of_figures(name, selector):
    css = (STATIC / "style.css").read_text(encoding="utf-8")
    block = css[css.index(selector + " {") :].partition("}")[0]
    colours, theme = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)), THEMES[name]
    assert tuple(colours[f"c{k}"] for k in range(6)) == theme.palette
    assert (colours["density0"], colours["density1"]) == theme.density
    assert [colours[part] for part in ("paper", "ink", "gray", "grid")] == [
        theme.paper,
        theme.ink,
        theme.gray,
        theme.grid,
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.js", f"modes: {MODES}, points: {POINTS}"),
        ("rooms/model.js", f"const LEAST = {LEAST:g}, MOST = {MOST:g};"),
        ("rooms/training.js", f"const STAGES = {STAGES};"),
    ],
)
def test_limits_are_those_of_the_server(file, text):
    assert text in (STATIC / file).read_text(encoding="utf-8")
