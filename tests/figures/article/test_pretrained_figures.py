"""The figure of a pretrained DDPM draws what was measured."""

import numpy as np
import pytest

from diffspace.data import Digits
from diffspace.figures.article import ENTRIES, Subject, pretrained, write_picture
from diffspace.figures.article.pretrained import draw_ddpm_errors, draw_rows
from diffspace.figures.style import new_figure
from diffspace.studies import classes_oracle, compare_ddpm, ddpm_table, exact_ddpm, three_modes, trained_ddpm


def test_lines_are_the_measured_errors():
    comparison = compare_ddpm(exact_ddpm(three_modes(), ddpm_table()), nfes=(5, 9), fitted=(5,), count=4)
    ax = new_figure(3, 3).subplots()
    draw_ddpm_errors(ax, comparison)
    drawn = {line.get_label(): line.get_xydata().T.tolist() for line in ax.get_lines()}
    assert drawn == {name: [list(nfe), list(error)] for name, (nfe, error) in comparison.errors().items()}


def test_rows_hold_the_digits_in_order():
    digits = Digits().load()
    x = digits.batch()[:32]
    ax = new_figure(6, 2).subplots()
    draw_rows(ax, {"one": x[:16], "two": x[16:]}, digits.transform)
    picture = 255 - np.asarray(ax.get_images()[0].get_array()).astype(float)
    # 16 pictures of 8 pixels with a gap of one
    second = picture[10:18, 1:9]
    assert np.abs(second / 255 * 16 - digits.raw()[16, 0].numpy()).max() < 0.51
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]


@pytest.mark.slow
def test_figure_of_a_short_training(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "trained_ddpm", lambda x, table, progress: trained_ddpm(x, table, steps=100))
    monkeypatch.setattr(pretrained, "compare_ddpm", lambda ddpm, progress: compare_ddpm(ddpm, fitted=(11,), count=16))
    (entry,) = (entry for entry in ENTRIES if entry.name == "ddpm-heun")
    picture = entry.make(Subject())
    write_picture(picture, tmp_path, entry.name, formats=("png",))
    table = picture.tables[""]
    exact = compare_ddpm(
        exact_ddpm(classes_oracle(Digits().load().split()[0]), ddpm_table()), nfes=(99,), fitted=(), count=16
    )
    at = [row for row in zip(*table.values(), strict=True) if row[:3] == ("exact DDPM", "Heun", 99)]
    assert at[0][3] == pytest.approx(exact.errors()["Heun"][1][0])
