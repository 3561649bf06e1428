"""The lock of a run's folder, between processes."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from diffspace import locking as lock
from diffspace.locking import FolderLock

posix = pytest.mark.skipif(os.name != "posix", reason="signals and locks of POSIX")

HOLD = """
import os, runpy, sys, time
FolderLock = runpy.run_path(sys.argv[1])["FolderLock"]  # without diffspace, whose import takes seconds
with FolderLock(sys.argv[2]):
    child = os.fork() if sys.argv[3:] == ["fork"] else -1
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def hold(folder, *options):
    """A process that holds the lock, and the id of its child."""
    command = [sys.executable, "-c", HOLD, lock.__file__, str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


@posix
def test_a_second_process_is_told_who_writes_and_a_dead_one_never_blocks(tmp_path):
    process, _ = hold(tmp_path)
    who = f"process {process.pid} on {socket.gethostname()} since "
    with pytest.raises(ValueError, match=f"folder: {tmp_path} is being written by {who}"), FolderLock(tmp_path):
        pass
    end(process)
    assert f'"pid": {process.pid}' in (tmp_path / "run.lock").read_text()
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / "run.lock").read_text() == ""


@posix
def test_a_child_that_outlives_its_parent_does_not_hold_the_lock(tmp_path):
    process, child = hold(tmp_path, "fork")
    with pytest.raises(ValueError, match="is being written"), FolderLock(tmp_path):
        pass
    end(process)
    os.kill(child, 0)  # it lives, and lets go of the lock when it first runs, which on a busy machine may take a while
    deadline = time.monotonic() + 30
    while True:
        try:
            with FolderLock(tmp_path):
                break
        except ValueError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    os.kill(child, signal.SIGKILL)


def test_one_process_does_not_take_it_twice_at_once_but_again(tmp_path):
    with FolderLock(tmp_path):
        with pytest.raises(ValueError, match=f"process {os.getpid()} on"), FolderLock(tmp_path):
            pass
        with pytest.raises(ValueError, match="is being written"), FolderLock(tmp_path):
            pass
    with FolderLock(tmp_path), FolderLock(tempfile.mkdtemp(dir=tmp_path)):
        pass


@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b'{"pid": -1}', b"\xff" * 9000, b"[" * 4000])
def test_content_that_cannot_be_understood_does_not_block(tmp_path, content):
    (tmp_path / "run.lock").write_bytes(content)
    with FolderLock(tmp_path):
        pass


@pytest.fixture(params=["a file system without locks", "a system without locks"])
def without_locks(request, monkeypatch):
    if request.param == "a system without locks":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        import fcntl

        def refuse(descriptor, operation):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)


def owned(folder, pid, host):
    content = {"pid": pid, "host": host, "since": "2026-01-01 00:00:00 +0000"}
    (folder / "run.lock").write_text(json.dumps(content))


@posix
@pytest.mark.usefixtures("without_locks")
def test_without_locks_the_process_id_decides(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    owned(tmp_path, process.pid, socket.gethostname())
    told = pytest.raises(ValueError, match=r"if that process no longer exists, delete .*run\.lock")
    with FolderLock(tmp_path), told, FolderLock(tmp_path):
        pass
    living, _ = hold(tmp_path)
    with pytest.raises(ValueError, match=f"process {living.pid} on"), FolderLock(tmp_path):
        pass
    end(living)
    with FolderLock(tmp_path):
        pass
    owned(tmp_path, process.pid, "elsewhere")
    with pytest.raises(ValueError, match="on elsewhere since 2026-01-01"), FolderLock(tmp_path):
        pass


@posix
def test_without_locks_the_later_of_two_that_found_nobody_stays(tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "none")))
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: owned(tmp_path, os.getppid(), socket.gethostname()))
    with pytest.raises(ValueError, match=f"process {os.getppid()} on"), FolderLock(tmp_path):
        pass
    assert f'"pid": {os.getppid()}' in (tmp_path / "run.lock").read_text()


@posix
def test_a_folder_that_may_not_be_written_is_named():
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        if root := os.geteuid() == 0:
            os.seteuid(65534)
        try:
            with (
                pytest.raises(ValueError, match=f"folder: {name} cannot be written: Permission denied"),
                FolderLock(name),
            ):
                pass
        finally:
            if root:
                os.seteuid(0)
            Path(name).chmod(0o755)
    with pytest.raises(ValueError, match="cannot be written: No such file or directory"), FolderLock(name):
        pass
