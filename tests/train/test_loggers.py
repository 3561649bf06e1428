"""Logs read back: by diffspace, by TensorBoard's own reader, and from a stand-in for wandb."""

import errno
import io
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from diffspace.train import JSONLines, Logger, TensorBoard, WandB, read_log
from diffspace.train.loggers import scalars

TRAINING = {
    "step": 3,
    "images": 192,
    "loss": 2.5,
    "loss_by_sigma": {"sigma": [0.1, 1.0], "loss": [0.25, None], "count": [64, 0]},
}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(step):
    return {"step": step, "images": 64 * step, "loss": 1 / (step + 1)}


def test_lines_are_there_at_once_and_come_back(tmp_path):
    log = JSONLines(tmp_path / "log.jsonl")
    log.log(TRAINING)
    assert lines(tmp_path / "log.jsonl") == [TRAINING]
    log.log({"step": 4, "images": 256, "loss": math.nan, "held_out": {"mse": [1.0, math.inf]}})
    log.close()
    assert lines(tmp_path / "log.jsonl")[1]["loss"] is None
    assert lines(tmp_path / "log.jsonl")[1]["held_out"] == {"mse": [1.0, None]}


def test_a_full_disk_is_said_once_and_leaves_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JSONLines(path)
    log.log(record(1))

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() > 60:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:10])

    log._file.close()
    log._file = Full(path, "rb+")
    log._file.seek(0, 2)
    with pytest.raises(OSError, match=r"No space left on device.*log\.jsonl"):
        log.log(record(2))
    log.close()
    resumed = JSONLines(path)
    resumed.log(record(2))
    resumed.close()
    assert lines(path) == [record(1), record(2)]


@pytest.mark.parametrize("torn", [b"", b"{", b'{"step": 11, "images": 704, "lo', b'{"step": 11}', b"\n", b"\xff\xfe"])
@pytest.mark.parametrize("images", [640, 320, 330, 0, None])
def test_a_run_that_was_killed_goes_on_without_double_lines(tmp_path, torn, images):
    """The log of a run that was cut anywhere and resumed from a checkpoint is that of one that was not."""
    path = tmp_path / "log.jsonl"
    first = JSONLines(path)
    for step in range(1, 11):
        first.log(record(step))
    first.close()
    with path.open("ab") as file:
        file.write(torn)
    begin = 10 if images is None else images // 64
    resumed = JSONLines(path, images)
    for step in range(begin + 1, 13):
        resumed.log(record(step))
    resumed.close()
    assert lines(path) == [record(step) for step in range(1, 13)]


def test_a_log_cut_at_every_byte(tmp_path):
    path = tmp_path / "log.jsonl"
    whole = "".join(json.dumps(record(step)) + "\n" for step in range(1, 4)).encode()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        log = JSONLines(path)
        log.log(record(9))
        log.close()
        kept = whole[:cut].count(b"\n")
        assert lines(path) == [record(step) for step in range(1, kept + 1)] + [record(9)]


def test_reading_follows_a_log(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_log(path) == []
    text = [json.dumps(record(step)) + "\n" for step in range(1, 8)]
    path.write_text(text[0] + text[1][:9])
    assert read_log(path) == [record(1)]
    path.write_text("".join(text[:4]) + "no record\n[1]\n" + text[4])
    assert read_log(path) == [record(step) for step in range(1, 6)]
    path.write_text("".join(text[:2]))  # resumed from an earlier checkpoint
    assert read_log(path) == [record(1), record(2)]
    path.write_text(text[0] + json.dumps(record(2) | {"loss": 9}) + "\n" + "".join(text[2:6]))
    assert len(read_log(path)) == 6
    path.unlink()
    assert read_log(path) == []


def test_numbers_have_names_that_do_not_change():
    assert scalars(TRAINING | {"frechet": {"classifier": 3.0}, "preview": "x.png", "note": True}) == {
        "step": 3,
        "loss": 2.5,
        "loss_by_sigma/loss/σ=0.1": 0.25,
        "frechet/classifier": 3.0,
    }


def picture(path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((4, 6), 200, np.uint8)).save(path)


def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture(tmp_path / "previews" / "a.png")
    log = TensorBoard(tmp_path)
    for step in range(1, 11):
        log.log(record(step))
    log.close()
    resumed = TensorBoard(tmp_path, images=320)
    for step in range(6, 9):
        resumed.log(record(step) | {"loss": 7.0})
    resumed.log(TRAINING | {"images": 512, "preview": "previews/a.png"})
    resumed.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    loss = {e.step: e.value for e in events.Scalars("loss")}
    assert loss == {64 * s: pytest.approx(1 / (s + 1)) for s in range(1, 6)} | {384: 7.0, 448: 7.0, 512: 2.5}
    assert [e.value for e in events.Scalars("loss_by_sigma/loss/σ=0.1")] == [0.25]
    (image,) = events.Images("preview")
    assert (image.width, image.height, image.step) == (6, 4, 512)


@pytest.fixture
def wandb(monkeypatch):
    """What stands in for the module: it keeps what it is told."""
    said = []
    run = SimpleNamespace(
        define_metric=lambda *a, **k: said.append(("define_metric", a, k)),
        log=lambda values: said.append(("log", values)),
        finish=lambda: said.append(("finish",)),
    )
    module = SimpleNamespace(init=lambda **k: said.append(("init", k)) or run, Image=lambda path: ("image", path))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return said


def test_wandb_is_told_the_same(tmp_path, wandb):
    folder = tmp_path / "digits"
    folder.mkdir()
    for _ in range(2):
        log = WandB(folder, config={"batch_size": 64})
        log.log(TRAINING | {"preview": "previews/a.png"})
        log.close()
    first, second = (call[1] for call in wandb if call[0] == "init")
    assert first == second  # the same run goes on
    assert (first["name"], first["project"], first["resume"]) == ("digits", "diffspace", "allow")
    assert first["config"] == {"batch_size": 64}
    assert ("define_metric", ("*",), {"step_metric": "images"}) in wandb
    logged = next(call[1] for call in wandb if call[0] == "log")
    assert logged["images"] == 192
    assert logged["loss_by_sigma/loss/σ=0.1"] == 0.25
    assert logged["preview"] == ("image", str(folder / "previews/a.png"))
    assert wandb[-1] == ("finish",)


@pytest.mark.parametrize(("name", "make"), [("wandb", WandB), ("tensorboard", TensorBoard)])
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, name, make):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"the package {name}, which is not installed: pip install {name}"):
        make(tmp_path)


def test_all_are_loggers(tmp_path, wandb):
    for log in (JSONLines(tmp_path / "x"), TensorBoard(tmp_path), WandB(tmp_path)):
        assert isinstance(log, Logger)
        log.close()
