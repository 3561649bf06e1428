"""`diffspace explore`: the page on which the design space is moved by hand."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import diffspace as ds
from diffspace.checks import check_integer
from diffspace.cli.options import Device, Parts

if TYPE_CHECKING:
    from diffspace.explorer.models import Offered

_LOCAL = ("127.0.0.1", "localhost", "::1")
_TRIED = 20  # ports from 8000 on, where none is asked for


def explore_command(
    models: Annotated[
        list[str] | None, Argument(metavar="[MODEL]...", help="Trained models, for the room of models.")
    ] = None,
    port: Annotated[int | None, Option(help="Default: the first free one from 8000 on.", show_default=False)] = None,
    host: Annotated[
        str,
        Option(help="Where to listen. Beyond this machine, as on 0.0.0.0, the page needs the token that is printed."),
    ] = "127.0.0.1",
    token: Annotated[
        str | None, Option(help="The token of a page beyond this machine. Default: a new one.", show_default=False)
    ] = None,
    browser: Annotated[bool, Option("--browser/--no-browser", help="Open the page.")] = True,
    device: Device = None,
    part: Parts = None,
) -> None:
    """Serve a page to see and move the design space: processes, samplers, preconditioning and your models."""
    import importlib.util

    if missing := [name for name in ("starlette", "uvicorn", "plotly") if importlib.util.find_spec(name) is None]:
        raise ValueError(f"explore: needs {', '.join(missing)}; pip install 'diffspace[explore]'")
    if port is not None:
        check_integer("--port", port, 1, 65535)
    import uvicorn

    from diffspace.cli.console import out
    from diffspace.explorer import create_app

    loaded = _load(models or [], device)
    if token is not None and host in _LOCAL:
        raise ValueError("--token: has no effect on a page that this machine alone can reach; add --host 0.0.0.0")
    if token is not None and not re.fullmatch(r"[\w.-]{4,100}", token, re.ASCII):
        raise ValueError(f"--token: expected 4 to 100 letters, digits, '-', '_' and '.', got {token!r}")
    token = None if host in _LOCAL else token or secrets.token_urlsafe(16)
    listening = _listen(host, port)
    app = create_app(loaded, token=token)
    shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host
    address = f"http://{shown}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
    out.print(f"{address}   (Ctrl-C ends it)", soft_wrap=True, highlight=False)
    if browser:
        import webbrowser

        webbrowser.open(address)
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=256, timeout_graceful_shutdown=1)
    with contextlib.closing(listening), contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def _load(sources: list[str], device: str | None) -> dict[str, Offered]:
    """The models by the names of their folders, with the samplers beside them; parents tell those of one name apart."""
    from diffspace.cli.options import load_model
    from diffspace.explorer.models import Offered

    found: dict[str, Offered] = {}
    for source in sources:
        parts = Path(source.removeprefix("hf:")).parts
        name = parts[-1] if parts[-1] not in found else "/".join(parts[-2:])
        if name in found:
            raise ValueError(f"MODEL: {source} is given twice")
        found[name] = Offered.of(load_model(source, device), source, ds.load_samplers(source))
    return found


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens; ValueError where the port is taken or the name is not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in [port] if port is not None else range(8000, 8000 + _TRIED):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, tried))
            return listening
        except OSError as error:
            listening.close()
            if isinstance(error, socket.gaierror) or error.errno == 99:
                raise ValueError(f"--host: {host} is not an address of this machine") from None
            if isinstance(error, PermissionError):
                raise ValueError(
                    f"--port: {tried} needs the rights of the administrator; choose one from 1024 on"
                ) from None
    where = f"{port} is" if port is not None else f"8000 to {8000 + _TRIED - 1} are"
    raise ValueError(f"--port: {where} in use; choose another")
