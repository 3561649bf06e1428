"""The names by which files and command lines call the classes of diffspace, and the way from configs to objects.

A config is a mapping with a "kind" and the fields of that class: `{"kind": "heun", "alpha": 0.5}`. Fields that hold
such objects are nested configs. Only the names below can be made: a config runs no other code.
"""

from __future__ import annotations

import difflib
import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from diffspace import networks, objective, preconditioning, process, sampling

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


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, as far as the type can say; whole numbers are numbers, and bools are not."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in choices)
    if origin is Literal:
        return value in choices
    if origin is tuple:
        wanted = choices[:1] * len(value) if isinstance(value, tuple) and choices[-1] is ... else choices
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_fits, value, wanted))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def _phrase(hint: Any) -> str:
    """What a type allows, for an error message."""
    words = {int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    choices = get_args(hint)
    if get_origin(hint) is Literal:
        return ", ".join(map(repr, choices))
    if get_origin(hint) is tuple:
        return f"a list, each of {_phrase(choices[0])}"
    return " or ".join(map(_phrase, choices)) if choices else words.get(hint, getattr(hint, "__name__", str(hint)))


def from_config(family: str, config: Mapping[str, Any]) -> Any:
    """The object that a config describes.

    ValueError names an unknown kind or field with the nearest valid one, a value that is not of its field's type, and
    a field that is missing.
    """
    known = FAMILIES[family]
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in known:
        raise ValueError(f"{family}.kind: {kind!r} is unknown; {nearest(str(kind), known)}")
    make: Callable[..., Any] = known[kind]
    parameters = inspect.signature(make).parameters
    for name, value in arguments.items():
        if name not in parameters:
            raise ValueError(f"{family}.{name}: {kind!r} has no such option; {nearest(name, parameters)}")
        if name in FAMILIES and isinstance(value, Mapping):
            arguments[name] = from_config(name, value)
        elif isinstance(value, list):
            arguments[name] = _tuples(value)
        elif isinstance(value, str) and value in ("inf", "-inf", "nan"):
            arguments[name] = float(value)
    # of the fields of dataclasses; a network checks its own arguments
    hints = get_type_hints(make) if is_dataclass(make) or not isinstance(make, type) else {}
    for name, parameter in parameters.items():
        if name not in arguments and parameter.default is parameter.empty and name in hints:
            raise ValueError(f"{family}.{name}: is missing; {kind!r} wants {_phrase(hints[name])}")
        if name in arguments and name in hints and not _fits(arguments[name], hints[name]):
            raise ValueError(f"{family}.{name}: {arguments[name]!r}; want {_phrase(hints[name])}")
    return make(**arguments)
