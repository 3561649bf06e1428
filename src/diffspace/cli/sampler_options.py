"""How to sample, on the command line: a word for each part of a `Sampler`, and the reference's names for its options.

`--steps 40 --disc vp --epsilon_s 1e-4` is `--steps vp:num_steps=40,epsilon_s=1e-4`: every option below is a word of one
part, or one option within that word.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import typing
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from typer import Option

import diffspace as ds

FAMILY_FLAGS = ("--disc", "--discretization")


class Alias(NamedTuple):
    """A flag that sets the word of a part, or with `field` one option of the parts (which have it) in `parts`."""

    flags: tuple[str, ...]
    parts: tuple[str, ...]
    field: str | None
    help: str
    type: type = str


_STEPS, _VP, _SOLVER, _CHURN = ("steps",), ("steps", "schedule"), ("solver",), ("churn",)
ALIASES: Mapping[str, Alias] = {
    "sampler": Alias(("--sampler",), (), None, "Start from a found sampler: a name beside the model, or a file."),
    "steps": Alias(("--steps",), _STEPS, None, "Number of steps N, or steps in one word: edm:rho=10,num_steps=40."),
    "disc": Alias(FAMILY_FLAGS, _STEPS, None, "Kind of steps: edm, vp, ve, iddpm, loglinear, …; edm:rho=5."),
    "sigma_min": Alias(("--sigma-min", "--sigma_min"), _STEPS, "sigma_min", "Lowest σ before 0."),
    "sigma_max": Alias(("--sigma-max", "--sigma_max"), _STEPS, "sigma_max", "Highest σ."),
    "rho": Alias(("--rho",), _STEPS, "rho", "Exponent of EDM steps, 7."),
    "epsilon_s": Alias(("--epsilon-s", "--epsilon_s"), _STEPS, "epsilon_s", "Last time of VP steps, 1e-3."),
    "M": Alias(("--M",), _STEPS, "M", "Number of levels u_j of iDDPM steps, 1000."),
    "C_1": Alias(("--C-1", "--C_1"), _STEPS, "C_1", "C_1 of iDDPM steps."),
    "C_2": Alias(("--C-2", "--C_2"), _STEPS, "C_2", "C_2 of iDDPM steps."),
    "j0": Alias(("--j0",), _STEPS, "j0", "First u_j of iDDPM steps, 8."),
    "clip": Alias(("--clip",), _STEPS, "clip", "Move a σ range outside the model's into it.", bool),
    "solver": Alias(("--solver",), _SOLVER, None, "heun, euler, midpoint, ralston, …; with options ab:k=4."),
    "alpha": Alias(("--alpha",), _SOLVER, "alpha", "α of the second-order family, 1 for Heun."),
    "process": Alias(("--process",), ("schedule",), None, "σ(t): edm (or linear), vp, ve, cosine, flow."),
    "schedule": Alias(("--schedule",), ("schedule",), None, "The same, but vp with s = 1, and spanning the steps."),
    "scaling": Alias(("--scaling",), ("scaling",), None, "s(t): none, vp or flow. Default: the schedule's own."),
    "beta_d": Alias(("--beta-d", "--beta_d"), _VP, "beta_d", "β_d of the VP schedule and VP steps, 19.9."),
    "beta_min": Alias(("--beta-min", "--beta_min"), _VP, "beta_min", "β_min of the VP schedule and VP steps, 0.1."),
    "S_churn": Alias(("--S-churn", "--S_churn"), _CHURN, "S_churn", "Amount of churn."),
    "S_tmin": Alias(("--S-min", "--S_min", "--S-tmin"), _CHURN, "S_tmin", "Lowest σ with churn."),
    "S_tmax": Alias(("--S-max", "--S_max", "--S-tmax"), _CHURN, "S_tmax", "Highest σ with churn."),
    "S_noise": Alias(("--S-noise", "--S_noise"), _CHURN, "S_noise", "Inflation of the noise added."),
}
"""The options of `diffspace sample` that choose the sampler, with the names that generate.py of NVlabs/edm has."""

_SAME_START = 0.01  # relative

_PANELS: Mapping[tuple[str, ...], str] = {_STEPS: "Time steps (Table 1)", _CHURN: "Stochastic sampling (Algorithm 2)"}
_OTHER_NAMES = {
    "solver": {"midpoint": "heun:alpha=0.5", "ralston": f"heun:alpha={2 / 3}"},
    "schedule": {"linear": "edm"},
}


def with_sampler_options(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of `ALIASES`, which it receives as one mapping, its argument `sampling`.

    `left_out` are parts that the command does not have.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(command).parameters.items()
            if name != "sampling"
        ]
        offered = {name: alias for name, alias in ALIASES.items() if not {name, *alias.parts} & set(left_out)}
        for name, alias in offered.items():
            panel = _PANELS.get(alias.parts[:1], "Solver and process (Table 1)")
            option = Option(*alias.flags, help=alias.help, rich_help_panel=panel)
            kind: Any = Annotated[alias.type | None, option]
            own.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))

        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            sampling = {name: arguments.pop(name) for name in offered}
            command(**arguments, sampling=sampling)

        run.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
        return run

    return decorate


def build_sampler(
    options: Mapping[str, Any],
    model: str = "",
    default: ds.Sampler | None = None,
    denoiser: object = None,
    note: Callable[[str], None] | None = None,
) -> ds.Sampler:
    """The sampler that the options describe: what they leave open is that of `--sampler`, else of `default`.

    A found sampler that starts elsewhere than at the highest level of the `denoiser` is noted, if there is `note`.

    `--schedule vp` is that of NVlabs/edm: s = 1 unless `--scaling` is given, and β_d and β_min for which σ(ε_s) and
    σ(1) are the ends of the steps, which depend on the range of the `denoiser` (None: any).
    """
    from diffspace.config import build, from_config, from_text, to_config, to_text
    from diffspace.sampler_files import find_sampler

    given = {ALIASES[name]: value for name, value in options.items() if value is not None}
    found = given.pop(ALIASES["sampler"], None)
    base = default or ds.Sampler() if found is None else find_sampler(model, found)
    words: dict[str, str] = {}
    fields: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    spanning = given.get(ALIASES["schedule"]) == "vp"
    for alias, value in given.items():
        if alias is ALIASES["steps"] and value.isdecimal():
            fields["steps"]["num_steps"] = int(value)
        elif alias.field is None:
            if alias.parts[0] in words:
                flags = next(
                    other for other in ALIASES.values() if other.parts == alias.parts and not other.field
                ).flags
                raise ValueError(f"{flags[0]}, {alias.flags[0]}: expected one of the two")
            words[alias.parts[0]] = value

    def is_vp(part: str) -> bool:
        if spanning and part == "schedule":
            return False
        own = base.steps if part == "steps" else base.process.schedule
        return words[part].partition(":")[0] == "vp" if part in words else hasattr(own, "beta_d")

    for alias, value in given.items():
        if alias.field is not None:
            takers = [part for part in alias.parts if len(alias.parts) == 1 or is_vp(part)]
            if not takers:
                raise ValueError(f"{alias.flags[0]}: has no effect; use it with --disc vp or --process vp")
            for part in takers:
                fields[part][alias.field] = _parse(value)

    def part_of(family: str, base: Any) -> Any:
        """The part of a word with its options, or the part of the base with other options."""
        word, options = words.get(family), fields[family]
        if word is not None:
            return from_text(family, _OTHER_NAMES.get(family, {}).get(word, word), options)
        return from_config(family, to_config(family, base) | options) if options else base

    named = fields.keys() | words.keys()
    solver = part_of("solver", base.solver)
    steps, schedule = part_of("steps", base.steps), part_of("schedule", base.process.schedule)
    # a schedule that is named brings its own scaling
    scaling = None if "schedule" in words and "scaling" not in words else base.process.scaling
    # of a table that is the model's nothing is known before that is loaded
    if spanning and (denoiser is not None or getattr(steps, "levels", True) is not None):
        schedule = ds.VPSchedule.spanning(*_ends(steps, denoiser), getattr(steps, "epsilon_s", 1e-3))
        scaling = scaling or ds.NoScaling()
    process = ds.Process(schedule, part_of("scaling", scaling))
    churn: ds.Churn = build(ds.Churn, dataclasses.asdict(base.churn) | fields["churn"])
    if fields["churn"].keys() - {"S_churn"} and churn.S_churn == 0:
        raise ValueError("--S-min, --S-max, --S-noise: have no effect without --S-churn")
    if solver.in_sigma and {"schedule", "scaling"} & named:
        who = to_text("solver", solver)
        raise ValueError(f"--process, --schedule, --scaling: have no effect on {who}, which works in σ")
    sampler = ds.Sampler(steps, solver, process, churn)
    if found is not None and denoiser is not None and note is not None and not fields["steps"] and "steps" not in words:
        _note_another_start(found, sampler, denoiser, note)
    return sampler


def _note_another_start(found: str, sampler: ds.Sampler, denoiser: object, note: Callable[[str], None]) -> None:
    start, usual = (_ends(steps, denoiser)[1] for steps in (sampler.steps, ds.EDMSteps()))
    if abs(start / usual - 1) > _SAME_START:
        note(
            f"--sampler: {found} starts at σ = {start:.4g}, where sampling from this model starts at {usual:.4g}; it "
            "may have been found for another model or range"
        )


def _ends(steps: Any, denoiser: object) -> tuple[float, float]:
    """The (σ_min, σ_max) of the steps for a denoiser."""
    from diffspace.protocols import sigma_range
    from diffspace.sampling.steps import RangedSteps, steps_for

    if isinstance(steps, RangedSteps):
        ranged = steps_for(denoiser, steps)
        return ranged.resolve()
    *_, low, last = levels = steps.sigmas(sigma_range(denoiser)).tolist()
    return last or low, levels[0]


def _parse(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
