"""The Python that makes the numbers of room 2."""

from __future__ import annotations

import re

from diffspace.explorer.sampler_settings import (
    BUDGETS,
    FIRST_SEED,
    FIT_SEEDS,
    FRONT,
    ITERATIONS,
    JUDGING,
    FitSettings,
    FrontSettings,
    SamplerSettings,
)
from diffspace.explorer.settings import exact_flow_python


def _spelled(thing: object) -> str:
    """The Python of a part, from its repr."""
    return re.sub(r"\b([A-Z]\w*)\(", r"ds.\1(", repr(thing))


def _fit_python(settings: FitSettings, variable: str) -> str:
    first, last = FIRST_SEED + FIT_SEEDS, FIRST_SEED + FIT_SEEDS + JUDGING
    top = settings.sigma_max
    paths = exact_flow_python(top, f"range({FIRST_SEED}, {first})", "paths", path=True)
    unseen = exact_flow_python(top, f"range({first}, {last})", "unseen")
    return (
        f"{paths}\n{unseen}\n"
        f"{variable} = ds.fit_solver(data, {settings.num_steps}, paths, validation=unseen, iterations={ITERATIONS})"
    )


def sampler_python(settings: SamplerSettings) -> str:
    parts = ["import torch", "import diffspace as ds"]
    formula = settings.noising.name == "formula"
    parts += [] if formula else ["from diffspace.studies import processes"]
    parts += ["", settings.data.python, settings.noising.python(settings.sigma_max)]
    parts.append(exact_flow_python(settings.top, f"range({settings.count})"))
    if any(choice is not None and settings.sampler(choice).adds_noise for choice in (settings.a, settings.b)):
        generator = "torch.Generator().manual_seed(k)"
        made = f"torch.randn(like.shape, dtype=torch.float64, generator={generator})"
        parts.append(f"\n\ndef noise(k, like):\n    return {made}\n\n")
    denoiser = "data"
    if settings.shrink:
        denoiser = "denoiser"
        pulled = f"data(x, sigma) + {settings.shrink!r} * (data.mean() - data(x, sigma))"
        parts.append(f"\n\ndef denoiser(x, sigma, cond=None):\n    return {pulled}\n\n")
        parts.append("denoiser.sample_shape, denoiser.sigma_data = data.sample_shape, data.sigma_data")
    for name, choice in (("a", settings.a), ("b", settings.b)):
        if choice is None:
            continue
        if choice.solver == "fitted":
            wanted = FitSettings(settings.data, settings.sigma_min, settings.sigma_max, choice.num_steps)
            parts.append(_fit_python(wanted, name))
        else:
            built = settings.sampler(choice)
            steps = _spelled(built.steps)
            if choice.steps == "time" and not formula:
                low, high = settings.sigma_min, settings.sigma_max
                steps = f"ds.ScheduleSteps({choice.num_steps}, {low!r}, {high!r}, schedule=process.schedule)"
            solver, churn = _spelled(built.solver), ""
            if choice.S_churn > 0:
                churn = f", churn={_spelled(built.churn)}"
            parts.append(f"{name} = ds.Sampler({steps}, {solver}, process{churn})")
        noise = ", noise=noise" if settings.sampler(choice).adds_noise else ""
        if settings.shift:
            noise = f", latents=truth.latents + {settings.shift!r}{noise}"
        parts.append(
            f"run_{name} = ds.sample({denoiser}, seeds=range({settings.count}), sampler={name}{noise})\n"
            f"print({name!r}, run_{name}.nfe, truth.error_of(run_{name}.x))"
        )
    return "\n".join(parts)


def front_python(settings: FrontSettings) -> str:
    steps = f"ds.EDMSteps(18, {settings.sigma_min!r}, {settings.sigma_max!r})"
    return "\n".join(
        [
            "import torch",
            "import diffspace as ds",
            "from diffspace.config import from_text",
            "from diffspace.solverlab import compare_solvers",
            "",
            settings.data.python,
            exact_flow_python(settings.sigma_max, "range(64)"),
            f"words = {list(FRONT)}",
            f'samplers = {{word: ds.Sampler({steps}, from_text("solver", word)) for word in words}}',
            f"comparison = compare_solvers(data, truth, samplers, {BUDGETS})",
            "for row in comparison.rows:",
            "    print(row.name, row.nfe, row.error.rms)",
        ]
    )
