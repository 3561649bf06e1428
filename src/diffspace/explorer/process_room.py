"""Room 1: a process σ(t), s(t) on data of one or two dimensions, its flow lines, densities and coefficients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

import diffspace as ds
from diffspace.checks import check_integer, check_number
from diffspace.explorer.jobs import Job
from diffspace.explorer.settings import Choice, Data, exact_flow, exact_flow_python, largest_sigma, rises
from diffspace.process import Process
from diffspace.studies import between, lines_along, lines_under, plane_density
from diffspace.studies.flows import check_process, coefficients

_COLUMNS, _ROWS, _PLANE = 161, 140, 96


@dataclass(frozen=True)
class ProcessSettings:
    """What room 1 shows: σ up to `sigma_max`, on the way to another process by `share`, at `time`, a share of t_max."""

    data: Data = field(default_factory=Data)
    noising: Choice = field(default_factory=Choice)
    towards: Choice | None = None
    share: float = 0.0
    sigma_max: float = 3.0
    lines: int = 25
    time: float = 1.0

    def __post_init__(self) -> None:
        check_number("share", self.share, "[0, 1]")
        check_number("time", self.time, "[0, 1]")
        check_number("sigma_max", self.sigma_max, "[0.05, 200]")
        check_integer("lines", self.lines, 2, 120)

    def build(self) -> tuple[Process, float]:
        """The process and its t_max."""
        process, t_max = self.noising.build(self.sigma_max)
        if self.towards is not None and self.share > 0:
            check_process(process, t_max)
            process, t_max = between(process, t_max, *self.towards.build(self.sigma_max), self.share)
        check_process(process, t_max)
        return process, t_max


def process_picture(settings: ProcessSettings, job: Job) -> dict[str, Any]:
    """Flow lines over p_t, and σ, s, f and g over t."""
    process, t_max = settings.build()
    job.check()
    found = _plane(settings, process, t_max) if settings.data.dim == 2 else _line(settings, process, t_max)
    f, g = coefficients(process, found["t"])
    missed = _euler_error(settings, process, found)
    known = {"t_max": t_max, "dim": settings.data.dim, "euler_error": missed, "python": _python(settings)}
    return found | {"f": f, "g": g, **known}


def _euler_error(settings: ProcessSettings, process: Process, found: dict[str, Any]) -> float | None:
    """How far 18 steps of Euler's method at EDM's levels end from the lines shown, RMS; None where σ(t) falls."""
    top = float(found["sigma"][-1])
    if not rises(process, float(found["t"][-1])):
        return None
    start, end = (found["x"][k].reshape(settings.lines, -1) / found["s"][k] for k in (-1, 0))
    steps = ds.EDMSteps(18, min(0.002, top / 100), top)
    run = ds.sample_from(settings.data.mixture, start, top, sampler=ds.Sampler(steps, ds.Euler(), process))
    return float((run.x - end).square().mean().sqrt())


def _line(settings: ProcessSettings, process: Process, t_max: float) -> dict[str, Any]:
    data = settings.data.mixture
    lines = lines_under(data, process, t_max, lines=settings.lines, columns=_COLUMNS, rows=_ROWS)
    t = torch.linspace(0, t_max, _COLUMNS, dtype=torch.float64, device="cpu")
    shown = {"t": t, "sigma": lines.sigma, "s": lines.s, "x": lines.x, "density": lines.density.float()}
    # each time on the scale of its own greatest density, so that noise is seen beside data
    shades = (255 * (lines.density / lines.density.amax(1, keepdim=True)).sqrt()).round().to(torch.uint8).T
    return shown | {"shades": shades, "reach": lines.reach, "deviation": lines.deviation}


def _plane(settings: ProcessSettings, process: Process, t_max: float) -> dict[str, Any]:
    data = settings.data.mixture
    truth = exact_flow(settings.data, largest_sigma(process, t_max), 0, settings.lines, True)
    lines = lines_along(truth, process, t_max, columns=_COLUMNS)
    reach = 1.08 * float(lines.x.abs().max())
    k = round(settings.time * (_COLUMNS - 1))
    sigma, s = float(lines.sigma[k]), float(lines.s[k])
    density = plane_density(data, sigma, s, reach, _PLANE)
    shades = (255 * (density / density.max()).sqrt()).round().to(torch.uint8)
    shown = {
        "t": lines.t,
        "sigma": lines.sigma,
        "s": lines.s,
        "x": lines.x,
        "density": density.float(),
        "shades": shades,
    }
    return shown | {"reach": reach, "deviation": lines.deviation}


def _python(settings: ProcessSettings) -> str:
    plane = settings.data.dim == 2
    studies = ["lines_along" if plane else "lines_under"]
    parts = [settings.data.python, settings.noising.python(settings.sigma_max)]
    if settings.towards is not None and settings.share > 0:
        studies.append("between")
        parts.append(settings.towards.python(settings.sigma_max, "other", "other_end"))
        parts.append(f"process, t_max = between(process, t_max, other, other_end, {settings.share!r})")
    if any(choice and choice.name != "formula" for choice in (settings.noising, settings.towards)):
        studies.append("processes")
    if plane:
        process, t_max = settings.build()
        top = largest_sigma(process, t_max)
        parts.append(exact_flow_python(top, f"range({settings.lines})", path=True))
        parts.append(f"lines = lines_along(truth, process, t_max, columns={_COLUMNS})")
    else:
        parts.append(f"lines = lines_under(data, process, t_max, lines={settings.lines}, columns={_COLUMNS})")
    parts.append('print(f"bent by {lines.deviation:.3g}")')
    names = ", ".join(sorted(studies))
    return "\n".join(["import torch", "import diffspace as ds", f"from diffspace.studies import {names}", "", *parts])
