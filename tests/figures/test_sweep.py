"""The picture of a sweep: what stands where, and whose errors the bars are."""

import pytest

from diffspace.figures import draw_distances, draw_quality
from diffspace.figures.style import new_figure
from diffspace.metrics.sweep import Quality, SweepPoint


def point(method, nfe, value, block, rms):
    return SweepPoint(method, nfe, nfe, 0.1, 0.1, Quality(value, (block, -block)), rms)


POINTS = [
    *(point("heun", 35, 1.0, 0.5, 0.01), point("heun", 9, 1.2, 0.7, 0.1)),
    *(point("mine", 9, 1.1, 0.5, 0.02), point("diffusers:A", 9, 3.0, 0.5, 0.2), point("diffusers:B", 9, 1.5, 0.5, 0.1)),
]


def test_bars_are_errors_of_the_difference_from_the_target_and_only_the_best_scheduler_is_named():
    ax = new_figure(4, 3).subplots()
    draw_quality(ax, POINTS, 0.9)
    assert set(ax.get_legend_handles_labels()[1]) == {"heun, NFE 35 ± 0.5", "real data", "heun", "mine", "diffusers: B"}
    bars = {container.get_label(): container[2][0].get_segments() for container in ax.containers}
    lengths = {name: [float(s[1, 1] - s[0, 1]) / 2 for s in segments] for name, segments in bars.items()}
    assert lengths["heun"] == pytest.approx([0.2, 0.0], abs=1e-9)  # at NFE 9 and 35
    assert lengths["mine"] == pytest.approx([0.0], abs=1e-9)  # the same blocks as the target's
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert low < 0.9
    assert high > 3.0


def test_distances_have_a_line_for_each_method():
    ax = new_figure(4, 3).subplots()
    draw_distances(ax, POINTS)
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines]
    assert sorted(lines) == sorted([([9, 35], [0.1, 0.01]), ([9], [0.02]), ([9], [0.2]), ([9], [0.1])])


def test_a_score_below_zero_has_a_linear_axis():
    ax = new_figure(4, 3).subplots()
    draw_quality(ax, [point("heun", 35, -0.01, 0.1, None)], -0.02, "KID")
    assert ax.get_yscale() == "linear"


def test_real_data_below_zero_are_in_the_picture():
    ax = new_figure(4, 3).subplots()
    draw_quality(ax, [point("heun", 5, 0.4, 0.1, None), point("heun", 35, 0.1, 0.1, None)], -0.02, "KID")
    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] < -0.02


def test_one_score_below_zero_makes_no_scheduler_the_best():
    values = {"X": (5e-3, -1e-5), "Y": (2e-4, 1e-4)}
    points = [
        point(f"diffusers:{name}", k, value, 0.1, None) for name in values for k, value in enumerate(values[name])
    ]
    ax = new_figure(4, 3).subplots()
    draw_quality(ax, points, 1e-4, "KID")
    named = [text for text in ax.get_legend_handles_labels()[1] if not text.startswith("_")]
    assert [text for text in named if "diffusers" in text] == ["diffusers: Y"]
