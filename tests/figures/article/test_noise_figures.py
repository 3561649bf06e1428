"""The figures of noise draw the states and distances that were measured."""

import numpy as np
import pytest

from diffspace.figures.article import ENTRIES, Subject, write_picture
from diffspace.figures.article.noise import draw_forgetting, draw_histograms, draw_paths, draw_steps
from diffspace.figures.style import THEMES, new_figure, using
from diffspace.sampling import sample
from diffspace.studies import algorithm_steps, churning, diffused, distances, three_modes

_MAKE = {entry.name: entry.make for entry in ENTRIES}


def test_kolmogorov_smirnov_of_the_figure_is_within_chance():
    table = _MAKE["langevin"](Subject()).tables["tests"]
    assert len(table["KS"]) == 9
    # 1 in 1000 sets of 10⁴ exact draws has 1.95/√n or more
    assert max(table["KS"]) < 1.95 / 100


@pytest.mark.parametrize("name", THEMES)
def test_arrows_join_the_states_of_sample(name):
    data, sampler = three_modes(), churning()
    steps = algorithm_steps(data, sampler, seed=14)
    with using(name):
        ax = new_figure(6, 3).subplots()
        draw_steps(ax, data, steps, greatest=2.1)
    arrows = [(np.array(text.xyann), np.array(text.xy)) for text in ax.texts]
    down = [arrow for arrow in arrows if arrow[1][0] < arrow[0][0]]
    up = [arrow for arrow in arrows if arrow[1][0] > arrow[0][0]]
    assert len(down) == 7
    assert len(up) == int((steps.std > 0).sum()) == 5
    assert [end[1] for _, end in down] == steps.x[1:].tolist()
    assert down[-1][1].tolist() == [0.0, float(sample(data, seeds=[14], sampler=sampler).x)]
    assert [end[1] for _, end in up] == steps.x_hat[steps.std > 0].tolist()
    assert np.square([end[0] for _, end in up]) == pytest.approx(steps.sigma_hat[steps.std > 0].numpy())


def test_paths_and_distances_are_those_of_the_run():
    data, run = three_modes(), diffused(three_modes(), 1.0, count=200)
    above, below = new_figure(4, 6).subplots(2, 1)
    draw_paths(above, data, run, lines=5)
    drawn = np.array([line.get_ydata() for line in above.get_lines()])
    assert np.array_equal(drawn[:, 0], np.sort(drawn[:5, 0])[[0, 1, 2, 3, 4, 3]])
    states = run.x.numpy().T
    assert all((states == path).all(1).any() for path in drawn)
    distance = distances(data, run)
    draw_forgetting(below, run.sigma, [(1.0, distance)], distance / 2)
    assert np.array_equal(below.get_lines()[0].get_ydata(), distance.numpy())
    assert np.square(below.get_lines()[0].get_xdata()) == pytest.approx(run.sigma.numpy())


def test_histograms_have_the_area_of_the_density():
    data, run = three_modes(), diffused(three_modes(), 0.0, count=500)
    ax = new_figure(3, 3).subplots()
    draw_histograms(ax, data, [run], 0.3)
    x, y = ax.patches[0].get_xy().T
    assert float(np.trapezoid(y, x)) == pytest.approx(1, abs=1e-9)
    (band,) = ax.collections
    x, y = band.get_paths()[0].vertices.T
    assert abs(float(np.trapezoid(y, x))) == pytest.approx(1, abs=0.02)


def test_the_ode_keeps_and_the_sde_forgets_in_the_files(tmp_path):
    name = "errors-forgotten"
    picture = _MAKE[name](Subject())
    kept, forgotten = (picture.tables[""][f"W1 at beta {eta}"] for eta in (0, 4))
    assert kept[-1] > 0.85 * kept[0]
    assert forgotten[-1] < 0.1 * forgotten[0]
    files = write_picture(picture, tmp_path, name, formats=("png",))
    assert {file.name for file in files} == {f"{name}.csv", f"{name}-light.png", f"{name}-dark.png"}
