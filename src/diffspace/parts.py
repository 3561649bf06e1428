"""The parts that files and command lines can name: those of diffspace, of installed packages, and of the user.

`register` adds parts from other packages. Only `import_part` imports code by name, and it is called for names that the
user has typed: a name in a file is looked up among the known parts, and never imported.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffspace.checks import nearest

Part = Callable[..., Any]


def _family(module: str, names: str) -> dict[str, Part | str]:
    return {kind: f"diffspace.{module}:{name}" for kind, _, name in (pair.partition("=") for pair in names.split())}


FAMILIES: Mapping[str, dict[str, Part | str]] = {
    "solver": _family(
        "sampling",
        "euler=Euler heun=Heun ab=AdamsBashforth lms=LMS deis=DEIS ipndm=IPNDM dpm2=DPMSolver2 dpm3=DPMSolver3 "
        "dpmpp2s=DPMSolverPP2S dpmpp3s=DPMSolverPP3S dpmpp2m=DPMSolverPP2M dpmpp3m=DPMSolverPP3M unipc=UniPC "
        "expheun=ExponentialHeun rk4=RungeKutta4 dopri5=DormandPrince afs=AnalyticalFirstStep fitted=FittedSolver "
        "euler-ancestral=EulerAncestral dpmpp-sde=DPMSolverPPSDE dpmpp2m-sde=DPMSolverPP2MSDE "
        "dpmpp3m-sde=DPMSolverPP3MSDE sde=GeneralSDE pc=PredictorCorrector",
    ),
    "steps": _family(
        "sampling",
        "edm=EDMSteps vp=VPSteps ve=VESteps iddpm=IDDPMSteps loglinear=LogLinearSteps schedule=ScheduleSteps "
        "beta=BetaSteps given=GivenSteps levels=LevelSteps",
    ),
    "schedule": _family(
        "process",
        "edm=EDMSchedule vp=VPSchedule ve=VESchedule cosine=CosineSchedule flow=FlowSchedule formula=FormulaSchedule",
    ),
    "scaling": _family("process", "none=NoScaling vp=VariancePreserving flow=Interpolating formula=FormulaScaling"),
    "process": _family("process", "process=Process"),
    "levels": _family("process", "iddpm=IDDPMLevels discrete=DiscreteLevels"),
    "times": _family("preconditioning", "continuous=ContinuousTime levels=LevelIndex interpolated=InterpolatedIndex"),
    "preconditioning": _family(
        "preconditioning",
        "edm=EDMPreconditioning vp=VPPreconditioning ve=VEPreconditioning iddpm=IDDPMPreconditioning "
        "epsilon=EpsilonPrediction v=VPrediction x0=X0Prediction flow=FlowPrediction",
    ),
    "noise": _family("objective", "lognormal=LogNormal loguniform=LogUniform vp=VPUniform iddpm=IDDPMUniform"),
    "network": _family("networks", "mlp=MLP ddpmpp=DDPMpp ncsnpp=NCSNpp adm=ADM"),
    "source": _family(
        "data",
        "digits=Digits mnist-5k=MNIST5k swissroll=SwissRoll two-moons=TwoMoons checkerboard=Checkerboard "
        "eight-gaussians=EightGaussians",
    ),
    "augmentation": _family("data", "transforms=Augmentation edm=Augmentation.edm"),
    "measurement": {},
}
"""Classes and functions that make parts; those of diffspace as text, because importing them imports torch."""

PLUGINS = "diffspace.plugins"
"""The group of the entry points FAMILY.NAME = "module:Class" of other packages."""

DEFAULT_KINDS = {"process": "process", "augmentation": "transforms"}  # for a mapping without a kind
MODULE_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_unregistered: dict[str, Part] = {}  # by "module:Class", and by "Class" for files that name another module


def register(family: str, name: str, part: Part | str) -> None:
    """Name a part of another package for recipes, model folders and the command line.

    `part` is a class, a function that makes an object, or "module:Class", which is imported when it is first used.
    Families: solver, steps, schedule, scaling, process, preconditioning, noise, network, source, augmentation,
    measurement.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: {family!r} is unknown; {nearest(family, FAMILIES)}")
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise ValueError(f"name: expected letters, digits, '-', '_', '.' and '+', got {name!r}")
    if not (callable(part) or (isinstance(part, str) and MODULE_CLASS.fullmatch(part))):
        raise ValueError(f'part: expected a class, a function or "module:Class", got {part!r}')
    taken = FAMILIES[family].get(name, part)
    if path_of(taken) != path_of(part):
        raise ValueError(f"name: {name!r} is taken by the {family} {path_of(taken)}")
    FAMILIES[family][name] = part


@contextlib.contextmanager
def allow_parts(parts: Iterable[Part]) -> Iterator[None]:
    """Let files that are read within the context use these classes without registration."""
    before = dict(_unregistered)
    try:
        for part in parts:
            _unregistered.update({path_of(part): part, part.__name__: part})
        yield
    finally:
        _unregistered.clear()
        _unregistered.update(before)


def import_part(name: str) -> Part:
    """Import "module:Class", also from the current folder; files that are read afterwards can use it.

    Call it for names that the user has typed, never for a name from a file.
    """
    if not MODULE_CLASS.fullmatch(name):
        raise ValueError(f"part: expected module:Class, got {name!r}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    part = load_path(name)
    _unregistered.update({name: part, part.__name__: part})
    return part


def import_typed(config: Mapping[str, Any]) -> None:
    """Import every part that a mapping typed by the user names as `module:Class`."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            import_typed(value)
        elif key in ("kind", "augment", "measure", *FAMILIES):
            for each in value if isinstance(value, list) else [value]:
                word = re.fullmatch(rf"({MODULE_CLASS.pattern})(:.*)?", str(each))
                if word and not (key == "source" and (word[0].startswith("hf:") or Path(word[0]).exists())):
                    import_part(word[1])


def load_path(path: str) -> Part:
    module, _, name = path.partition(":")
    try:
        part: Any = importlib.import_module(module)
        for attribute in name.split("."):
            part = getattr(part, attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # of something that the module itself imports
        raise ValueError(f"{path}: no module {error.name}; expected module:Class, or kind:option=value") from None
    except AttributeError:
        raise ValueError(f"{path}: the module {module} has no {name}") from None
    return typing.cast(Part, part)


def path_of(part: Part | str) -> str:
    """ "module:Class"; the module of a script that runs is its file's name, under which others import it."""
    if isinstance(part, str):
        return part
    script = getattr(sys.modules["__main__"], "__file__", None) if part.__module__ == "__main__" else None
    return f"{Path(script).stem if script else part.__module__}:{part.__qualname__}"


@functools.cache
def _plugins() -> Mapping[str, Mapping[str, str]]:
    """The entry points of installed packages, by family."""
    from importlib.metadata import entry_points

    found: dict[str, dict[str, str]] = {}
    for point in entry_points(group=PLUGINS):
        family, _, name = point.name.partition(".")
        found.setdefault(family, {})[name] = point.value
    return found


def kinds(family: str) -> Mapping[str, Part | str]:
    """The parts of a family by name: registered ones, those of installed packages and of diffspace."""
    return {**_plugins().get(family, {}), **FAMILIES[family]}


def find(family: str, kind: str, written: str = "", where: str = "") -> Part:
    """The class or function of a kind: one of `kinds`, or one that `import_part` or `allow_parts` has made known.

    `written` is the "module:Class" beside the kind in a file. Error messages begin with `where`.
    """
    part = FAMILIES[family].get(kind) or kinds(family).get(kind)
    for name in (kind, written, kind.rpartition(":")[2], written.rpartition(":")[2]):
        part = part or _unregistered.get(name)
    if part is not None:
        return load_path(part) if isinstance(part, str) else part
    outside = next(filter(MODULE_CLASS.fullmatch, (written, kind)), None)
    if outside is None:
        raise ValueError(f"{where or family}.kind: {kind!r} is unknown; {nearest(kind, kinds(family))}")
    module, _, name = outside.partition(":")
    module = "MODULE" if module == "__main__" else module  # of a notebook: wherever the user keeps it now
    raise ValueError(
        f"{where or family}.kind: {kind!r} is not registered, and a file never imports code; install its package, "
        f"pass parts=[{name}], or use --part {module}:{name} if you trust that module"
    )
