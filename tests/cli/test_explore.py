"""`diffspace explore`: the command around the server, which tests/explorer tests."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from diffspace.cli.app import main


def test_the_page_is_served_until_ctrl_c():
    command = [
        sys.executable,
        "-c",
        "from diffspace.cli import main; raise SystemExit(main())",
        "explore",
        "--no-browser",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        for _ in range(100):
            try:
                with urllib.request.urlopen(address + "api/about", timeout=5) as answer:
                    about = json.load(answer)
                break
            except OSError:
                time.sleep(0.05)
        assert [model["exact"] for model in about["models"]] == [True]  # none was given
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.CTRL_C_EVENT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere"),
        (["--port", "0"], "--port: expected an integer from 1 to 65535, got 0"),
        (["--port", "99999"], "--port: expected an integer from 1 to 65535, got 99999"),
        (["--host", "999.1.1.1"], "--host: 999.1.1.1 is not an address of this machine"),
        (["--host", "203.0.113.7"], "--host: 203.0.113.7 is not an address of this machine"),
        (["--token", "abcd"], "--token: has no effect on a page that this machine alone can reach"),
        (["--host", "0.0.0.0", "--token", "a b"], "--token: expected 4 to 100 letters"),
    ],
)
def test_a_wrong_request_is_one_line(capsys, words, message):
    assert main(["explore", "--no-browser", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_port_in_use_is_named(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["explore", "--no-browser", "--port", str(port)]) == 2
    assert f"--port: {port} is in use; choose another" in capsys.readouterr().err


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["explore", "--no-browser"]) == 2
    assert "explore: needs uvicorn; pip install 'diffspace[explore]'" in capsys.readouterr().err
