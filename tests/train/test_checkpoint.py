"""Checkpoints under faults: at whatever point a save dies, the newest whole one is the old or the new."""

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from kill_saves import equal, state

from diffspace.train.checkpoint import Checkpoints, kept, verify

SUPPORT = Path(__file__).parents[1] / "support"


def small(images):
    """A state in three parts, a function of its argument."""
    weights = {"weight": torch.arange(6.0).reshape(2, 3) * (images + 1), "bias": torch.full((2,), float(images))}
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"betas": (0.9, 0.999), "params": [0]}]}
    return {"denoiser": weights, "optimizer": optimizer, "trainer": {"images": images, "name": None, "on": True}}


def filled(folder, *images, **options):
    checkpoints = Checkpoints(folder, **options)
    for n in images:
        checkpoints.save(n, small(n))
        checkpoints.wait()
    return checkpoints


def newest(folder):
    """The images of the newest checkpoint, and what was said of the others."""
    said = []
    found = Checkpoints(folder).newest(said.append)
    assert equal(found.read(), small(found.images))
    return found.images, said


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_what_is_saved_is_read(tmp_path):
    filled(tmp_path, 64)
    assert newest(tmp_path) == (64, [])
    assert names(tmp_path) == ["000000000064.pt"]
    file = tmp_path / "checkpoints" / "000000000064.pt"
    assert equal(torch.load(file, weights_only=True), small(64))  # without diffspace too
    *_, facts, sha256, _ = file.read_bytes().split(b"\n")
    assert json.loads(facts)["torch"] == torch.__version__
    assert hashlib.sha256(file.read_bytes()[:-65]).hexdigest() == sha256.decode()


def test_a_model_and_its_optimizer_come_back(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    adam = torch.optim.Adam(network.parameters())
    network(torch.randn(8, 3)).sum().backward()
    adam.step()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(8, {"denoiser": network.state_dict(), "optimizer": adam.state_dict()})
    read = checkpoints.newest().read()
    checkpoints.wait()
    assert equal(read["denoiser"], dict(network.state_dict()))
    other = torch.optim.Adam(network.parameters())
    other.load_state_dict(read["optimizer"])
    assert equal(other.state_dict(), adam.state_dict())


def test_a_flipped_bit_anywhere_is_found(tmp_path):
    filled(tmp_path, 100, 200)
    file = tmp_path / "checkpoints" / "000000000200.pt"
    content = file.read_bytes()
    for position in {*range(0, len(content), 97), *range(len(content) - 250, len(content))}:
        file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(ValueError, match=r"000000000200\.pt: (is not what was written|is of|has format)"):
            verify(file)
    assert newest(tmp_path) == (
        100,
        [f"{file}: is not what was written, by its SHA-256; this checkpoint is passed over"],
    )
    file.write_bytes(content)
    assert newest(tmp_path) == (200, [])


def cut(file):
    os.truncate(file, file.stat().st_size - 1)


def lengthen(file):
    with file.open("ab") as end:
        end.write(b"garbage")


def empty(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, lengthen, empty])
def test_a_damaged_file_is_named_and_passed_over(tmp_path, harm):
    filled(tmp_path, 100, 200, 300, keep_last=3)
    harm(tmp_path / "checkpoints" / "000000000300.pt")
    harm(tmp_path / "checkpoints" / "000000000200.pt")
    images, said = newest(tmp_path)
    assert images == 100
    assert [f"{n}.pt" in line for n, line in zip((300, 200), said, strict=True)] == [True, True]


def test_a_checkpoint_in_anothers_place_or_of_a_later_format_is_passed_over(tmp_path):
    filled(tmp_path, 100, 200)
    folder = tmp_path / "checkpoints"
    shutil.copy(folder / "000000000200.pt", folder / "000000000300.pt")
    assert "300.pt: is of 200 images" in newest(tmp_path)[1][0]
    (folder / "000000000300.pt").write_bytes(b'\n{"format": 3, "images": 300}\n' + b"0" * 64 + b"\n")
    assert "has format 3; this diffspace knows 2" in newest(tmp_path)[1][0]


def test_if_none_is_whole_all_reasons_are_given(tmp_path):
    with pytest.raises(ValueError, match="there is none in"):
        Checkpoints(tmp_path).newest()
    filled(tmp_path, 100, 200)
    lengthen(tmp_path / "checkpoints" / "000000000100.pt")
    cut(tmp_path / "checkpoints" / "000000000200.pt")
    with pytest.raises(ValueError, match=r"200\.pt: is not what was written.*100\.pt: is not what was written"):
        Checkpoints(tmp_path).newest(lambda said: None)


def test_no_code_is_run(tmp_path):
    file = tmp_path / "000000000100.pt"
    torch.save({"trap": Path("x")}, file)
    content = file.read_bytes() + b'\n{"format": 2, "images": 100, "score": null}\n'
    file.write_bytes(content + f"{hashlib.sha256(content).hexdigest()}\n".encode())
    with pytest.raises(ValueError, match=r"100\.pt: cannot be read as a checkpoint"):
        verify(file).read()


def sealed(folder, pickled):
    """A checkpoint whose facts and hash are right, around any pickle."""
    whole, content = io.BytesIO(), io.BytesIO()
    torch.save({}, whole)
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(content, "w") as written:
        for name in given.namelist():
            written.writestr(name, pickled if name.endswith("data.pkl") else given.read(name))
    text = content.getvalue() + b'\n{"format": 2, "images": 100, "score": null}\n'
    file = folder / "000000000100.pt"
    file.write_bytes(text + f"{hashlib.sha256(text).hexdigest()}\n".encode())
    return file


@pytest.mark.parametrize(
    "pickled",
    [
        # a tuple of itself twice, sixty times, as a key: torch's own reader takes 2^60 steps for its hash
        b"\x80\x02}K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"K\x01s.",
        b"\x80\x02}K\x01" + b"\x85" * 200_000 + b"K\x01s.",  # and this overflows its stack
        pickle.dumps([1, 2], 2),
        pickle.dumps({"trainer": 3}, 2),
        b"",
    ],
    ids=["exponential hash", "deep", "a list", "a number as a part", "empty"],
)
def test_contents_that_are_no_state_behind_a_hash_that_is_right(tmp_path, pickled):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"^.*100\.pt: cannot be read as a checkpoint: .+"):
        verify(sealed(tmp_path, pickled)).read()
    assert time.perf_counter() - start < 5


def test_what_no_checkpoint_can_hold_is_refused_when_it_is_saved(tmp_path):
    for key in (-1, 2**31, True, None, (1,)):
        with pytest.raises(ValueError, match="parts: trainer has the key"):
            Checkpoints(tmp_path).save(8, {"trainer": {key: 1}})


def test_a_checkpoint_of_version_0_1_is_read_checked_and_replaced(tmp_path):
    folder = tmp_path / "checkpoints" / "000000006016"
    shutil.copytree(Path(__file__).parents[1] / "compat" / "points" / "checkpoints", folder.parent)
    found = Checkpoints(tmp_path).newest(pytest.fail)
    assert set(found.read()) == {"denoiser", "averages", "optimizer", "trainer"}
    assert found.images == found.read()["trainer"]["images"] == 6016
    for name in ("denoiser.pt", "manifest.json"):
        content = (folder / name).read_bytes()
        cut(folder / name)
        with pytest.raises(ValueError, match=r"6016.*: is not what was written, by its SHA-256"):
            verify(folder)
        (folder / name).write_bytes(content)
    filled(tmp_path, 6100, keep_last=2)
    assert names(tmp_path) == ["000000006016", "000000006100.pt"]
    filled(tmp_path, 6200, keep_last=2)
    assert names(tmp_path) == ["000000006100.pt", "000000006200.pt"]


class Died(BaseException):
    """The process is no more: nothing that changes the disk happens after it."""


SYSTEM = [(os, "fsync"), (os, "replace"), (os, "mkdir"), (os, "unlink")]


def break_at(monkeypatch, k, error):
    """The k-th call that changes the disk fails with `error`, in the middle of what it writes or removes.

    An OSError is a fault of that call alone; after `Died` all calls fail. The number of calls is counted.
    """
    calls = [0]

    def breaking(name, function):
        def call(*args, **options):
            calls[0] += 1
            if calls[0] == k or (calls[0] > k and error is Died):
                if name == "replace" and calls[0] == k:
                    os.truncate(args[0], 100)
                raise Died if error is Died else error(errno.EIO, f"{name} failed")
            return function(*args, **options)

        return call

    for owner, name in SYSTEM:
        monkeypatch.setattr(owner, name, breaking(name, getattr(owner, name)))
    return calls


@pytest.fixture
def no_sync(monkeypatch):
    """Without a loss of power it shows nowhere, and takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


OLD = {"trainer": {"old": 1}}


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("error", [Died, OSError])
@pytest.mark.parametrize(("before", "saved"), [((100, 200), 300), ((200,), 200), ((), 100)])
def test_whatever_call_of_a_save_fails_the_newest_is_the_old_or_the_new(tmp_path, monkeypatch, error, before, saved):
    seen, k, calls = set(), 0, [1]
    while calls[0] >= k:  # until no call failed
        k += 1
        folder = tmp_path / str(k)
        folder.mkdir()
        filled(folder, *before)
        if before:
            again = Checkpoints(folder)
            again.save(before[-1], OLD)  # whose loss can be told from a replacement
            again.wait()
        failure = None
        with monkeypatch.context() as patched:
            calls = break_at(patched, k, error)
            try:
                filled(folder, saved, keep_last=1)
            except (Died, OSError) as caught:
                failure = caught

        try:
            found = Checkpoints(folder).newest(pytest.fail)
        except ValueError:
            assert not before
            seen.add("none")
        else:
            new = equal(found.read(), small(saved))
            assert new or (before and equal(found.read(), OLD))
            seen.add("new" if new else "old")
            if isinstance(failure, OSError):
                assert f"{found.path} is whole" in str(failure)
        assert failure is not None or "new" in seen
        for path in folder.glob("checkpoints/[0-9]*"):
            verify(path)  # nothing half is in sight
        if isinstance(failure, OSError):
            assert "\n" not in str(failure)
            assert not list(folder.glob("checkpoints/.*"))

        filled(folder, saved, 400, keep_last=1)  # the next saves are not hindered by what is left
        assert newest(folder) == (400, [])
        assert names(folder) == ["000000000400.pt"]
    assert k > 5
    assert seen == {"new", "old" if before else "none"}


def test_all_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, replace, sync = [], os.replace, os.fsync
    before = {}

    def note(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def renaming(source, target):
        before[target] = list(synced)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", renaming)
    target = filled(tmp_path, 100).path / "000000000100.pt"
    assert {path.stat().st_ino for path in (target, tmp_path)} == set(before[target])
    assert synced[len(before[target]) :] == [target.parent.stat().st_ino]


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_file_that_may_not_grow_leaves_the_previous_checkpoint_and_says_so(tmp_path):
    import resource

    filled(tmp_path, 100)
    checkpoints = Checkpoints(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(OSError, match="checkpoint") as caught:  # noqa: PT012
            checkpoints.save(200, state(200))
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    folder = tmp_path / "checkpoints"
    assert str(caught.value) == (
        f"checkpoint: {folder}/000000000200.pt, of 1.6 MB, could not be written: File too large; "
        f"{folder}/000000000100.pt is whole"
    )
    assert names(tmp_path) == ["000000000100.pt"]
    checkpoints.save(200, small(200))
    assert checkpoints.newest(pytest.fail).images == 200
    checkpoints.wait()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting wants root")
def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(100, state(100))
        checkpoints.save(200, state(200))
        with pytest.raises(OSError, match=r"No space left on device; .*200\.pt is whole"):  # noqa: PT012
            checkpoints.save(300, state(300))
            checkpoints.wait()
        assert names(tmp_path) == ["000000000100.pt", "000000000200.pt"]
        (checkpoints.path / "000000000100.pt").unlink()
        checkpoints.save(300, state(300))
        found = checkpoints.newest(pytest.fail)
        assert equal(found.read(), state(300))
        checkpoints.wait()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_a_folder_that_may_only_be_read(monkeypatch):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are private
        folder = Path(name)
        checkpoints = filled(folder, 100)
        for path in (folder, checkpoints.path):
            path.chmod(0o555)
        if root := os.geteuid() == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            with pytest.raises(OSError, match=r"300\.pt, of .* could not be written: Permission denied; .*100\.pt is"):
                filled(folder, 300)
            assert newest(folder) == (100, [])
        finally:
            if root:
                os.seteuid(0)
            for path in (folder, checkpoints.path):
                path.chmod(0o755)


def kill(folder, kills, *options):
    command = [sys.executable, str(SUPPORT / "kill_saves.py"), str(folder), str(kills), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_in_the_middle_of_saving(tmp_path):
    counts = kill(tmp_path, 20)
    assert counts["images"] > 1000
    assert counts["half_written"] >= 8  # of the ten that were to hit a save


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("options", [[], ["--sync"]])
def test_killed_very_often_in_the_middle_of_saving(tmp_path, options):
    counts = kill(tmp_path, 300, *options)
    assert counts["half_written"] >= 120  # of 150


def held_writer(monkeypatch):
    """A writer that waits for the event before it writes."""
    go, make = threading.Event(), os.mkdir

    def held(*args, **options):
        assert go.wait(60)
        make(*args, **options)

    monkeypatch.setattr(os, "mkdir", held)
    return go


def test_training_goes_on_while_a_copy_is_written(tmp_path, monkeypatch):
    go = held_writer(monkeypatch)
    parts, expected = small(100), small(100)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(100, parts)
    for tensor in (*parts["denoiser"].values(), parts["optimizer"]["state"][0]["step"]):
        tensor.fill_(-1)
    parts["optimizer"]["param_groups"][0]["params"].append(1)
    parts["trainer"]["images"] = 101
    assert not (tmp_path / "checkpoints" / "000000000100.pt").exists()
    go.set()
    assert equal(checkpoints.newest().read(), expected)
    checkpoints.wait()


def test_one_save_waits_for_the_other(tmp_path, monkeypatch):
    go = held_writer(monkeypatch)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(100, small(100))
    second = threading.Thread(target=checkpoints.save, args=(200, small(200)))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go.set()
    second.join(60)
    checkpoints.wait()
    assert newest(tmp_path) == (200, [])
    assert names(tmp_path) == ["000000000100.pt", "000000000200.pt"]


def test_an_error_of_the_writer_comes_with_the_next_call_and_once(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(100, small(100))
    checkpoints.wait()
    for call in (checkpoints.wait, lambda: checkpoints.save(300, small(300)), checkpoints.newest):
        with monkeypatch.context() as patched:
            break_at(patched, 4, OSError)
            checkpoints.save(200, small(200))
            with pytest.raises(OSError, match=r"200\.pt, of 0.0 MB, could not be written: .* failed; .*100\.pt is"):
                call()
    checkpoints.wait()
    checkpoints.save(300, small(300))
    checkpoints.wait()
    assert newest(tmp_path) == (300, [])


def test_a_process_that_ends_ends_its_save_first(tmp_path):
    code = """
import sys
from pathlib import Path
from kill_saves import state
from diffspace.train.checkpoint import Checkpoints
Checkpoints(Path(sys.argv[1])).save(100, state(100))
sys.exit(3)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    assert subprocess.run([sys.executable, "-c", code, tmp_path], env=environment).returncode == 3
    assert equal(Checkpoints(tmp_path).newest(pytest.fail).read(), state(100))


@pytest.mark.parametrize(
    ("last", "every", "expected"),
    [
        (1, 0, {730}),
        (3, 0, {450, 600, 730}),
        (1, 200, {210, 450, 600, 730}),  # the first at or after 200, 400, 600; none has passed 800
        (2, 500, {600, 730}),
        (9, 0, {90, 190, 210, 390, 450, 600, 730}),
    ],
)
def test_which_checkpoints_stay(tmp_path, last, every, expected):
    images = [90, 190, 210, 390, 450, 600, 730]
    assert kept(dict.fromkeys(images), last, every) == expected
    scores = dict(zip(images, [3.0, 1.0, 2.0, 1.0, None, 4.0, 5.0], strict=True))
    assert kept(scores, last, every) == expected | {190}
    checkpoints = Checkpoints(tmp_path, last, every)
    for n, score in scores.items():  # one after the other is the same as all at once
        checkpoints.save(n, small(n), score=score)
        checkpoints.wait()
        assert newest(tmp_path) == (n, [])
    assert {int(name.removesuffix(".pt")) for name in names(tmp_path)} == expected | {190}


def test_a_score_that_is_not_finite_is_none(tmp_path):
    checkpoints = filled(tmp_path)
    for n, score in ((1, float("nan")), (2, 8.0), (3, float("-inf")), (4, 9.0), (5, None)):
        checkpoints.save(n, small(n), score=score)
    checkpoints.wait()
    assert [verify(path).score for path in sorted(checkpoints.path.iterdir())] == [8.0, 9.0, None]


def test_damaged_checkpoints_do_not_count_and_go(tmp_path):
    """A run goes on from 100 when those after it are damaged: its next save must not drive 100 out for them."""
    checkpoints = filled(tmp_path, 100, 200, 300, keep_last=3)
    cut(checkpoints.path / "000000000200.pt")
    empty(checkpoints.path / "000000000300.pt")
    checkpoints = Checkpoints(tmp_path, keep_last=2)
    assert checkpoints.newest(lambda said: None).images == 100
    checkpoints.save(150, small(150))
    checkpoints.wait()
    assert names(tmp_path) == ["000000000100.pt", "000000000150.pt"]
    cut(checkpoints.path / "000000000150.pt")
    checkpoints.newest(lambda said: None)
    checkpoints.save(150, small(150))
    checkpoints.wait()
    assert newest(tmp_path) == (150, [])


def test_what_a_killed_process_left_is_removed(tmp_path):
    checkpoints = filled(tmp_path, 100)
    (checkpoints.path / ".000000000150.pt.abcd.pt").write_bytes(b"half")
    (checkpoints.path / ".000000000150.partial").mkdir()  # of version 0.1
    (checkpoints.path / ".000000000150.partial" / "denoiser.pt").write_bytes(b"half")
    assert newest(tmp_path) == (100, [])
    checkpoints.save(200, small(200))
    checkpoints.wait()
    assert names(tmp_path) == ["000000000100.pt", "000000000200.pt"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"trainer": {"a": [1, Path("x")]}}, r"parts: trainer\.a\.1 is a PosixPath; expected tensors"),
        ({"trainer": {"a": {(1, 2): 3}}}, r"parts: trainer\.a has the key \(1, 2\)"),
        ({"trainer": {"a": Counter("x")}}, r"parts: trainer\.a is a Counter"),
    ],
)
def test_what_could_not_be_read_back_is_refused(tmp_path, parts, message):
    checkpoints = filled(tmp_path, 100)
    with pytest.raises(ValueError, match=message):
        checkpoints.save(200, parts)
    assert names(tmp_path) == ["000000000100.pt"]


def test_options_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="keep_last: expected an integer of at least 1, got 0"):
        Checkpoints(tmp_path, keep_last=0)
    with pytest.raises(ValueError, match="keep_every_images: expected an integer of at least 0, got -1"):
        Checkpoints(tmp_path, keep_every_images=-1)
    with pytest.raises(ValueError, match="images: expected an integer of at least 0, got -5"):
        Checkpoints(tmp_path).save(-5, {})
