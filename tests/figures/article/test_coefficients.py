"""The figures of preconditioning show the numbers that were computed, for one's own σ_data too."""

import pytest

from diffspace.figures.article import ENTRIES, Subject, write_picture
from diffspace.figures.article.coefficients import draw_by_prediction, draw_targets
from diffspace.figures.style import new_figure
from diffspace.studies import predictions, target_curves
from diffspace.studies.problems import log_space

_MAKE = {entry.name: entry.make for entry in ENTRIES}


def test_coefficients_of_table_1():
    (table,) = _MAKE["preconditioning"](Subject(sigma_data=(0.5, 2.0))).tables.values()
    sigma = table["sigma"]
    k = min(range(len(sigma)), key=lambda i: abs(sigma[i] - 0.5))
    s = sigma[k]
    assert table["EDM, sigma_data 2: c_skip"][k] == pytest.approx(4 / (s**2 + 4), rel=1e-12)
    assert table["EDM, sigma_data 0.5: c_out"][k] == pytest.approx(s * 0.5 / (s**2 + 0.25) ** 0.5, rel=1e-12)
    assert table["VP: c_in"][k] == pytest.approx((s**2 + 1) ** -0.5, rel=1e-12)
    assert table["VE: c_out"][k] == pytest.approx(s, rel=1e-12)


def test_targets_of_variance_one_are_on_the_circle():
    curves = {n: target_curves(*choice, log_space(0.01, 10, 41), 2.0) for n, choice in predictions(2.0).items()}
    ax = new_figure(3, 3).subplots()
    draw_targets(ax, curves)
    radius = {}
    for line, name in zip(ax.get_lines()[3:], ("ε", "VE", "EDM", "v", "x₀", "flow"), strict=True):
        x, y = line.get_data()
        radius[name] = [float(a * a + b * b) for a, b in zip(x, y, strict=True)]
    for name in ("ε", "VE", "EDM"):
        assert radius[name] == pytest.approx([1.0] * len(radius[name]), abs=1e-12)
    assert radius["x₀"] == pytest.approx([4.0])
    assert radius["flow"] == pytest.approx([5.0])


def test_lines_are_those_of_their_names():
    curves = {n: target_curves(*choice, log_space(0.01, 10, 41), 0.5) for n, choice in predictions(0.5).items()}
    ax = new_figure(3, 3).subplots()
    draw_by_prediction(ax, curves, "target_variance")
    drawn = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    assert drawn["$x_0$"] == pytest.approx([0.25] * 41)
    assert drawn["EDM"] == pytest.approx([1.0] * 41)


def test_too_many_sigma_data():
    with pytest.raises(ValueError, match="sigma_data: expected at most 3 values, got 4"):
        _MAKE["variances"](Subject(sigma_data=(0.1, 0.2, 0.3, 0.4)))


def test_pictures_are_drawn_in_both_themes(tmp_path):
    files = write_picture(_MAKE["preconditioning"](Subject()), tmp_path, "preconditioning", formats=("svg",))
    assert [file.name for file in files] == [
        "preconditioning.csv",
        "preconditioning-light.svg",
        "preconditioning-dark.svg",
    ]
    assert files[1].read_text(encoding="utf-8") != files[2].read_text(encoding="utf-8")
