"""Who may ask, and how much: the checks before any request is answered."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST, SLOWEST = 2**17, 20.0
"""The bytes of a request, and the seconds in which its body has to arrive."""

COOKIE = "diffspace-token"
_LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII)
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class BodyError(Exception):
    """The body of a request is beyond a limit; `status` is that of the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _too_large() -> BodyError:
    return BodyError(413, f"the request is larger than {LARGEST:,} bytes")


class Guard:
    """Refuses requests of other sites, by other names, without the token, and larger than a limit.

    Without a token the server is on this machine alone: the name in `Host` must then be that of this machine, so that
    no page elsewhere reaches it by a name of its own that points here (DNS rebinding). With a token, each request must
    have it, in the address or in the cookie that the page sets from it.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return  # there are no websockets
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status, reason = self._refusal(scope, headers)
        if status:
            await _refuse(send, status, reason)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, with the headers of every answer; BodyError for a body beyond a limit."""
        received, until = 0, asyncio.get_running_loop().time() + SLOWEST
        complete = False

        async def bounded() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()  # which waits until the client goes
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise BodyError(408, f"the request did not arrive within {SLOWEST:g} s") from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > LARGEST:
                raise _too_large()
            return message

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_encoded(_HEADERS), *self._cookie(scope)]
            await send(message)

        await self.app(scope, bounded, protected)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str]:
        """The status and the reason, 0 for a request that is allowed."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.token is None and not _LOCAL.fullmatch(host):
            return 421, "the explorer is served to this machine alone, as 127.0.0.1 or localhost"
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests from other sites are refused"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "requests from other sites are refused"
        if self.token is not None and not self._knows(scope, headers):
            return 401, "the address needs the token that `diffspace explore` has printed: ?token=…"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "expected GET or POST"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 12:
            return 400, "content-length: expected a number"
        if int(length) > LARGEST:
            return _too_large().status, str(_too_large())
        if scope["method"] == "POST" and headers.get("content-type", "").partition(";")[0] != "application/json":
            return 415, "content-type: expected application/json"
        return 0, ""

    def _knows(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        """Whether the address or the cookie has the token."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if COOKIE in cookies:
            given.append(cookies[COOKIE].value)
        return any(hmac.compare_digest(each.encode(), (self.token or "").encode()) for each in given)

    def _cookie(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """The cookie of an address that has the token."""
        if self.token is None or b"token=" not in scope["query_string"]:
            return []
        return [(b"set-cookie", f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/".encode())]


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}, ensure_ascii=False).encode()
    headers = _encoded({"content-type": "application/json", "content-length": str(len(body)), **_HEADERS})
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
