"""Pictures of samples: where each image stands, what is beside it, and what paths show."""

import numpy as np
import pytest
import torch
from PIL import Image

import diffspace as ds
from diffspace.data import DataSet, InMemory
from diffspace.figures import draw_samples, trajectory_figure
from diffspace.figures.report import _samples_section
from diffspace.figures.samples import picture, rows_by_class, samples_figure, save_samples
from diffspace.figures.style import new_figure
from diffspace.transform import PIXELS


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_in_their_cells_and_the_others_stay_empty(channels):
    raw = torch.tensor([40, 80, 120], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, channels, 64, 64)
    drawn = picture(raw, PIXELS, 3, cells=[0, 3, 4], names=("a", "b", "c"))[:, -(3 * 68 + 4) :]
    cells = {(row, column): int(drawn[36 + 68 * row, 36 + 68 * column, 0]) for row in range(3) for column in range(3)}
    ink = [255 - v for v in (40, 80, 120)] if channels == 1 else [40, 80, 120]
    shown = {(0, 0): ink[0], (1, 0): ink[1], (1, 1): ink[2]}
    assert cells == {cell: shown.get(cell, 255) for cell in cells}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_row_has_its_name_beside_it(channels):
    raw = torch.full((6, channels, 8, 8), 200, dtype=torch.uint8)
    plain = picture(raw, PIXELS, 2)
    named = picture(raw, PIXELS, 2, names=("ant", "a very long name indeed, longer than that", "猫 $x$"))
    assert named.shape[0] == plain.shape[0] == 3 * 9 * 8 + 8
    margin = named[:, : named.shape[1] - plain.shape[1], :3].min(-1)
    assert np.array_equal(named[:, margin.shape[1] :, :3].min(-1), plain.reshape(*plain.shape[:2], -1)[..., :3].min(-1))
    rows = np.flatnonzero((margin < 128).any(1))
    middles = [8 + 72 * k + 32 for k in range(3)]
    assert {int(np.abs(np.subtract(middles, row)).argmin()) for row in rows} == {0, 1, 2}
    assert max(min(abs(row - middle) for middle in middles) for row in rows) < 20
    assert (margin[:, :2] > 250).all()  # nothing is cut off


def make_model(shape, names, counts=()):
    network = ds.networks.MLP(shape, width=8, depth=1, label_dim=len(names))
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(0.5))
    return ds.Model(denoiser, PIXELS if len(shape) == 3 else ds.Transform(), names, {}, counts).eval()


def test_a_rare_class_leaves_a_gap_and_not_a_column_of_giants(monkeypatch):
    shown = []
    monkeypatch.setattr("diffspace.figures.report._picture", lambda source, caption: shown.append(source) or "")
    labels = torch.tensor([0] * 12 + [2])
    raw = torch.zeros(13, 1, 8, 8, dtype=torch.uint8)
    held_out = DataSet("x", InMemory(raw), PIXELS, labels, ("common", "never", "rare", "not held out"))
    page = _samples_section(make_model((1, 8, 8), held_out.class_names, (40, 0, 4, 1)), held_out)
    samples, real = shown
    assert samples.shape == real.shape == ((3 * 9 + 1) * 8, real.shape[1], 3)
    assert samples.shape[1] > (10 * 9 + 1) * 8
    assert "One row for 3 of 4 classes (common, rare, not held out)" in page
    assert "fewer than 10 held-out items" in page


@pytest.mark.parametrize(("shape", "groups"), [((1,), 2), ((1, 2), 1), ((1, 9), 13)])
def test_samples_that_are_no_images_have_the_colours_of_their_classes(shape, groups):
    labels = torch.tensor([0] * 12 + [2])
    ax = new_figure(4, 4).subplots()
    values = torch.linspace(0, 1, 13).reshape(13, *[1] * len(shape)).expand(13, *shape)
    draw_samples(ax, values, ds.Transform(), labels=labels, names=("one", "two", "$three"))
    drawn = [*ax.patches, *ax.collections, *(line for line in ax.lines if len(line.get_xdata()))]
    assert len(drawn) == groups
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", r"\$three"]
    ax.figure.canvas.draw()


def trajectory(shape):
    gaussian = ds.oracles.Gaussian(torch.zeros(shape.numel()), 0.25 * torch.eye(shape.numel()))

    def denoiser(x, sigma, cond=None):
        return gaussian(x.flatten(1), sigma).reshape(x.shape)

    execution = ds.Execution(trajectory=True)
    return ds.sample(denoiser, seeds=range(40), shape=shape, steps=ds.EDMSteps(12), execution=execution)


def test_paths_of_single_numbers_are_drawn_over_the_noise_level():
    run = trajectory(torch.Size([1]))
    (ax,) = trajectory_figure(run, ds.Transform()).axes
    spread = float(run.x.std(correction=0))
    for k, line in enumerate(ax.lines):
        x, y = line.get_xdata(), line.get_ydata()
        np.testing.assert_allclose(x[:-1], run.sigmas[:-1])
        expected = run.trajectory.x[:, k, 0] / (1 + run.sigmas**2 / spread**2) ** 0.5
        np.testing.assert_allclose(y, expected)
        assert np.abs(y).max() < 3  # of about one standard deviation of the data at every level
    assert len(ax.lines) == 40
    assert ax.xaxis_inverted()


def test_paths_in_a_plane_and_signals_on_the_way():
    run = trajectory(torch.Size([1, 1, 2]))
    (ax,) = trajectory_figure(run, ds.Transform()).axes
    np.testing.assert_allclose(ax.lines[3].get_xydata(), run.trajectory.x[:, 3].reshape(-1, 2))
    run = trajectory(torch.Size([1, 7]))
    figure = trajectory_figure(run, ds.Transform(), count=2, columns=5)
    assert len(figure.axes) == 2 * 2 * 5
    np.testing.assert_allclose(figure.axes[9].lines[0].get_ydata(), run.trajectory.denoised[11, 0].flatten(), rtol=1e-5)
    figure.canvas.draw()


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_each_class_has_rows_of_its_own(tmp_path):
    labels = torch.tensor([2, 0, 2, 2, 0, 2, 2])
    assert rows_by_class(labels.tolist(), ("a", "b", "c"), 3) == (
        [1, 4, 0, 2, 3, 5, 6],
        [0, 1, 3, 4, 5, 6, 7],
        3,
        ("a", "c", ""),
    )
    assert rows_by_class([0, 1, 2, 3, 4]) is None  # rows of one
    assert rows_by_class(list(range(21)) * 3) is None
    assert rows_by_class([3] * 14 + [5] * 13)[2:] == (7, ("#3", "", "#5", ""))
    assert rows_by_class([7] * 1000)[2:] == (39, ("#7", *[""] * 25))
    raw = (60 * labels).to(torch.uint8).reshape(7, 1, 1, 1).expand(7, 3, 64, 64)
    save_samples(tmp_path / "x.png", raw, PIXELS, 3, labels, ("a", "b", "c"))
    drawn = read(tmp_path / "x.png")[..., 0]
    cells = drawn[36::68, -(3 * 68 + 4) + 36 :: 68]
    assert cells.tolist() == [[0, 0, 255], [120, 120, 120], [120, 120, 255]]


@pytest.mark.parametrize(("count", "side", "expected"), [(1, 8, 190), (64, 8, 584), (10000, 8, 3604), (4, 512, 1117)])
def test_a_grid_has_a_size_to_look_at(count, side, expected):
    assert picture(torch.zeros(count, 1, side, side, dtype=torch.uint8), PIXELS).shape == (expected, expected)


def test_transparency_lies_on_a_checkerboard():
    raw = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    raw[0, 0], raw[0, 3, :4], raw[0, 3, 4:, 4:] = 255, 255, 51
    drawn = picture(raw, PIXELS)[19:-19:19, 19:-19:19]
    assert drawn.shape == (8, 8, 3)
    assert (drawn[:4] == [255, 0, 0]).all()
    light, dark = [255, 255, 255], [205, 205, 205]
    assert drawn[4, :4].tolist() == [light, dark, light, dark]
    assert drawn[5, :4].tolist() == [dark, light, dark, light]
    assert drawn[4, 4].tolist() == [255, 204, 204]
    assert drawn[4, 5].tolist() == [215, 164, 164]  # a fifth of red, four of gray


@pytest.mark.parametrize("channels", [1, 2])
def test_a_volume_is_a_row_of_slices_for_each_channel(tmp_path, channels):
    raw = torch.arange(12.0).reshape(1, 1, 12, 1, 1).expand(2, channels, 12, 64, 64)
    transform = ds.Transform(lowest=0.0, highest=11.0)
    save_samples(tmp_path / "x.png", raw, transform, None, torch.tensor([1, 0]), ("a", "b"))
    drawn = read(tmp_path / "x.png")[..., 0]
    assert drawn.shape[0] == 2 * channels * 68 + 4
    cells = drawn[36::68, -(8 * 68 + 4) + 36 :: 68]
    expected = [255 - round(k / 11 * 255) for k in (0, 2, 3, 5, 6, 8, 9, 11)]
    assert cells.tolist() == [expected] * (2 * channels)


@pytest.mark.parametrize(("shape", "axes"), [((1, 9), 1), ((2, 9), 2), ((7, 9), 1), ((9,), 1), ((2,), 1), ((1,), 1)])
def test_data_lie_behind_samples(shape, axes):
    raw, data = torch.zeros(3, *shape), torch.ones(5, *shape)
    figure = samples_figure(raw, ds.Transform(), torch.tensor([0, 1, 0]), ("one", "two"), data)
    assert len(figure.axes) == axes
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert told == ["one", "two", "held-out data"]
    if len(shape) == 2 or shape == (9,):
        for ax in figure.axes:
            lines = [line.get_ydata() for line in ax.lines if len(line.get_xdata())]
            assert [float(line.mean()) for line in lines] == [1.0] * 5 + [0.0] * 3
    figure.canvas.draw()
