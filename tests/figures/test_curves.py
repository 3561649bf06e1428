"""Curves are what the log says, whatever it lacks; and they are what is drawn."""

import dataclasses
import math

import pytest

from diffspace.figures import Curves, curves_figure
from diffspace.figures.curves import Curve, Line, shrinking_error, small_panels, smooth
from diffspace.figures.draw_curves import draw_panel
from diffspace.figures.style import new_figure

SIGMA = [0.1, 1.0, 10.0]


def log(steps=60):
    """A run whose error falls at σ = 1 and nowhere else; every tenth record is a held-out one."""
    records = []
    for k in range(1, steps + 1):
        where = {"step": k, "images": 64 * k}
        mse = [0.009, 0.2 / k, None if k % 2 else 0.25]
        records.append(
            where
            | {"loss": 30 / k, "learning_rate": 1e-3, "grad_norm": 2.0 + k, "images_per_second": 500.0}
            | {"loss_by_sigma": {"sigma": SIGMA, "loss": mse, "count": [30, 33, 0 if k % 2 else 1]}}
        )
        if k % 10 == 0:
            held = {"loss": 40 / k, "sigma": SIGMA, "mse": [0.01, 0.21, 0.3], "trivial": [0.25] * 3}
            records.append(where | {"held_out": held})
            records.append(where | {"frechet": {"classifier": 100 / k}})
    return records


def test_each_curve_is_that_of_its_records():
    curves = Curves.of("run", log(), 3840)
    assert curves.training["loss"].images == [64 * k for k in range(1, 61)]
    assert curves.training["loss"].values == [30 / k for k in range(1, 61)]
    assert (curves.held_out.images[0], curves.held_out.values[0]) == (640, 4)
    assert curves.measured["frechet"]["classifier"].values[-1] == pytest.approx(100 / 60)
    assert (curves.trivial, curves.images, curves.finished) == (0.25, 3840, True)
    assert not Curves.of("run", log(59), 3840).finished


@pytest.mark.parametrize(("losses", "ended"), [([3, 2, 2.5, 2.1], True), ([3, 2, 2.5, 1.9], False), ([3], False)])
def test_a_run_that_stopped_early_has_ended(losses, ended):
    records = [{"images": 100 * k, "loss": 1.0, "held_out": {"loss": loss}} for k, loss in enumerate(losses, 1)]
    curves = Curves.of("run", records, 9000, patience=200)
    assert (curves.stopped_early, curves.finished) == (ended, ended)
    goes_on = Curves.of("run", [*records, {"images": 900, "loss": 1.0}], 9000, patience=200)
    assert not goes_on.stopped_early
    assert not Curves.of("run", records, 9000).stopped_early


def test_slices_are_means_weighted_by_draws():
    first, last = Curves.of("run", log()).slices(2)
    assert first.sigma == SIGMA
    assert first.mse[0] == pytest.approx(0.009)
    # record k lies in the part ⌊2k/60⌋, the last one in the second
    assert first.mse[1] == pytest.approx(sum(0.2 / k for k in range(1, 30)) / 29)
    assert last.mse[1] == pytest.approx(sum(0.2 / k for k in range(30, 61)) / 31)
    assert last.mse[2] == pytest.approx(0.25)
    odd = Curves.of("run", [r for r in log() if r["step"] % 2]).slices(1)[0]
    assert odd.mse[2] is None
    assert odd.points() == (SIGMA[:2], odd.mse[:2])


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"images": None, "loss": 1.0},
        {"images": 64, "loss": None},
        {"images": 64, "loss": math.nan},
        {"images": 64, "loss": "much"},
        {"images": 64, "loss": 1.0, "loss_by_sigma": {"sigma": [1.0], "loss": [1.0, 2.0], "count": [1]}},
        {"images": 64, "loss": 1.0, "loss_by_sigma": {"sigma": [0.0], "loss": [1.0], "count": [1]}},
        {"images": 64, "loss": 1.0, "loss_by_sigma": None},
        {"images": 64, "held_out": {"loss": 1.0}},
        {"images": 64, "held_out": {"trivial": [None]}},
        {"images": 64, "frechet": None},
        {"images": 0, "loss": 1.0, "loss_by_sigma": {"sigma": [1.0], "loss": [None], "count": [0]}},
    ],
)
def test_records_that_lack_something_are_taken_as_they_are(record):
    curves = Curves.of("run", [record, record])
    curves_figure([curves])
    curves_figure([curves, curves])
    assert all(math.isfinite(v) for curve in curves.training.values() for v in curve.values)


@pytest.mark.parametrize(("loss", "count"), [([None, None], [0, 0]), ([0.1, None], [4, 0]), ([0.0, 0.0], [4, 4])])
def test_a_single_record_beside_what_is_trivial(loss, count):
    by_sigma = {"sigma": [0.5, 1.0], "loss": loss, "count": count}
    held = {"loss": 1.0, "sigma": [0.5, 1.0], "mse": [0.0, 0.1], "trivial": [0.3, 0.3]}
    records = [{"images": 64, "loss": 1.0, "loss_by_sigma": by_sigma}, {"images": 64, "held_out": held}]
    curves = Curves.of("run", records)
    curves_figure([curves]).canvas.draw()
    curves_figure([curves, curves])


def test_an_old_log_is_read():
    old = [
        {k: r[k] for k in ("step", "images", "loss", "learning_rate", "images_per_second")}
        for r in log()
        if "loss" in r
    ]
    curves = Curves.of("old", old)
    assert curves.training["loss"].values[0] == 30
    assert not curves.training["grad_norm"]
    curves_figure([curves]).canvas.draw()


def test_smoothing_keeps_lines_and_takes_noise():
    line = [3 - 0.5 * k for k in range(50)]
    assert smooth(line, 7) == pytest.approx(line)
    wiggle = [(-1) ** k for k in range(51)]
    assert max(abs(v) for v in smooth(wiggle, 5)[5:-5]) <= 1 / 11 + 1e-12
    assert smooth([1.0, 5.0], 3) == [1, 5]
    assert smooth([], 3) == []


def test_the_best_multiple_of_x():
    """min over a of E(a·(y + σε) − y)² = (a − 1)²·v + a²·σ²."""
    for sigma in (0.01, 0.7, 30.0):
        least = min((a - 1) ** 2 * 0.3 + a**2 * sigma**2 for a in (k / 10_000 for k in range(10_001)))
        assert shrinking_error(sigma, 0.3) == pytest.approx(least, rel=1e-4, abs=1e-6)


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def test_runs_of_different_data_have_their_own_trivial_errors():
    one, other = (Curves.of(name, log(), 3840) for name in ("one", "other"))
    same = lines(curves_figure([one, other]).axes[1])
    assert set(same["trivial"][:, 1]) == {0.25}
    other = dataclasses.replace(other, trivial=0.5)
    apart = lines(curves_figure([one, other]).axes[1])
    assert set(apart["one, trivial"][:, 1]) == {0.25}
    assert set(apart["other, trivial"][:, 1]) == {0.5}


def test_what_is_drawn_is_what_was_logged():
    curves = Curves.of("run", log(), 3840)
    figure = curves_figure([curves])
    axes = {ax.get_title(loc="left"): ax for ax in figure.axes}
    loss = lines(axes["loss"])
    assert loss["held-out"].tolist() == [[640 * k, 4 / k] for k in range(1, 7)]
    assert len(loss["training"]) == 60
    levels = lines(axes["error by σ"])
    assert levels["held-out"].tolist() == [[0.1, 0.01], [1.0, 0.21], [10.0, 0.3]]
    assert set(levels["trivial"][:, 1]) == {0.25}
    (mesh,) = [c for c in axes["error ÷ that of the best multiple of x"].collections if c.get_array() is not None]
    drawn = mesh.get_array()
    assert drawn.shape == (3, len(curves.slices(48)))
    assert drawn[1, -1] == pytest.approx(curves.slices(48)[-1].mse[1] / shrinking_error(1.0, 0.25))
    assert {"gradient norm", "learning rate", "images/s", "frechet"} <= axes.keys()
    figure.canvas.draw()


def test_several_runs_lie_over_each_other():
    figure = curves_figure([Curves.of("first", log()), Curves.of("second", log(30))])
    drawn = lines(figure.axes[0])
    assert len(drawn["first"]) == 60
    assert len(drawn["second"]) == 30
    assert "second, held-out" in drawn
    with pytest.raises(ValueError, match="runs: expected at least one"):
        curves_figure([])


def test_names_of_others_are_no_formulas():
    records = [{**r, "$odd": 1.0} for r in log(20)]
    figure = curves_figure([Curves.of("a$b", records), Curves.of("c$_{", records)])
    figure.canvas.draw()  # which reads formulas


def test_scores_have_bars_of_their_standard_errors():
    scores = [(100, 4.0, 0.5), (200, 2.0, 0.25)]
    log = [
        {"step": n, "images": n, "loss": 1.0, "score": {"frechet": value, "frechet_error": error, "real": 1.0}}
        for n, value, error in scores
    ]
    run = Curves.of("a", log)
    assert set(run.measured["score"]) == {"frechet", "real"}
    assert run.measured["score"]["frechet"] == Curve([100.0, 200.0], [4.0, 2.0], [0.5, 0.25])
    assert run.measured["score"]["real"].errors == []
    (panel,) = (panel for panel in small_panels([run]) if panel.title == "score")
    assert sorted(panel.lines[0].ends) == [1.75, 2.0, 2.25, 3.5, 4.0, 4.5]
    assert Line([1.0], [0.1], errors=[0.3]).ends == [0.1, 0.4]  # a bar across 0 leaves the axis logarithmic
    ax = new_figure(3, 3).subplots()
    draw_panel(ax, panel)
    (bars,) = ax.containers
    (segments,) = bars[2]
    assert [sorted(segment[:, 1]) for segment in segments.get_segments()] == [[3.5, 4.5], [1.75, 2.25]]


def test_the_error_of_a_measurement_alone_is_a_curve():
    run = Curves.of("a", [{"step": 1, "images": 1, "loss": 1.0, "mine": {"fit_error": 2.0, "rate": 1.0}}])
    assert set(run.measured["mine"]) == {"fit_error", "rate"}
