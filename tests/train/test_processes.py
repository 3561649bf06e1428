"""Several processes do what one does: gloo on a CPU."""

import functools
import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch

import diffspace as ds
from diffspace.train import Checkpoints, Processes, parallel, started_together

SCRIPT = (Path(__file__).parents[1] / "support" / "train_here.py").read_text()
CONFIG = {
    "data": {"source": "digits"},
    "network": {"kind": "ddpmpp", "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "dropout": 0},
    "preconditioning": {"kind": "edm"},
    "noise": {"kind": "lognormal"},
    "augment": "edm",
    "images": 330,
    "batch_size": 33,
    "learning_rate": 2e-3,
    # Adam divides a gradient by its size, and so shows the rounding of those that are almost 0
    "eps": 1e-3,
    "ramp_images": 0,
    "ema_halflife_images": 100,
    "held_out_images": 165,
}


@pytest.fixture
def start(commands):
    return functools.partial(_start, str(commands / "diffspace"))


def _start(python, folder, count, strategy="ddp", *words, **changed):
    recipe = folder.with_suffix(".json")
    recipe.write_text(json.dumps({**CONFIG, "strategy": strategy, **changed}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [python, "-c", SCRIPT, str(recipe), str(folder), strategy, *words]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes):
    said = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder):
    return Checkpoints(folder).newest().read()


def apart(a, b):
    """The largest difference of two nested states."""
    if isinstance(a, torch.Tensor):
        return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
    assert a.keys() == b.keys()
    return max((apart(a[name], b[name]) for name in a), default=0.0)


@pytest.fixture(scope="module")
def alone(commands, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    finish(_start(str(commands / "diffspace"), folder, 1))
    return folder


@pytest.mark.parametrize(
    ("count", "strategy", "changed"),
    [(2, "ddp", {}), (2, "fsdp", {}), (2, "ddp", {"micro_batch": 4}), (1, "ddp", {"micro_batch": 5})],
)
def test_losses_and_weights_are_those_of_one_process(alone, start, tmp_path, count, strategy, changed):
    """Batches of 33 are divided into 16 and 17, and those into pieces."""
    folder = tmp_path / "run"
    finish(start(folder, count, strategy, **changed))
    one, several = log(alone), log(folder)
    assert [r["step"] for r in one] == [r["step"] for r in several] == list(range(1, 11))
    for a, b in zip(one, several, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-6)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=2e-5)
        assert b["loss_by_sigma"]["count"] == a["loss_by_sigma"]["count"]
    assert several[-1]["held_out"]["loss"] == pytest.approx(one[-1]["held_out"]["loss"], rel=1e-5)
    first, second = weights(alone), weights(folder)
    for part in ("denoiser", "averages"):
        assert apart(first[part], second[part]) < 1e-5
    assert second["optimizer"].keys() == first["optimizer"].keys()
    inputs = (torch.randn(4, 1, 8, 8), torch.tensor(0.7), {"labels": torch.arange(4)})
    torch.testing.assert_close(ds.load(folder)(*inputs), ds.load(alone)(*inputs), rtol=0, atol=1e-5)


TORCHRUN = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"RANK": "5"}, "RANK: expected an integer from 0 to 1, got 5"),
        ({"RANK": "-1"}, "RANK: expected an integer from 0 to 1, got -1"),
        ({"RANK": None}, "RANK: is not set, but WORLD_SIZE is 2; start the processes with torchrun"),
        ({"RANK": "first"}, "RANK: expected an integer, got 'first' in the environment"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: expected an integer of at least 1, got 0"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE: expected an integer, got ''"),
        ({"WORLD_SIZE": "1"}, "RANK: expected an integer from 0 to 0, got 1"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK: expected an integer of at least 0, got -1"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR: is not set, but WORLD_SIZE is 2"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT: expected an integer from 1 to 65535, got 0"),
    ],
)
def test_variables_that_contradict_one_another_are_named(monkeypatch, changed, message):
    for name, value in {**TORCHRUN, **changed}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    if message is None:
        assert started_together() == (1, 2, 1)
        return
    with pytest.raises(ValueError, match=message), Processes.join("cpu"):
        pass


def test_one_process_needs_no_variables(monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "not of torchrun")
    assert started_together() == (0, 1, 0)


def test_waiting_for_others_is_said_and_ends(monkeypatch):
    monkeypatch.setattr(parallel, "_SILENCE", 0.1)
    monkeypatch.setattr(parallel, "_MEETING", timedelta(seconds=1))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for name, value in {**TORCHRUN, "RANK": "0", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    told = []
    with (
        pytest.raises(ValueError, match=f"process 0 of 2 waits for the others at 127.0.0.1:{port}, in vain"),
        Processes.join("cpu", warn=told.append),
    ):
        pass
    assert told == [f"process 0 of 2 waits for the others at 127.0.0.1:{port}"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_checkpoint_goes_on_with_another_number_of_processes(alone, start, tmp_path, strategy):
    folder = tmp_path / "run"
    finish(start(folder, 2, strategy, images=165))
    finish(start(folder, 1, "ddp", "resume"))
    assert [r["step"] for r in log(folder)] == list(range(1, 11))
    assert apart(weights(alone)["denoiser"], weights(folder)["denoiser"]) < 1e-5

    back = tmp_path / "back"
    finish(start(back, 1, "ddp", images=165))
    finish(start(back, 2, strategy, "resume"))
    assert apart(weights(alone)["averages"], weights(back)["averages"]) < 1e-5


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_learnt_weights_and_noise_agree(start, tmp_path, strategy):
    options = {"uncertainty": True, "adaptive_noise": True, "batch_size": 8, "images": 640, "augment": None}
    for count in (1, 2):
        finish(start(tmp_path / str(count), count, "ddp" if count == 1 else strategy, **options))
    one, two = (weights(tmp_path / str(count))["trainer"]["loss"] for count in (1, 2))
    uncertainty, noise = "uncertainty.weight", "noise._extra_state"
    assert float(one[uncertainty].abs().max()) > 1e-2
    assert float((one[noise]["density"] - 1).abs().max()) > 1e-2
    assert apart(one[uncertainty], two[uncertainty]) < 1e-4
    assert apart(one[noise], two[noise]) < 1e-3 * float(one[noise]["past"].max())


def test_a_process_that_dies_ends_the_run_and_leaves_the_checkpoint(start, tmp_path):
    folder = tmp_path / "run"
    first, second = _start(sys.executable, folder, 2, images=33_000_000, checkpoint_images=33)
    while not (folder / "log.jsonl").exists() or len(log(folder)) < 3:
        assert first.poll() is None, first.stderr.read()
    second.kill()
    _, said = first.communicate(timeout=120)
    second.communicate()
    assert first.returncode != 0
    assert said.splitlines()[-1].endswith("process 0 of 2 lost the connection to the others, of which one has ended")
    assert Checkpoints(folder).newest().images >= 33
    finish(start(folder, 2, "ddp", "resume", images=165))
