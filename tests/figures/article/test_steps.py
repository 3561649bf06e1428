"""The figures of steps show the numbers that were measured, in both themes."""

import csv
import re

import numpy as np
import pytest

from diffspace.figures.article import ENTRIES, Subject, write_picture
from diffspace.figures.article.steps import draw_local_errors, draw_one_step, draw_stepped
from diffspace.figures.style import THEMES, new_figure, using
from diffspace.model import Model
from diffspace.networks import MLP
from diffspace.preconditioning import EDMPreconditioning, Preconditioned
from diffspace.sampling import EDMSteps, Heun, initial_latents
from diffspace.studies import local_errors, one_step, stepped_lines, three_modes, truncation_errors
from diffspace.tensors import plain_defaults
from diffspace.transform import Transform

_MAKE = {entry.name: entry.make for entry in ENTRIES}


def _read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", THEMES)
def test_the_lines_of_a_step_join_its_points(name):
    step = one_step(three_modes())
    with using(name):
        ax = new_figure(4, 3).subplots()
        draw_one_step(ax, step)
    drawn = [line.get_xydata() for line in ax.get_lines()]
    low = step.sigma - step.h
    for end in (step.euler, step.heun):
        assert any(np.array_equal(xy, [[step.sigma, step.start], [low, end]]) for xy in drawn)
    slopes = [(xy[1] - xy[0])[1] / (xy[1] - xy[0])[0] for xy in drawn if len(xy) == 2 and xy[0, 0] != xy[1, 0]]
    for slope in (step.slope, step.trial_slope, (step.slope + step.trial_slope) / 2):
        assert min(abs(drawn_slope - slope) for drawn_slope in slopes) < 1e-12
    texts = [text.get_text() for text in ax.texts]
    for end in (step.euler, step.heun):
        assert f"error\n{abs(end - step.end):.3f}" in texts


def test_measured_slopes_are_written_on_the_lines():
    errors = local_errors(three_modes())
    ax = new_figure(3, 3).subplots()
    draw_local_errors(ax, errors, 0.7)
    written = dict(re.fullmatch(r"(\w+)\nslope (.*)", text.get_text()).groups() for text in ax.texts[:2])
    assert {name: float(slope) for name, slope in written.items()} == pytest.approx({"Euler": 2, "Heun": 3}, abs=0.05)
    assert ax.get_lines()[1].get_ydata() == pytest.approx(errors.errors["Heun"].numpy())


def test_the_error_of_the_ends_is_written_above_them():
    lines = stepped_lines(three_modes(), EDMSteps(6, 0.002, 3.0).sigmas().tolist(), solver=Heun())
    ax = new_figure(3, 3).subplots()
    draw_stepped(ax, lines, "Heun")
    ends = np.array([line.get_ydata()[-1] for line in ax.get_lines()[lines.x.shape[1] :]])
    exact = np.array([line.get_ydata()[0] for line in ax.get_lines()[: lines.x.shape[1]]])
    assert ax.get_title(loc="right") == f"RMS error {np.sqrt(np.mean((ends - exact) ** 2)):.3f}"


def test_the_table_of_a_step_has_its_errors():
    points = _MAKE["heun-step"](Subject()).tables["step"]
    exact, euler, heun = points["x"][1:]
    assert points["error"][2:] == pytest.approx([euler - exact, heun - exact], abs=1e-15)
    assert abs(heun - exact) < abs(euler - exact) / 5


def test_the_table_of_levels_begins_with_equal_steps_for_rho_1():
    levels = _MAKE["step-sizes"](Subject()).tables[""]["rho_1"]
    assert len(levels) == 19
    assert np.diff(levels[:18]) == pytest.approx(-(80 - 0.002) / 17)


def test_the_written_errors_are_those_of_the_written_states(tmp_path):
    name = "steps-on-lines"
    files = write_picture(_MAKE[name](Subject()), tmp_path, name, formats=("png",))
    assert {file.name for file in files if file.suffix == ".png"} == {f"{name}-light.png", f"{name}-dark.png"}
    exact = np.array([float(x) for x in list(_read(tmp_path / f"{name}-exact.csv")[0].values())[1:]])
    for row in _read(tmp_path / f"{name}-errors.csv"):
        kind = row["steps"].lower().replace(" ", "-")
        ends = np.array([float(x) for x in list(_read(tmp_path / f"{name}-{kind}.csv")[-1].values())[1:]])
        assert float(row["rms_error"]) == pytest.approx(np.sqrt(np.mean((ends - exact) ** 2)), rel=1e-12)


def test_truncation_errors_of_a_model_with_classes_are_drawn_beside_those_of_the_oracle():
    with plain_defaults():
        network = MLP((2,), width=8, depth=1, label_dim=2)
    model = Model(Preconditioned(network, EDMPreconditioning()), Transform(), ("a", "b"))
    picture = _MAKE["truncation-error"](Subject(model=model, model_name="a $model"))
    cond = {"labels": model.random_labels(range(16))}
    found = truncation_errors(model, initial_latents(range(16), (2,)), cond=cond)
    assert picture.tables["network"] == found.columns()
    # equal steps make nearly all of their error in the last one
    oracle = picture.tables["oracle"]
    for solver in ("Euler", "Heun"):
        *others, last = (error for rho, error in zip(oracle["rho"], oracle[solver], strict=True) if rho == 1)
        assert last > 20 * sum(others)
    figure = new_figure(6, 4.8)
    picture.draw(figure)
    _, above, _, below = figure.axes
    assert above.get_title() == r"a \$model"
    for ax, solver in ((above, "Euler"), (below, "Heun")):
        drawn = np.array([line.get_xydata() for line in ax.get_lines()]).reshape(-1, 2)
        assert np.array_equal(drawn, np.stack([found.sigma.flatten(), found.errors[solver].flatten()], 1))
