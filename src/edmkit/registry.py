"""The names by which files and command lines call the classes of edmkit, and the way from configs to objects.

A config is a mapping with a "kind" and the fields of that class: `{"kind": "heun", "alpha": 0.5}`. Fields that hold
such objects are nested configs. Only the names below can be made: a config runs no other code.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from edmkit import networks, objective, preconditioning, process, sampling

__all__ = [
    "FAMILIES",
    "NETWORKS",
    "NOISE",
    "PRECONDITIONING",
    "SCALINGS",
    "SCHEDULES",
    "SOLVERS",
    "STEPS",
    "TIMES",
    "from_config",
    "nearest",
    "to_config",
]

# a class, or a function that makes an object of one with some of its fields set
Family = Mapping[str, Callable[..., Any]]

SCHEDULES: Family = {
    "edm": process.EDMSchedule,
    "vp": process.VPSchedule,
    "ve": process.VESchedule,
    "cosine": process.CosineSchedule,
    "flow": process.FlowSchedule,
}
SCALINGS: Family = {
    "none": process.NoScaling,
    "vp": process.VariancePreserving,
    "flow": process.Interpolating,
}
LEVELS: Family = {"iddpm": process.IDDPMLevels, "discrete": process.DiscreteLevels}
TIMES: Family = {
    "continuous": preconditioning.ContinuousTime,
    "levels": preconditioning.LevelIndex,
    "interpolated": preconditioning.InterpolatedIndex,
}
PRECONDITIONING: Family = {
    "edm": preconditioning.EDMPreconditioning,
    "vp": preconditioning.VPPreconditioning,
    "ve": preconditioning.VEPreconditioning,
    "iddpm": preconditioning.IDDPMPreconditioning,
    "epsilon": preconditioning.EpsilonPrediction,
    "v": preconditioning.VPrediction,
    "x0": preconditioning.X0Prediction,
    "flow": preconditioning.FlowPrediction,
}
NOISE: Family = {
    "lognormal": objective.LogNormal,
    "loguniform": objective.LogUniform,
    "vp": objective.VPUniform,
    "iddpm": objective.IDDPMUniform,
}
STEPS: Family = {
    "edm": sampling.EDMSteps,
    "vp": sampling.VPSteps,
    "ve": sampling.VESteps,
    "iddpm": sampling.IDDPMSteps,
    "loglinear": sampling.LogLinearSteps,
    "schedule": sampling.ScheduleSteps,
    "beta": sampling.BetaSteps,
    "given": sampling.GivenSteps,
    "levels": sampling.LevelSteps,
    "optimized": sampling.OptimizedSteps,
}
SOLVERS: Family = {
    "euler": sampling.Euler,
    "heun": sampling.Heun,
    "ab": sampling.AdamsBashforth,
    "lms": sampling.LMS,
    "deis": sampling.DEIS,
    "ipndm": sampling.IPNDM,
    "dpm2": sampling.DPMSolver2,
    "dpm3": sampling.DPMSolver3,
    "dpmpp2s": sampling.DPMSolverPP2S,
    "dpmpp3s": sampling.DPMSolverPP3S,
    "dpmpp2m": sampling.DPMSolverPP2M,
    "dpmpp3m": sampling.DPMSolverPP3M,
    "unipc": sampling.UniPC,
    "expheun": sampling.ExponentialHeun,
    "rk4": sampling.RungeKutta4,
    "dopri5": sampling.DormandPrince,
    "afs": sampling.AnalyticalFirstStep,
    "fitted": sampling.FittedSolver,
    "euler-ancestral": sampling.EulerAncestral,
    "dpmpp-sde": sampling.DPMSolverPPSDE,
    "dpmpp2m-sde": sampling.DPMSolverPP2MSDE,
    "dpmpp3m-sde": sampling.DPMSolverPP3MSDE,
    "sde": sampling.GeneralSDE,
    "pc": sampling.PredictorCorrector,
}
NETWORKS: Family = {"mlp": networks.MLP, "ddpmpp": networks.DDPMpp, "ncsnpp": networks.NCSNpp, "adm": networks.ADM}

FAMILIES: Mapping[str, Family] = {
    "schedule": SCHEDULES,
    "scaling": SCALINGS,
    "levels": LEVELS,
    "times": TIMES,
    "preconditioning": PRECONDITIONING,
    "noise": NOISE,
    "steps": STEPS,
    "solver": SOLVERS,
    "network": NETWORKS,
}


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase for an error message: the known name most like `name`, and all of them."""
    names = sorted(known)
    if not names:
        return "it has none"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"


def to_config(family: str, thing: Any) -> dict[str, Any]:
    """The config of an object of a family, with every field."""
    kinds = [kind for kind, cls in FAMILIES[family].items() if type(thing) is cls]
    if not kinds:
        raise ValueError(f"{family}: {type(thing).__name__} has no name in the registry, so it cannot be written")
    if not is_dataclass(thing):
        return {"kind": kinds[0], **thing.config}
    config: dict[str, Any] = {"kind": kinds[0]}
    for field in fields(thing):
        value = getattr(thing, field.name)
        if field.name in FAMILIES and is_dataclass(value):
            value = to_config(field.name, value)
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, float) and not math.isfinite(value):
            value = str(value)  # JSON has no infinity; float("inf") reads it back
        config[field.name] = value
    return config


def _tuples(value: Any) -> Any:
    """Lists, also those in lists, as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def from_config(family: str, config: Mapping[str, Any]) -> Any:
    """The object that a config describes; ValueError names an unknown kind or field with the nearest valid one."""
    known = FAMILIES[family]
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in known:
        raise ValueError(f"{family}.kind: {kind!r} is unknown; {nearest(str(kind), known)}")
    make: Callable[..., Any] = known[kind]
    allowed = list(inspect.signature(make).parameters)
    for name, value in arguments.items():
        if name not in allowed:
            raise ValueError(f"{family}.{name}: {kind!r} has no such option; {nearest(name, allowed)}")
        if name in FAMILIES and isinstance(value, Mapping):
            arguments[name] = from_config(name, value)
        elif isinstance(value, list):
            arguments[name] = _tuples(value)
        elif isinstance(value, str) and value in ("inf", "-inf", "nan"):
            arguments[name] = float(value)
    return make(**arguments)
