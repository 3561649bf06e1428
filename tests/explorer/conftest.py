"""A server of the explorer for all tests of a process, and a page of it in headless Chromium."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("plotly")

import uvicorn

from diffspace.explorer import create_app

CHROMIUM = next(filter(None, (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.slow)  # `make test-browser` runs them


class Server:
    """uvicorn in a thread, on a port of its own."""

    def __init__(self, **options: Any) -> None:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(create_app(**options), log_level="error", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self.thread.start()
        until = time.monotonic() + 20
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.01)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)

    def send(self, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str = "") -> Answer:
        """A request, with `body` as JSON or bytes, and its answer whatever the status is."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        known = {"content-type": "application/json"} if data is not None else {}
        request = urllib.request.Request(
            self.address + path, data, known | (headers or {}), method=method or ("GET" if data is None else "POST")
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Answer(response.status, response.read(), dict(response.headers))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read(), dict(error.headers))

    def picture(self, name: str, settings: dict[str, Any], place: str = "test") -> Answer:
        return self.send(f"/api/picture/{name}", {"place": place, "settings": settings})


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; without one the tests are skipped, or fail where DIFFSPACE_BROWSER=required."""
    required = os.environ.get("DIFFSPACE_BROWSER") == "required"
    if CHROMIUM is None and not required:
        pytest.skip("there is no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield launched
        launched.close()


class Page:
    """A page of the explorer: it is driven by its controls, and read by the numbers behind its pictures."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        # a refused setting is an answer with a status of its own, which the browser reports too
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def open(self, state: str = "", drawn: bool = True) -> Page:
        """Open a link, and wait for its picture unless it has none."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/{state}")
        return self.drawn() if drawn else self

    def until(self, condition: str, seconds: float = 30) -> Any:
        """Wait for a condition, and return it; polled from outside, since the page's policy forbids eval."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.page.evaluate(condition):
                return found
            time.sleep(0.02)
        raise TimeoutError(f"{condition} did not become true within {seconds} s; faults: {self.faults}")

    def drawn(self, seconds: float = 60) -> Page:
        """Wait until the picture is of what the controls say."""
        self.until("Boolean(window.explorer?.room?.().drawn)", seconds)
        return self

    def set(self, **changes: Any) -> Page:
        """Change the state as a control would; keys with dots have two underscores instead."""
        given = {key.replace("__", "."): value for key, value in changes.items()}
        self.page.evaluate("(changes) => window.explorer.state.set(changes)", given)
        return self.drawn()

    def get(self, key: str) -> Any:
        return self.page.evaluate("(key) => window.explorer.state.get(key)", key)

    def number(self, expression: str) -> Any:
        """A value of the numbers `n` behind the pictures of the room."""
        read = f"(() => {{ const n = window.explorer.room().numbers; return {expression}; }})()"
        return self.page.evaluate(read)

    def control(self, key: str) -> Any:
        """The control of a key that is shown."""
        return self.page.locator(f'.control[data-key="{key}"]:visible').first

    def type(self, key: str, value: str) -> Page:
        """Type a value into the control of a key, as a user does."""
        box = self.control(key).locator("input:not([type=range])").first
        box.fill(value)
        box.press("Tab")
        return self

    def wrong(self, key: str) -> str:
        """The message at the control of a key."""
        return self.control(key).locator(".wrong").inner_text()

    @property
    def link(self) -> str:
        """The address of the state, without that of the server."""
        return self.page.evaluate("window.explorer.state.address()")


@pytest.fixture
def page(browser, server) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
    opened = Page(context.new_page(), server.address)
    yield opened
    faults = list(opened.faults)
    context.close()
    assert not faults
