"""Measurements and hooks that a user wrote show in the log and in the curves without changes elsewhere."""

import json

import numpy as np
import pytest
import torch
from small_runs import begin_and_train, make_run, resume_and_train
from weight_norm import WeightNorm

from diffspace import parts
from diffspace.cli.app import main
from diffspace.figures import Curves, curves_figure
from diffspace.loading import load
from diffspace.train import Checkpoints, Hook, Measurement


def logged(folder, name):
    records = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {r["images"]: r[name] for r in records if name in r}


def test_a_users_measurement_is_in_the_log_and_among_the_curves(tmp_path, capsys):
    folder = tmp_path / "run"
    run = make_run(folder, measurements=[WeightNorm(every=300)])
    reports = [report for report in begin_and_train(run) if report.measured]
    assert [report.images for report in reports] == [300, 600, 900, 1000]
    norms = logged(folder, "weight_norm")
    assert list(norms) == [300, 600, 900, 1000]
    final = sum(float(p.detach().double().square().sum()) for p in load(folder).denoiser.parameters()) ** 0.5
    assert norms[1000] == pytest.approx(final, rel=1e-5)

    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    curves = Curves.of("run", records, 1000)
    assert curves.measured["weight_norm"][""].images == [300, 600, 900, 1000]
    assert "weight_norm" in [ax.get_title(loc="left") for ax in curves_figure([curves]).axes]
    capsys.readouterr()
    assert main(["watch", str(folder), "--once"]) == 0
    assert capsys.readouterr().out.count("weight_norm") == 2  # its value, and its panel


class Several(Measurement):
    name = "both"

    def measure(self, model):
        return {"images": model.notes["images"], "double": 2.0 * model.notes["images"]}


def test_several_numbers_and_several_measurements(tmp_path):
    run = make_run(tmp_path / "run", measurements=[Several(every=500), WeightNorm(every=1000)])
    begin_and_train(run)
    assert logged(tmp_path / "run", "both") == {
        500: {"images": 500, "double": 1000.0},
        1000: {"images": 1000, "double": 2000.0},
    }
    assert list(logged(tmp_path / "run", "weight_norm")) == [1000]
    with pytest.raises(ValueError, match="every: expected an integer of at least 1, got 0"):
        WeightNorm(every=0)


class Named(Measurement):
    """A measurement under any name, with any result."""

    def __init__(self, name, value=1.0):
        super().__init__(500)
        self.name, self.value = name, value

    def measure(self, model):
        return self.value


@pytest.mark.parametrize("name", ["loss", "held_out", "grad_norm", "images", "", None])
def test_names_that_the_log_uses_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"measurement: (the name .* is taken|Named has no name)"):
        make_run(tmp_path / "run", measurements=[Named(name)])


def test_two_measurements_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the name 'mine' of Named is taken"):
        make_run(tmp_path / "run", measurements=[Named("mine"), Named("mine")])


def test_results_become_numbers_or_a_clear_error(tmp_path):
    value = {"tensor": torch.tensor(0.5), "array": np.float32(2), "list": [1, 2.5], "text": "x"}
    begin_and_train(make_run(tmp_path / "run", measurements=[Named("mine", value)]))
    assert logged(tmp_path / "run", "mine")[500] == {"tensor": 0.5, "array": 2.0, "list": [1, 2.5], "text": "x"}
    run = make_run(tmp_path / "other", measurements=[Named("mine", torch.zeros(3))])
    with pytest.raises(ValueError, match="measurement: 'mine' returned a Tensor; expected a number"):
        begin_and_train(run)


class StopAt(Hook):
    """Ends the training at a number of reports, which a checkpoint keeps."""

    def __init__(self, count):
        self.count, self.state = count, {"seen_reports": 0}

    def after_step(self, step, report):
        self.state["seen_reports"] += report is not None
        return self.state["seen_reports"] == self.count


def test_a_users_hook_ends_the_training_and_its_state_is_kept(tmp_path):
    run = make_run(tmp_path / "run", report_seconds=0)
    run.hooks.append(StopAt(4))
    assert len(begin_and_train(run)) == 4
    assert Checkpoints(tmp_path / "run").newest().read()["trainer"]["hooks"]["seen_reports"] == 4
    again = make_run(tmp_path / "run", report_seconds=0)
    again.hooks.append(StopAt(7))
    assert len(resume_and_train(again)) == 3


def test_on_the_command_line(tmp_path, capsys, monkeypatch):
    words = ["two-moons", "data.n=300", "network.width=8", "images=1000", "batch_size=100", "held_out_images=0"]
    measure = ["--measure", "weight_norm:WeightNorm:every=500"]
    assert main(["train", *words, *measure, "--out", str(tmp_path / "run")]) == 0
    assert list(logged(tmp_path / "run", "weight_norm")) == [500, 1000]
    resume = ["train", "--resume", str(tmp_path / "run"), "images=1500", "decay_images=0"]
    monkeypatch.setattr(parts, "_unregistered", {})  # as in another process
    assert main(resume) == 2
    assert "--part weight_norm:WeightNorm" in capsys.readouterr().err.replace("\n", " ")
    assert main([*resume, "--part", "weight_norm:WeightNorm"]) == 0
    assert list(logged(tmp_path / "run", "weight_norm")) == [500, 1000, 1500]
    assert main([*resume[:3], "images=2000", "measure=[]"]) == 0
    assert list(logged(tmp_path / "run", "weight_norm")) == [500, 1000, 1500]
    capsys.readouterr()
    for text, message in (("weight_norm:WeightNorm", "every"), ("weight_norm:Weight", "has no Weight")):
        assert main(["train", *words, "--measure", text, "--out", str(tmp_path / "other")]) == 2
        assert message in capsys.readouterr().err
