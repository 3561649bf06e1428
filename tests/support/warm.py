"""Runs Python code and `diffspace` in processes forked from one that has imported torch and diffspace.

An import costs seconds, and the tests start hundreds of processes. `python warm.py FOLDER` serves on
FOLDER/socket and writes the command FOLDER/bin/diffspace, which takes `-c CODE` as Python does; its processes have the
standard streams, the folder and the environment of their caller.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

MODULES = (
    *("torch", "torch.distributed.fsdp", "sklearn.datasets", "matplotlib.figure"),
    *("diffspace.cli.app", "diffspace.figures", "diffspace.train"),
)
COMMAND = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    status = server.recv(1)
sys.exit(status[0] if status else "the process ended without a status")
"""


@contextlib.contextmanager
def commands(folder: Path) -> Iterator[Path]:
    """The folder with the command, whose server ends with the context."""
    server = subprocess.Popen([sys.executable, __file__, str(folder)])
    try:
        while not (folder / "bin").exists():
            assert server.poll() is None, "the server did not start"
            time.sleep(0.05)
        yield folder / "bin"
    finally:
        server.kill()
        server.wait()


def serve(folder: Path) -> None:
    import diffspace
    from diffspace import cli

    cli.limit_spinning()
    for module in MODULES:
        importlib.import_module(module)
    for name in dir(diffspace):
        getattr(diffspace, name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes here
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        started = folder / "starting"
        started.mkdir()
        (started / "diffspace").write_text(COMMAND.format(python=sys.executable, address=str(folder / "socket")))
        (started / "diffspace").chmod(0o755)
        started.rename(folder / "bin")
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                status = 1
                try:
                    status = _run(caller)
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    caller.sendall(bytes([status & 255]))
                    os._exit(status)
            caller.close()


def _run(caller: socket.socket) -> int:
    """Run what a caller asks for in its place; returns the exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(caller, 4, 3)
    arguments, folder, environment = json.loads(caller.makefile("rb").read(int.from_bytes(size, "big")))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = arguments
    try:
        if arguments[1:2] == ["-c"]:
            sys.path[0] = ""
            sys.argv = ["-c", *arguments[3:]]
            exec(compile(arguments[2], "<block>", "exec"), {"__name__": "__main__"})
        else:
            from diffspace.cli import main

            sys.exit(main())
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    return 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
