"""What optimised steps and fitted weights gain, on seeds and on models that the search has not seen.

For every solver of the registry and NFE 6 to 12: the root mean square error of end points with ρ = 7, and the share of
it that is left with steps optimised on the 2-D ring: on other seeds of that ring, and on a ring of 7 wider Gaussians,
turned. The last row is the fitted solver, beside the best of all solvers with ρ = 7.
"""

import argparse
import math

import torch

import diffspace as ds
from diffspace.parts import find, kinds
from diffspace.sampling import Execution, count_evaluations
from diffspace.solverlab import EndPointError, Reference, fit_solver, optimize_steps, reference

BUDGETS = (6, 8, 10, 12)


def ring(count: int, std: float, turn: float) -> ds.oracles.GaussianMixture:
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count) + turn
    means = torch.stack([angles.cos(), angles.sin()], 1)
    return ds.oracles.GaussianMixture(means, torch.full((count,), std))


def num_steps(solver: object, budget: int) -> int:
    """The most steps, the last of them to 0, that a budget pays for."""
    return max(n for n in range(1, budget + 2) if count_evaluations(solver, n) <= budget)


def error(model: object, truth: Reference, **options: object) -> EndPointError:
    return truth.error_of(ds.sample(model, latents=truth.latents, **options).x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=256, help="seeds to search with, and as many to judge with")
    count = parser.parse_args().seeds
    here, there = ring(8, 0.1, 0.0), ring(7, 0.12, 0.3)
    calibration = reference(here, seeds=range(10_000, 10_000 + count), execution=Execution(trajectory=True))
    judged = {
        "seeds": (here, reference(here, seeds=range(count))),
        "model": (there, reference(there, seeds=range(count))),
    }
    solvers = {name: find("solver", name)() for name in kinds("solver") if name not in ("fitted",)}
    solvers = {n: s for n, s in solvers.items() if not s.stochastic and s.evaluations(False) is not None}

    print(f"{'solver':24}" + "".join(f"{f'NFE {n}':>32}" for n in BUDGETS))
    print(f"{'':24}" + f"{'ρ=7':>12}{'seeds':>10}{'model':>10}" * len(BUDGETS))
    least = {budget: dict.fromkeys(judged, math.inf) for budget in BUDGETS}
    for name, solver in solvers.items():
        row = f"{name:24}"
        for budget in BUDGETS:
            n = num_steps(solver, budget)
            found = optimize_steps(here, solver, n, calibration)
            default = {k: error(m, t, solver=solver, steps=ds.EDMSteps(n)).rms for k, (m, t) in judged.items()}
            gained = {k: error(m, t, sampler=found).rms / default[k] for k, (m, t) in judged.items()}
            row += f"{default['seeds']:12.1e}{gained['seeds']:10.2f}{gained['model']:10.2f}"
            least[budget] = {k: min(least[budget][k], default[k]) for k in judged}
        print(row, flush=True)
    row = f"{'fitted, share of best':24}"
    for budget in BUDGETS:
        fitted = fit_solver(here, budget, calibration)
        shares = {k: error(m, t, sampler=fitted).rms / least[budget][k] for k, (m, t) in judged.items()}
        row += f"{least[budget]['seeds']:12.1e}{shares['seeds']:10.2f}{shares['model']:10.2f}"
    print(row)


if __name__ == "__main__":
    main()
