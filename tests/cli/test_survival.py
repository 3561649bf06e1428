"""What a run survives: signals, a full disk, damaged checkpoints, a second run in its folder."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import diffspace as ds
from diffspace.cli.app import main
from diffspace.train import Checkpoints

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")

SMALL = ["two-moons", "data.n=400", "network.width=8", "batch_size=50", "ramp_images=0", "held_out_images=0"]
ENDLESS = ["images=100000000", "decay_images=0", "checkpoint_images=5000"]


def start(folder, *words, **options):
    command = [sys.executable, "-m", "diffspace", "train", *words, "--out", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_for(process, there):
    deadline = time.monotonic() + 240
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_checkpoint(folder):
    return lambda: any(p.name[0] != "." for p in folder.glob("checkpoints/*"))


def trained(folder, *words):
    keys = {word.partition("=")[0] for word in words}
    small = [word for word in (*SMALL, "images=200", "checkpoint_images=100") if word.partition("=")[0] not in keys]
    assert main(["train", *small, *words, "--out", str(folder)]) == 0
    return folder


def complaint(capsys, arguments):
    capsys.readouterr()
    code = main(arguments)
    said = capsys.readouterr().err
    return code, said.replace("\n", " ").strip()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_with_its_code(tmp_path, number, code):
    folder = tmp_path / "run"
    process = start(folder, *SMALL, *ENDLESS)
    wait_for(process, has_checkpoint(folder))
    process.send_signal(number)
    printed, complaints = process.communicate(timeout=120)
    assert process.returncode == code, complaints
    assert f"diffspace train --resume {folder}" in printed
    assert "Traceback" not in complaints
    assert Checkpoints(folder).newest().images == ds.load(folder).notes["images"] % 100_000_000 > 0
    assert not list(folder.rglob(".*"))


def test_a_signal_ends_several_processes_together(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, *SMALL, *ENDLESS, "--processes", "2", "--device", "cpu", start_new_session=True)
    wait_for(process, has_checkpoint(folder))
    os.killpg(process.pid, signal.SIGTERM)  # each of them has it twice: from here, and from the one that started them
    printed, complaints = process.communicate(timeout=120)
    assert process.returncode == 143, complaints
    assert printed.count(f"diffspace train --resume {folder}") == 1
    assert "Traceback" not in complaints
    assert Checkpoints(folder).newest().images == ds.load(folder).notes["images"]


def test_a_signal_gives_up_an_evaluation_that_is_under_way(tmp_path):
    folder = tmp_path / "run"
    # a preview of 2000 points by 35 evaluations, after every step
    small = [word for word in SMALL if not word.startswith("network.width")]
    process = start(folder, *small, *ENDLESS, "preview_images=50", "network.width=512", "network.depth=8")
    wait_for(process, lambda: any(folder.glob("previews/*")))
    process.send_signal(signal.SIGTERM)
    _, complaints = process.communicate(timeout=120)
    assert process.returncode == 143, complaints
    assert Checkpoints(folder).newest().images > 0
    assert not list(folder.rglob(".*"))


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    folder = trained(tmp_path / "run", "network.width=64")
    before = Checkpoints(folder).newest()
    kept = before.read()
    limit = before.path.stat().st_size // 2

    def nearly_full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "diffspace", "train", "--resume", str(folder), "images=400", "decay_images=0"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=nearly_full, timeout=240)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("diffspace: ")]
    assert len(lines) == 1
    assert "File too large" in lines[0]
    assert "Traceback" not in done.stderr
    assert Checkpoints(folder).newest().images == 200
    assert Checkpoints(folder).newest().read()["trainer"] == kept["trainer"]
    ds.load(folder)  # whole, be it of before or of after
    assert not list(folder.rglob(".*"))
    assert main(["train", "--resume", str(folder), "images=400", "decay_images=0"]) == 0
    assert Checkpoints(folder).newest().images == 400


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [flip, lambda path: path.write_bytes(b"")], ids=["flipped byte", "empty"])
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, capsys, harm):
    whole = trained(tmp_path / "whole", "images=300")
    folder = trained(tmp_path / "run")
    newest = Checkpoints(folder).newest().path
    harm(newest)
    code, said = complaint(capsys, ["train", "--resume", str(folder), "images=300", "decay_images=150"])
    assert code == 0
    assert f"{newest}:" in said.replace("  ", " ")
    assert "passed over" in said
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == json.loads((whole / "log.jsonl").read_text().splitlines()[-1])["step"] == 6


def test_one_folder_has_one_run(tmp_path, capsys):
    folder = tmp_path / "run"
    process = start(folder, *SMALL, *ENDLESS)
    wait_for(process, has_checkpoint(folder))
    code, said = complaint(capsys, ["train", "--resume", str(folder)])
    assert code == 2
    assert f"is being written by process {process.pid}" in said
    process.kill()
    process.communicate()
    # a dead process holds nothing
    before = Checkpoints(folder).newest().images
    assert main(["train", "--resume", str(folder), f"images={before + 100}", "decay_images=0"]) == 0
    assert Checkpoints(folder).newest().images >= before


def test_a_recipe_changes_where_it_can(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    code, said = complaint(capsys, ["train", "--resume", str(folder), "network.width=16"])
    assert code == 2
    assert said.startswith("diffspace: network.width: 8 became 16, which cannot change within a run")
    assert "width: 8" in (folder / "recipe.yaml").read_text()
    code, said = complaint(capsys, ["train", "--resume", str(folder), "learning_rat=1"])
    assert code == 2
    assert "did you mean 'learning_rate'" in said
    code, said = complaint(capsys, ["train", "--resume", str(folder), "images=300", "learning_rate=1e-4"])
    assert code == 0
    assert "images: 200 became 300" in said
    assert "learning_rate: 0.002 became 0.0001" in said
    assert "learning_rate: 0.0001" in (folder / "recipe.yaml").read_text()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    code, said = complaint(capsys, ["train", "--resume", str(folder)])
    assert code == 0
    assert "has no checkpoint yet; beginning anew" in said
    assert len((folder / "log.jsonl").read_text().splitlines()) >= 1
    assert Checkpoints(folder).newest().images == 200


def test_a_loss_that_explodes_ends_with_one_line(tmp_path, capsys):
    words = ["learning_rate=1e30", "images=5000", "max_skipped=3"]
    code, said = complaint(capsys, ["train", *SMALL, *words, "--out", str(tmp_path / "run")])
    assert code == 1
    assert "the gradients of 3 steps in a row" in said
    assert (tmp_path / "run" / "nonfinite-0.pt").exists()


def test_processes_from_one_command(tmp_path, capfd):
    assert main(["train", *SMALL, "images=200", "--processes", "2", "--out", str(tmp_path / "run")]) == 0
    assert "200 images in float32 on 2 processes on cpu (ddp, 50 samples a step)" in capfd.readouterr().out
    assert ds.load(tmp_path / "run").notes["images"] == 200
    # the mistakes of one are those of all, and said once
    assert main(["train", *SMALL, "images=200", "--processes", "2", "--out", str(tmp_path / "run")]) == 2
    assert capfd.readouterr().err.count("exists already") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "0"], "--processes: expected an integer from 1 to 1024, got 0"),
        (["strategy=fsdp"], "strategy: 'fsdp' has no effect on one process"),
        (["precision=float16", "--device", "cpu"], "precision: float16 is not supported on a CPU"),
        (["precision=tf32", "--device", "cpu"], "precision: tf32 has no effect on cpu"),
        (["precision=half"], "precision: expected 'float32' or"),
        (["micro_batch=0"], "micro_batch: expected an integer of at least 1, got 0"),
        (["ema_widths=[0.1]"], "ema_widths: (0.1,) has no effect without snapshot_images"),
        (["ema_widths=[0.9]", "snapshot_images=10"], "width: expected a number in (0, 1/√12 = 0.2887], got 0.9"),
        (["held_out_images=0", "patience_images=50"], "patience_images: 50 has no effect without held_out_images"),
        (["wandb=project"], "the package wandb, which is not installed"),
        (["winograd=true"], "winograd: there is no such key"),
    ],
)
def test_mistakes_are_named_on_one_line(tmp_path, capsys, words, message):
    code, said = complaint(capsys, ["train", *SMALL[:3], "images=100", *words, "--out", str(tmp_path / "run")])
    assert code == 2
    assert message in said
    assert not Path(tmp_path / "run" / "model.safetensors").exists()


def test_processes_that_were_started_together_are_of_one_number(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main(["train", "swissroll", "--processes", "2"]) == 2
    assert "--processes: 2, but 4 were started together" in capsys.readouterr().err
