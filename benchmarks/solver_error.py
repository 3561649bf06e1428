"""How far from the end points of the ODE every solver ends, of diffspace and of others, for its evaluations.

    python benchmarks/solver_error.py                                # ring, mixture, digits: tables in Markdown
    python benchmarks/solver_error.py --model runs/digits            # and a trained model
    python benchmarks/solver_error.py --docs                         # writes what docs/solver-errors.md shows

Exact denoisers, float64, 256 latents `torch.randn(256, *shape, generator=Generator().manual_seed(0))·80`, σ from 80 to
0.002 and then 0. Of every solver the largest number of steps that the budget allows. diffspace's choice is what
`diffspace solvers` recommends after seeds 0 to 127 (0 to 63 of a model), without and with solvers that were fitted on
other seeds still (as `--fit` does): none has seen the latents that it is measured on.

Schedulers of diffusers are run as they are, in the same process, on the same ρ = 7 levels in float64 (in place of
their own, which are these rounded to float32) and with the same denoiser. The states of UniPC and DEIS are x/√(1+σ²).
They end as they do by default, with a step of first order from the lowest level to 0, but for DEIS, which has none:
its last evaluation is x = D at the lowest level. Steps by hand with Euler must agree with EDMEulerScheduler, which
rounds its state to float32.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib.util
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffspace.data import ORACLES, is_oracle, named_oracle
from diffspace.interop.diffusers.runs import SCHEDULERS, run_scheduler, scheduler_cost
from diffspace.loading import load
from diffspace.protocols import Cond, Denoiser
from diffspace.sampling import EDMSteps, Euler, Execution, Sampler, random_labels, sample
from diffspace.solverlab import Reference, compare_solvers, default_samplers, fit_solver, moments, recommend, reference

ROOT = Path(__file__).parents[1]
BUDGETS = (5, 8, 10, 12, 16, 20, 25, 35, 50, 79)
SAMPLES = 256

# Root mean square errors at BUDGETS of the best of k-diffusion, diffusers, azula, smalldiffusion, diff-sampler and
# NVlabs/edm on the same problems and latents, with their own code: constants, measured in November 2026.
BEST_PEER = {
    "mixture": (1.23e-1, 4.8e-2, 3.1e-2, 2.6e-2, 2.0e-2, 1.7e-2, 1.2e-2, 2.8e-3, 9.3e-4, 2.0e-4),
    "ring": (4.8e-2, 5.7e-2, 1.8e-2, 1.0e-2, 6.2e-3, 4.7e-3, 3.4e-3, 1.6e-3, 4.8e-4, 7.2e-5),
}

FIT_SEEDS = range(1_000_000, 1_000_128)

Row = Mapping[int, tuple[float, float]]


def schedulers() -> tuple[str, ...]:
    """The names of those of diffusers; none where it is not installed."""
    if importlib.util.find_spec("diffusers") is None:
        print("diffusers is not installed: its schedulers are missing", file=sys.stderr)
        return ()
    return tuple(SCHEDULERS)


def run(name: str, denoiser: Denoiser, latents: Tensor, budget: int, ends: tuple[float, float]) -> Tensor:
    """A scheduler of diffusers at ρ = 7 levels between (σ_min, σ_max), within a budget."""
    return run_scheduler(name, denoiser, latents, EDMSteps(scheduler_cost(name, budget)[0], *ends).sigmas())


def check_counterparts(denoiser: Denoiser, latents: Tensor) -> None:
    """The comparison is fair if the same method gives the same numbers on both sides."""
    theirs = run("EDMEuler", denoiser, latents, 12, (0.002, 80.0))
    ours = sample(denoiser, latents=latents, steps=EDMSteps(12, 0.002, 80.0), solver=Euler()).x
    worst = float((theirs - ours).abs().max())
    if not worst < 1e-6:
        raise SystemExit(f"EDMEulerScheduler and diffspace's Euler differ by {worst:.1e}")
    print(f"EDMEulerScheduler and diffspace's Euler with 12 steps differ by {worst:.1e} at most", file=sys.stderr)


def theirs(denoiser: Denoiser, truth: Reference, budgets: Sequence[int]) -> dict[str, Row]:
    rows: dict[str, dict[int, tuple[float, float]]] = {}
    for name in schedulers():
        for budget in budgets:
            x = run(name, denoiser, truth.latents, budget, (float(truth.sigmas[-2]), truth.sigma_max))
            rows.setdefault(f"diffusers {name}", {})[budget] = truth.error_of(x)
    return rows


def ours(denoiser: Denoiser, truth: Reference, budgets: Sequence[int]) -> dict[str, Row]:
    """Every solver with the paper's steps."""
    comparison = compare_solvers(denoiser, truth, default_samplers(*moments(truth), steps=("edm",)), budgets)
    rows: dict[str, dict[int, tuple[float, float]]] = {}
    for row in comparison.rows:
        rows.setdefault(f"{row.solver}, edm", {})[row.budget] = row.error
    return rows


def chosen(
    denoiser: Denoiser, seen: Reference, truth: Reference, budgets: Sequence[int], found: dict[str, Sampler]
) -> dict[str, tuple[Row, dict[int, str]]]:
    """What is recommended after some seeds, measured on other latents, with its name at each budget."""
    comparison = compare_solvers(denoiser, seen, default_samplers(*moments(seen)) | found, budgets)
    known = tuple(row for row in comparison.rows if row.name not in found)
    rows: dict[str, tuple[Row, dict[int, str]]] = {}
    for label, part in (("diffspace's choice, with --fit", comparison.rows), ("diffspace's choice", known)):
        errors, names = {}, {}
        for choice in recommend(dataclasses.replace(comparison, rows=part)):
            row = choice.row
            (measured,) = compare_solvers(denoiser, truth, {row.name: row.sampler}, (row.nfe,)).rows
            errors[choice.budget] = measured.error
            names[choice.budget] = row.name
        rows[label] = errors, names
    return rows


def fitted(denoiser: Denoiser, cond: dict[str, Tensor] | None, budgets: Sequence[int]) -> dict[str, Sampler]:
    """A solver for each budget, from seeds that are used for nothing else."""
    paths = reference(denoiser, seeds=FIT_SEEDS, cond=cond, execution=Execution(trajectory=True))
    return {f"fitted-{budget}": fit_solver(denoiser, budget, paths) for budget in budgets}


def measure(name: str, budgets: Sequence[int], fit_up_to: int) -> tuple[list[list[str]], str]:
    """The table of one problem, its head first, and what is said of it."""
    started = time.perf_counter()
    oracle = is_oracle(name)
    denoiser = named_oracle(name) if oracle else load(name)
    shape, classes = denoiser.sample_shape, 0 if oracle else len(denoiser.class_names)

    def labels(seeds: Sequence[int]) -> dict[str, Tensor] | None:
        return {"labels": random_labels(seeds, shape, classes)} if classes else None

    seeds, other = range(128 if oracle else 64), labels(range(SAMPLES))
    latents = torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = reference(denoiser, latents=latents, cond=other)
    seen = reference(denoiser, seeds=seeds, cond=labels(seeds))
    found = fitted(denoiser, labels(FIT_SEEDS), [budget for budget in budgets if budget <= fit_up_to])

    @torch.no_grad()
    def evaluate(x: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        return denoiser(x, sigma, other).to(x.dtype)

    rows: dict[str, Row] = {}
    choices = chosen(denoiser, seen, truth, budgets, found)
    rows |= {f"**{label}**": row for label, (row, _) in choices.items()}
    if name in BEST_PEER:
        peers = zip(BUDGETS, BEST_PEER[name], strict=True)
        rows["best of six other libraries"] = {budget: (rms, math.nan) for budget, rms in peers}
    if oracle and schedulers():
        check_counterparts(denoiser, latents[:16])
    rows |= ours(denoiser, truth, budgets) | theirs(evaluate, truth, budgets)

    said = f"Root mean square error, and in brackets the median over {SAMPLES} samples; the reference is known to "
    lines = [f"{said}{truth.error.rms:.1e}."]
    table = [["NFE ≤", *map(str, budgets)]]
    for label, row in rows.items():
        cells = [label]
        for budget in budgets:
            rms, median = row.get(budget, (math.nan, math.nan))
            cells.append("" if math.isnan(rms) else f"{rms:.1e}" + ("" if math.isnan(median) else f" ({median:.0e})"))
        table.append(cells)
    for label, (_, names) in choices.items():
        lines.append(f"{label}: " + "; ".join(f"{budget} `{who}`" for budget, who in names.items()) + ".")
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return table, "\n\n".join(lines) + "\n"


def command(name: str, picture: Path) -> str:
    """What `diffspace solvers` prints, on a terminal wide enough."""
    seeds = "0-127" if is_oracle(name) else "0-63"
    arguments = ["solvers", name, "--seeds", seeds, "--out", str(picture), "--overwrite"]
    environment = os.environ | {"COLUMNS": "150", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "diffspace", *arguments], env=environment, capture_output=True, text=True, check=True
    )
    lines = [f"$ diffspace solvers {name} --seeds {seeds} --out {picture.name}", ""]
    lines += [line.rstrip() for line in done.stdout.splitlines() if str(picture) not in line]
    return "\n".join(lines).strip()


def write_docs(names: Sequence[str], budgets: Sequence[int], fit_up_to: int) -> None:
    """Write what docs/solver-errors.md shows of each problem; a new one needs a section there."""
    docs = ROOT / "docs"
    for name in names:
        key = name if is_oracle(name) else f"model-{Path(name).name}"
        picture = docs / "images" / f"solvers-{key}.png"
        (docs / "data" / f"solvers-{key}.txt").write_text(command(name, picture) + "\n", encoding="utf-8")
        Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(picture, optimize=True)
        table, said = measure(name, budgets, fit_up_to)
        (docs / "data" / f"solver-errors-{key}.txt").write_text(said, encoding="utf-8")
        with (docs / "data" / f"solver-errors-{key}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default=",".join(ORACLES), help="oracles (default: all that have a name)")
    parser.add_argument("--model", action="append", default=[], help="the folder of a trained model, too")
    parser.add_argument("--nfe", default=",".join(map(str, BUDGETS)), help="budgets")
    parser.add_argument("--fit-up-to", type=int, default=50, help="budgets for which a solver is fitted (default 50)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--docs", action="store_true", help="write the data and pictures of docs/solver-errors.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = [*(name for name in options.problems.split(",") if name), *options.model]
    budgets = [int(word) for word in options.nfe.split(",")]
    if options.docs:
        write_docs(names, budgets, options.fit_up_to)
        return
    for name in names:
        table, said = measure(name, budgets, options.fit_up_to)
        table.insert(1, ["---"] * len(table[0]))
        print(f"## {name}", "", said, *(f"| {' | '.join(row)} |" for row in table), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
