"""The server of the page: its files, and the pictures that it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from diffspace import __version__
from diffspace.checks import first_line, is_out_of_memory, nearest, one_line
from diffspace.config import build
from diffspace.explorer.encoding import decode, encode
from diffspace.explorer.guard import BodyError, Guard
from diffspace.explorer.jobs import BusyError, Job, Jobs, SupersededError
from diffspace.explorer.model_room import ModelRoom
from diffspace.explorer.model_settings import METHODS, Between, Draw, One, Paint
from diffspace.explorer.models import Offered
from diffspace.explorer.process_room import ProcessSettings, process_picture
from diffspace.explorer.sampler_room import fit_picture, front_picture, sampler_picture
from diffspace.explorer.sampler_settings import SOLVERS, FitSettings, FrontSettings, SamplerSettings
from diffspace.explorer.training_room import Exact, curves_picture, exact_picture, training_picture
from diffspace.explorer.training_settings import Design, Training

_STATIC = Path(__file__).parent / "static"
_PLACE = 100  # characters of the name of a place
_LONGEST = 600  # of a message, which may show a value of any size


class Picture(NamedTuple):
    """A picture by its settings, computed in the threads for quick or for slow jobs."""

    settings: type
    make: Callable[[Any, Job], Any]
    pool: str = "quick"


PICTURES: Mapping[str, Picture] = {
    "process": Picture(ProcessSettings, process_picture),
    "sampler": Picture(SamplerSettings, sampler_picture),
    "front": Picture(FrontSettings, front_picture),
    "fit": Picture(FitSettings, fit_picture, "slow"),
    "curves": Picture(Design, curves_picture),
    "exact": Picture(Exact, exact_picture),
    "training": Picture(Training, training_picture, "slow"),
}


class _Wanted(NamedTuple):
    """A request, checked: where on which page the picture is, and what computes it."""

    place: str
    pool: str
    compute: Callable[[Job], Any]


def _of_models(room: ModelRoom) -> dict[str, Picture]:
    return {
        "model-samples": Picture(Draw, room.samples, "slow"),
        "model-way": Picture(One, room.way, "slow"),
        "model-solvers": Picture(One, room.solvers, "slow"),
        "model-between": Picture(Between, room.between, "slow"),
        "model-paint": Picture(Paint, room.paint, "slow"),
    }


def create_app(models: Mapping[str, Offered] | None = None, *, token: str | None = None) -> Starlette:
    """The application, for any ASGI server.

    Args:
        models: trained models by the names that the page shows (`Offered.of`). Without any, the room of models has the
            exact denoiser of the bundled digits.
        token: what every request must have; None for a server that this machine alone can reach.
    """
    jobs, room = Jobs(), ModelRoom(models)
    known = {**PICTURES, **_of_models(room)}

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        jobs.close()

    async def about(request: Request) -> Response:
        return _json({"version": __version__, "models": room.describe(), "methods": METHODS, "solvers": SOLVERS})

    async def picture(request: Request) -> Response:
        try:
            wanted = await _parse(request, known)
            return _json(await jobs.run(*wanted))
        except Exception as error:
            return _failure(error)

    async def stream(request: Request) -> Response:
        try:
            wanted = await _parse(request, known)
        except Exception as error:
            return _failure(error)
        return StreamingResponse(_lines(jobs, wanted), media_type="application/x-ndjson")

    routes = [
        Route("/", _file(_STATIC / "index.html", "no-cache")),
        Route("/plotly.js", _file(_plotly(), "max-age=86400")),
        Route("/api/about", about),
        Route("/api/picture/{name}", picture, methods=["POST"]),
        Route("/api/stream/{name}", stream, methods=["POST"]),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token)], lifespan=lifespan)


def _file(path: Path, cache: str) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        return FileResponse(path, headers={"cache-control": cache})

    return respond


def _plotly() -> Path:
    """The plotly.js that the package plotly brings, found without importing it, which takes a second."""
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("the explorer needs plotly: pip install 'diffspace[explore]'")
    return Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"


async def _parse(request: Request, known: Mapping[str, Picture]) -> _Wanted:
    """The body {"place": …, "settings": {…}} of a request for a picture; ValueError for a wrong one."""
    name = request.path_params["name"]
    if name not in known:
        raise ValueError(f"picture: {name[:60]!r} is unknown; {nearest(name[:60], known)}")
    body = await request.body()
    content = await asyncio.to_thread(decode, body) if len(body) > 2**14 else decode(body)
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise ValueError('the request: expected {"place": "…", "settings": {…}}')
    place = str(content.get("place", ""))[:_PLACE]
    chosen = known[name]
    settings = build(chosen.settings, content["settings"])
    return _Wanted(f"{place}/{name}", chosen.pool, partial(chosen.make, settings))


async def _lines(jobs: Jobs, wanted: _Wanted) -> AsyncIterator[bytes]:
    """What a job tells, then its result or its failure, each as a line of JSON; the job ends when the page goes."""
    events: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(jobs.run(*wanted, send=events.put_nowait))
    task.add_done_callback(lambda done: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield encode(event) + b"\n"
        try:
            yield encode({"result": task.result()}) + b"\n"
        except Exception as error:
            yield encode(_reason(error)[1]) + b"\n"
    finally:
        task.cancel()


def _json(content: Any, status: int = 200) -> Response:
    return Response(encode(content), status, media_type="application/json", headers={"cache-control": "no-store"})


def _failure(error: Exception) -> Response:
    status, content = _reason(error)
    return _json(content, status)


def _reason(error: Exception) -> tuple[int, dict[str, str]]:
    """The status and the message of a failure; a fault of the program is in the server's log too."""
    if isinstance(error, ClientDisconnect):
        return 400, {"error": "the request ended before its body"}
    if isinstance(error, SupersededError):
        return 409, {"superseded": "something newer was asked for"}
    if isinstance(error, BodyError):
        return error.status, {"error": str(error)}
    if isinstance(error, BusyError | TimeoutError):
        return 503, {"error": str(error)}
    if is_out_of_memory(error):
        return 507, {"error": "there is not enough memory for this; choose less of it"}
    if isinstance(error, ValueError | ArithmeticError | OSError | RecursionError):
        line = one_line(error)
        return 422, {"error": line if len(line) <= _LONGEST else line[:_LONGEST] + " …"}
    logging.getLogger("uvicorn.error").error("a fault of diffspace", exc_info=error)
    return 500, {"error": f"a fault of diffspace: {type(error).__name__}: {first_line(error)}"}
