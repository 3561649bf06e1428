"""What the server refuses, what it survives, and what it sends."""

from __future__ import annotations

import base64
import contextlib
import gc
import http.client
import json
import math
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from diffspace.explorer import guard
from diffspace.explorer.encoding import decode, encode
from diffspace.explorer.guard import LARGEST
from diffspace.explorer.jobs import BusyError, Jobs, SupersededError

from .conftest import Server


def test_tensors_keep_every_bit():
    x = torch.randn(3, 2, dtype=torch.float64)
    sent = json.loads(encode({"x": x, "y": x.float(), "z": [math.inf, 1, None], "w": torch.arange(3).to(torch.uint8)}))
    assert sent["x"]["shape"] == [3, 2]
    assert base64.b64decode(sent["x"]["f8"]) == x.numpy().tobytes()
    assert base64.b64decode(sent["y"]["f4"]) == x.float().numpy().tobytes()
    assert base64.b64decode(sent["w"]["u1"]) == bytes([0, 1, 2])
    assert sent["z"] == [None, 1, None]


@pytest.mark.parametrize("body", [b"", b"{", b"[NaN]", b'{"a": Infinity}', b"[" * 100_000, b"\xff\xfe"])
def test_what_is_not_json_is_refused(body):
    with pytest.raises(ValueError, match="the request"):
        decode(body)


def test_the_page_its_files_and_plotly_are_served(server):
    page = server.send("/")
    assert page.status == 200
    assert b"<title>diffspace explorer</title>" in page.body
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert len(server.send("/plotly.js").body) > 10**6
    assert server.send("/static/main.js").headers["content-type"].startswith("text/javascript")
    assert set(server.send("/api/about").json) >= {"version", "models", "solvers"}


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/etc/passwd",
        "/static",
    ],
)
def test_nothing_else_is_served(server, path):
    assert server.send(path).status in (404, 405)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:80"}, 421),
        ({"host": "[::1].evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_requests_of_other_sites_are_refused(server, headers, status):
    answer = server.send("/api/picture/process", {"settings": {}}, headers)
    assert answer.status == status
    assert answer.error


def test_a_page_of_this_server_may_ask(server):
    own = {"origin": server.address, "sec-fetch-site": "same-origin"}
    assert server.send("/api/picture/process", {"settings": {}}, own).status == 200
    local = {"host": f"localhost:{server.port}", "origin": f"http://localhost:{server.port}"}
    assert server.send("/api/picture/process", {"settings": {}}, local).status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(server, method):
    assert server.send("/api/about", method=method).status == 405


def test_beyond_this_machine_every_request_needs_the_token():
    server = Server(token="secret")
    try:
        assert server.send("/").status == 401
        assert server.send("/?token=wrong").status == 401
        assert server.send("/api/picture/process", {"settings": {}}, {"cookie": "diffspace-token=wrong"}).status == 401
        first = server.send("/?token=secret", headers={"host": "lab.example"})
        assert first.status == 200
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        kept = {"cookie": cookie.partition(";")[0], "host": "lab.example"}
        assert server.send("/api/picture/process", {"settings": {}}, kept).status == 200
        assert server.send("/static/main.js", headers=kept).status == 200
    finally:
        server.close()


def test_a_body_that_is_too_large_is_refused(server):
    assert server.send("/api/picture/process", b" " * (LARGEST + 1)).status == 413
    # the same without a length, in pieces
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    pieces = (b" " * 2**16 for _ in range(8))
    headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
    with contextlib.closing(connection):
        try:
            connection.request("POST", "/api/picture/process", pieces, headers, encode_chunked=True)
            with connection.getresponse() as response:
                status = response.status
        except (ConnectionError, http.client.HTTPException):  # closed while it was sent
            status = 413
    assert status == 413
    assert server.send("/api/about").status == 200


def test_a_body_that_does_not_arrive_is_given_up(server, monkeypatch):
    monkeypatch.setattr(guard, "SLOWEST", 0.5)
    head = "POST /api/picture/process HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode() + b'content-length: 9\r\n\r\n{"a"')
        answer = b"".join(iter(partial(connection.recv, 2**16), b""))  # the server closes the connection too
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.5 s" in answer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lines": 10**9}, "lines: expected an integer from 2 to 120, got 1000000000"),
        ({"lines": "many"}, "lines: expected an integer, got 'many'"),
        ({"lines": True}, "lines: expected an integer, got True"),
        ({"sigma_max": -1}, "sigma_max: expected a number in [0.05, 200]"),
        ({"sigma_max": 1e400}, "not JSON"),
        ({"unknown": 1}, "unknown: there is no such key"),
        ({"data": {"modes": []}}, "data.modes: expected 1 to 24, got 0"),
        ({"data": {"modes": [[1, 0.1, 0.0]] * 25}}, "data.modes: expected 1 to 24, got 25"),
        ({"data": {"modes": [[1, 0.1]]}}, "data.modes: expected rows of 3 numbers"),
        ({"data": {"modes": [[1, 0, 0.0]]}}, "data.modes, std: expected a number in [0.001, 10]"),
        ({"data": {"modes": [[1, 0.1, 0.0], [1, 0.1, 0.0, 0.0]]}}, "data.modes: expected rows"),
        ({"data": {"points": [[0.0]] * 501}}, "data.points: expected 1 to 500, got 501"),
        ({"data": {"points": [[1e9, 0.0]]}}, "data.points: expected a number in [-100, 100]"),
        ({"noising": {"name": "../../etc/passwd"}}, "noising.name: expected 'EDM' or"),
        ({"noising": {"name": "formula", "sigma": "__import__('os').system('id')"}}, "noising.sigma: unexpected '_'"),
        ({"noising": {"name": "formula", "sigma": "t" * 501}}, "expected at most 500 characters"),
        ({"noising": {"name": "formula", "sigma": "(" * 200 + "t" + ")" * 200}}, "more than 40 levels of nesting"),
        ({"noising": {"name": "formula", "sigma": "9^9^9^9^9^9"}}, "sigma: expected"),
        ({"noising": {"name": "formula", "sigma": "t^t^t^t^t^t^t", "t_max": 900}}, "sigma: expected"),
        ({"noising": {"name": "formula", "sigma": "t", "s": "0"}}, "s: expected a positive number"),
        ({"noising": {"name": "formula", "sigma": "t", "t_max": 0}}, "noising.t_max: expected"),
        ({"noising": {"name": "formula", "sigma": 3}}, "noising.sigma: expected text"),
        ({"towards": {"name": "VP"}, "share": 2}, "share: expected a number in [0, 1]"),
    ],
)
def test_a_wrong_setting_is_named(server, settings, message):
    answer = server.picture("process", settings)
    assert answer.status == 422
    assert message in answer.error
    assert len(answer.error) < 700
    assert "\n" not in answer.error


def test_wrong_requests_are_explained(server):
    assert "is unknown; did you mean 'process'" in server.picture("proces", {}).error
    assert server.send("/api/picture/process", {"settings": 1}).status == 422
    assert server.send("/api/picture/process", []).status == 422
    assert server.send("/api/picture/" + "x" * 5000, {"settings": {}}).status in (404, 422)
    huge = {"settings": {"noising": {"name": "formula", "sigma": "t+" * 30_000}}}
    assert "at most 500 characters" in server.send("/api/picture/process", huge).error


def test_a_stream_ends_with_its_result_or_its_error(server):
    lines = server.send("/api/stream/fit", {"settings": {"num_steps": 2}}).body.splitlines()
    *told, result = map(json.loads, lines)
    assert all(0 <= event["done"] <= event["total"] for event in told)
    assert result["result"]["rms"] > 0
    refused = server.send("/api/stream/fit", {"settings": {"num_steps": 100}})
    assert refused.status == 422
    assert "num_steps: expected an integer from 2 to 30" in refused.error


def test_many_requests_at_once_are_answered_or_refused(server):
    def ask(k: int) -> int:
        return server.picture("process", {"lines": 2 + k % 100}, place=f"place-{k}").status

    with ThreadPoolExecutor(100) as pool:
        statuses = list(pool.map(ask, range(200)))
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 60
    assert server.picture("process", {}).status == 200


def test_a_newer_job_of_the_same_place_ends_the_older_one():
    import asyncio

    jobs, ended = Jobs(), threading.Event()

    def long(job):
        try:
            while True:
                job.check()
                time.sleep(0.005)
        finally:
            ended.set()

    async def both():
        older = asyncio.create_task(jobs.run("place", "quick", long))
        await asyncio.sleep(0.1)
        assert await jobs.run("place", "quick", lambda job: 7) == 7
        with pytest.raises(SupersededError):
            await older
        assert await jobs.run("elsewhere", "quick", lambda job: 8) == 8

    asyncio.run(both())
    assert ended.is_set()
    jobs.close()


def test_jobs_end_in_time_and_do_not_pile_up(monkeypatch):
    import asyncio

    from diffspace.explorer import jobs as module

    monkeypatch.setitem(module.SECONDS, "quick", 0.05)
    monkeypatch.setitem(module._WAITING, "quick", 3)
    jobs = Jobs()

    def long(job):
        while True:
            job.check()
            time.sleep(0.002)

    async def too_long():
        with pytest.raises(TimeoutError, match=r"more than 0\.05 s"):
            await jobs.run("a", "quick", long)

    async def too_many():
        tasks = [asyncio.create_task(jobs.run(f"{k}", "quick", long)) for k in range(5)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, BusyError) for result in results) == 2

    asyncio.run(too_long())
    asyncio.run(too_many())
    jobs.close()


def test_a_page_that_goes_ends_its_job():
    import asyncio

    jobs, ended = Jobs(), threading.Event()

    def long(job):
        try:
            while True:
                job.check()
                time.sleep(0.002)
        finally:
            ended.set()

    async def leave():
        task = asyncio.create_task(jobs.run("a", "slow", long, lambda event: None))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert ended.wait(5)
    jobs.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of the process from /proc")
def test_memory_stays_flat(server):
    def resident() -> float:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def ask(k: int) -> None:
        moved = {"modes": [[1, 0.1, 0.001 * k], [1, 0.2, -1.0]]}
        plane = {"modes": [[1, 0.1, 0.001 * k, 0.3], [1, 0.2, -1.0, 0.0]]}
        name = "sampler" if k % 20 == 10 else "process"
        small = {"lines": 2 + k % 10} if name == "process" else {"count": 16, "a": {"num_steps": 2 + k % 9}}
        settings = {"data": plane if k % 20 == 0 else moved} | small
        assert server.picture(name, settings).status == 200

    for k in range(300):
        ask(k)
    before = resident()
    # 2,000 take minutes under pytest, whose shape checks are on: DIFFSPACE_REQUESTS=2000
    more = int(os.environ.get("DIFFSPACE_REQUESTS", "400"))
    for k in range(300, 300 + more):
        ask(k)
    grown = resident() - before
    print(f"memory: {before:.0f} MiB after 300 requests, {grown:+.1f} MiB after {more} more")
    assert grown < 40
