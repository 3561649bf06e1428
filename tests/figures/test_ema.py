import pytest

from diffspace.figures import draw_ema_sweep
from diffspace.figures.style import new_figure
from diffspace.metrics import FrechetScore


def score(value, std=0.4):
    return FrechetScore("conv", 64, 100, 100, value, std, 4, 2.0, 0.1, 10, True)


def test_the_least_score_is_marked_and_errors_are_those_of_means():
    ax = new_figure(6, 4).subplots()
    draw_ema_sweep(ax, [0.03, 0.05, 0.1], [score(5.0), score(3.0), score(4.0)], score(6.0))
    curve, best = ax.lines[0], next(line for line in ax.lines if line.get_markersize() == 10)
    assert curve.get_xydata().tolist() == [[0.03, 5.0], [0.05, 3.0], [0.1, 4.0]]
    assert best.get_xydata().tolist() == [[0.05, 3.0]]
    bars = ax.collections[0].get_segments()
    assert bars[0][1][1] - bars[0][0][1] == pytest.approx(2 * 0.4 / 4**0.5)
    levels = {line.get_label(): line.get_ydata()[0] for line in ax.lines if not line.get_label().startswith("_")}
    assert levels == {"real data": 2.0, "the run's own average": 6.0}
    low, high = ax.get_ylim()
    assert low < 2.0 < 6.0 < high


def test_one_set_has_no_error():
    ax = new_figure(6, 4).subplots()
    draw_ema_sweep(ax, [0.05], [score(3.0, None)])
    assert ax.lines[0].get_xydata().tolist() == [[0.05, 3.0]]
