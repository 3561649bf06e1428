"""Checkpoints under faults: at whatever point a save dies, the newest whole one is the old or the new."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from kill_saves import equal, state

import diffspace.train.checkpoint as module
from diffspace.train.checkpoint import Checkpoints, kept, verify

SUPPORT = Path(__file__).parents[1] / "support"


def small(images):
    """A state in three parts, a function of its argument."""
    weights = {"weight": torch.arange(6.0).reshape(2, 3) * (images + 1), "bias": torch.full((2,), float(images))}
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"betas": (0.9, 0.999), "params": [0]}]}
    return {"denoiser": weights, "optimizer": optimizer, "trainer": {"images": images, "name": None, "on": True}}


def filled(folder, *images, **options):
    checkpoints = Checkpoints(folder, asynchronous=False, **options)
    for n in images:
        checkpoints.save(n, small(n))
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
    assert names(tmp_path) == ["000000000064"]
    folder = tmp_path / "checkpoints" / "000000000064"
    assert {path.name for path in folder.iterdir()} == {"denoiser.pt", "optimizer.pt", "trainer.pt", "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"]["trainer.pt"]["bytes"] == (folder / "trainer.pt").stat().st_size
    assert manifest["torch"] == torch.__version__


def test_a_model_and_its_optimizer_come_back(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    adam = torch.optim.Adam(network.parameters())
    network(torch.randn(8, 3)).sum().backward()
    adam.step()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(8, {"denoiser": network.state_dict(), "optimizer": adam.state_dict()})
    read = checkpoints.newest().read()
    checkpoints.close()
    assert equal(read["denoiser"], dict(network.state_dict()))
    other = torch.optim.Adam(network.parameters())
    other.load_state_dict(read["optimizer"])
    assert equal(other.state_dict(), adam.state_dict())


@pytest.mark.parametrize("name", ["denoiser.pt", "optimizer.pt", "trainer.pt", "manifest.json"])
def test_a_flipped_bit_anywhere_is_found(tmp_path, name):
    filled(tmp_path, 100, 200)
    file = tmp_path / "checkpoints" / "000000000200" / name
    content = file.read_bytes()
    for position in {*range(0, len(content), 97), len(content) - 1}:
        file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(ValueError, match=f"000000000200/{name}: is not what was written"):
            verify(file.parent)
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


@pytest.mark.parametrize("name", ["denoiser.pt", "optimizer.pt", "manifest.json"])
@pytest.mark.parametrize("harm", [os.remove, cut, lengthen, empty])
def test_a_damaged_file_is_named_and_its_checkpoint_passed_over(tmp_path, name, harm):
    filled(tmp_path, 100, 200, 300, keep_last=3)
    harm(tmp_path / "checkpoints" / "000000000300" / name)
    harm(tmp_path / "checkpoints" / "000000000200" / name)
    images, said = newest(tmp_path)
    assert images == 100
    assert [f"{n}/{name}" in line for n, line in zip((300, 200), said, strict=True)] == [True, True]
    assert ("is missing" in said[0]) == (harm is os.remove)


def test_a_checkpoint_in_anothers_place_or_of_a_later_format_is_passed_over(tmp_path):
    filled(tmp_path, 100, 200)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "000000000200", folder / "000000000300")
    assert "manifest.json: is of 200 images" in newest(tmp_path)[1][0]
    manifest = json.loads((folder / "000000000200" / "manifest.json").read_text())
    later = module.manifest_text({**{k: v for k, v in manifest.items() if k != "sha256"}, "images": 300, "format": 2})
    (folder / "000000000300" / "manifest.json").write_bytes(later)
    assert "has format 2; this diffspace knows 1" in newest(tmp_path)[1][0]


def test_if_none_is_whole_all_reasons_are_given(tmp_path):
    with pytest.raises(ValueError, match="there is none in"):
        Checkpoints(tmp_path).newest()
    filled(tmp_path, 100, 200)
    os.remove(tmp_path / "checkpoints" / "000000000100" / "optimizer.pt")
    cut(tmp_path / "checkpoints" / "000000000200" / "denoiser.pt")
    with pytest.raises(ValueError, match=r"200/denoiser.pt: has .* bytes where .*100/optimizer.pt: is missing"):
        Checkpoints(tmp_path).newest(lambda said: None)


def test_no_code_is_run(tmp_path):
    filled(tmp_path, 100)
    file = tmp_path / "checkpoints" / "000000000100" / "trainer.pt"
    torch.save({"trap": Path("x")}, file)
    manifest = json.loads((file.parent / "manifest.json").read_text())
    manifest.pop("sha256")
    content = file.read_bytes()
    manifest["files"]["trainer.pt"] = {"bytes": len(content), "sha256": module.hashlib.sha256(content).hexdigest()}
    (file.parent / "manifest.json").write_bytes(module.manifest_text(manifest))
    with pytest.raises(ValueError, match=r"trainer\.pt"):
        verify(file.parent).read()


class Died(BaseException):
    """The process is no more: nothing that changes the disk happens after it."""


SYSTEM = [(os, "fsync"), (os, "rename"), (os, "mkdir"), (shutil, "rmtree"), (torch, "save")]


def break_at(monkeypatch, k, error):
    """The k-th call that changes the disk fails with `error`, in the middle of what it writes or removes.

    An OSError is a fault of that call alone; after `Died` all calls fail. The number of calls is counted.
    """
    calls = [0]

    def breaking(name, function):
        def call(*args, **options):
            calls[0] += 1
            if calls[0] == k or (calls[0] > k and error is Died):
                if name == "save" and calls[0] == k:
                    args[1].write(b"half of a file")
                if name == "rmtree" and error is Died and calls[0] == k:
                    next(iter(args[0].iterdir())).unlink()
                if error is Died:
                    raise Died
                if not options.get("ignore_errors"):
                    raise error(errno.EIO, f"{name} failed")
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
            filled(folder).save(before[-1], OLD)  # whose loss can be told from a replacement
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
            assert "rmtree" in str(failure.__cause__) or not list(folder.glob("checkpoints/.*"))

        filled(folder, saved, 400, keep_last=1)  # the next saves are not hindered by what is left
        assert newest(folder) == (400, [])
        assert names(folder) == ["000000000400"]
    assert k > 10
    assert seen == {"new", "old" if before else "none"}


def test_all_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, rename, sync = [], os.rename, os.fsync
    before = {}

    def note(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def renaming(source, target):
        before[target] = list(synced)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", renaming)
    target = filled(tmp_path, 100).path / "000000000100"
    assert {path.stat().st_ino for path in (target, *target.iterdir(), tmp_path)} == set(before[target])
    assert synced[len(before[target]) :] == [target.parent.stat().st_ino]


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_file_that_may_not_grow_leaves_the_previous_checkpoint_and_says_so(tmp_path, asynchronous):
    import resource

    filled(tmp_path, 100)
    checkpoints = Checkpoints(tmp_path, asynchronous=asynchronous)
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
        f"checkpoint: {folder}/000000000200, of 1.6 MB, could not be written: File too large; "
        f"{folder}/000000000100 is whole"
    )
    assert names(tmp_path) == ["000000000100"]
    checkpoints.save(200, small(200))
    assert checkpoints.newest(pytest.fail).images == 200
    checkpoints.close()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting wants root")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(tmp_path, asynchronous):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        checkpoints = Checkpoints(tmp_path, asynchronous=asynchronous)
        checkpoints.save(100, state(100))
        checkpoints.save(200, state(200))
        with pytest.raises(OSError, match=r"No space left on device; .*200 is whole"):  # noqa: PT012
            checkpoints.save(300, state(300))
            checkpoints.wait()
        assert names(tmp_path) == ["000000000100", "000000000200"]
        shutil.rmtree(checkpoints.path / "000000000100")
        checkpoints.save(300, state(300))
        found = checkpoints.newest(pytest.fail)
        assert equal(found.read(), state(300))
        checkpoints.close()
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
            with pytest.raises(OSError, match=r"300, of .* could not be written: Permission denied; .*100 is whole"):
                checkpoints.save(300, small(300))
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
    assert counts["half_written"] > 2  # or the kills never hit a save


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("options", [[], ["--sync"]])
def test_killed_very_often_in_the_middle_of_saving(tmp_path, options):
    counts = kill(tmp_path, 300, *options)
    assert counts["half_written"] > 30
    assert counts["half_replaced"] > 0


def held_writer(monkeypatch):
    """A writer that waits for the event before it writes."""
    go, save = threading.Event(), torch.save

    def held(*args, **options):
        assert go.wait(60)
        save(*args, **options)

    monkeypatch.setattr(torch, "save", held)
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
    assert not (tmp_path / "checkpoints" / "000000000100").exists()
    go.set()
    assert equal(checkpoints.newest().read(), expected)
    checkpoints.close()


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
    checkpoints.close()
    assert newest(tmp_path) == (200, [])
    assert names(tmp_path) == ["000000000100", "000000000200"]


def test_an_error_of_the_writer_comes_with_the_next_call_and_once(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(100, small(100))
    checkpoints.wait()
    for call in (checkpoints.wait, lambda: checkpoints.save(300, small(300)), checkpoints.newest):
        with monkeypatch.context() as patched:
            break_at(patched, 4, OSError)
            checkpoints.save(200, small(200))
            with pytest.raises(OSError, match=r"200, of 0.0 MB, could not be written: .* failed; .*100 is whole"):
                call()
    checkpoints.wait()
    checkpoints.save(300, small(300))
    checkpoints.close()
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
    checkpoints = Checkpoints(tmp_path, last, every, asynchronous=False)
    for n, score in scores.items():  # one after the other is the same as all at once
        checkpoints.save(n, small(n), score=score)
        assert newest(tmp_path) == (n, [])
    assert {int(name) for name in names(tmp_path)} == expected | {190}


def test_a_score_that_is_not_finite_is_none(tmp_path):
    checkpoints = filled(tmp_path)
    for n, score in ((1, float("nan")), (2, 8.0), (3, float("-inf")), (4, 9.0), (5, None)):
        checkpoints.save(n, small(n), score=score)
    assert [verify(path).score for path in sorted(checkpoints.path.iterdir())] == [8.0, 9.0, None]


def test_damaged_checkpoints_do_not_count_and_go(tmp_path):
    """A run goes on from 100 when those after it are damaged: its next save must not drive 100 out for them."""
    checkpoints = filled(tmp_path, 100, 200, 300, keep_last=3)
    cut(checkpoints.path / "000000000200" / "denoiser.pt")
    cut(checkpoints.path / "000000000300" / "manifest.json")
    checkpoints = Checkpoints(tmp_path, keep_last=2, asynchronous=False)
    assert checkpoints.newest(lambda said: None).images == 100
    checkpoints.save(150, small(150))
    assert names(tmp_path) == ["000000000100", "000000000150"]
    cut(checkpoints.path / "000000000150" / "denoiser.pt")
    checkpoints.newest(lambda said: None)
    checkpoints.save(150, small(150))
    assert newest(tmp_path) == (150, [])


def test_a_replacement_that_was_damaged_before_it_took_the_place_does_not(tmp_path):
    checkpoints = filled(tmp_path, 100)
    new = checkpoints.path / "000000000100.new"
    shutil.copytree(checkpoints.path / "000000000100", new)
    cut(new / "denoiser.pt")
    assert checkpoints.newest(lambda said: None).path.name == "000000000100"
    checkpoints.save(200, small(200))
    assert names(tmp_path) == ["000000000100", "000000000200"]
    assert verify(checkpoints.path / "000000000100").images == 100


def test_what_a_killed_process_left_is_removed(tmp_path):
    checkpoints = filled(tmp_path, 100)
    (checkpoints.path / ".000000000150.partial").mkdir()
    (checkpoints.path / ".000000000150.partial" / "denoiser.pt").write_bytes(b"half")
    assert newest(tmp_path) == (100, [])
    checkpoints.save(200, small(200))
    assert names(tmp_path) == ["000000000100", "000000000200"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"trainer": {"a": [1, Path("x")]}}, r"parts: trainer\.a\.1 is a PosixPath; expected tensors"),
        ({"trainer": {"a": {(1, 2): 3}}}, r"parts: trainer\.a has the key \(1, 2\)"),
        ({"trainer": 3}, "parts: trainer is a int; expected a dict"),
        ({"../trainer": {}}, r"parts: expected names of letters, .*, got '\.\./trainer'"),
    ],
)
def test_what_could_not_be_read_back_is_refused(tmp_path, parts, message):
    checkpoints = filled(tmp_path, 100)
    with pytest.raises(ValueError, match=message):
        checkpoints.save(200, parts)
    assert names(tmp_path) == ["000000000100"]


def test_options_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="keep_last: expected an integer of at least 1, got 0"):
        Checkpoints(tmp_path, keep_last=0)
    with pytest.raises(ValueError, match="keep_every_images: expected an integer of at least 0, got -1"):
        Checkpoints(tmp_path, keep_every_images=-1)
    with pytest.raises(ValueError, match="images: expected an integer of at least 0, got -5"):
        Checkpoints(tmp_path).save(-5, {})
