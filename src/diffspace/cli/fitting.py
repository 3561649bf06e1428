"""The `--fit` of `diffspace solvers`: a fitted solver for each budget, kept beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffspace.cli.console import err, progress_bar
from diffspace.data import is_oracle
from diffspace.sampler_files import load_samplers, save_sampler
from diffspace.sampling import Execution, Sampler, sample
from diffspace.solverlab import REFERENCE_SAMPLER, fit_solver, reference

if TYPE_CHECKING:
    import torch

    from diffspace.protocols import Cond, Denoiser

__all__ = ["fit_samplers"]


def fit_samplers(
    denoiser: Denoiser,
    source: str,
    seeds: Sequence[int],
    cond: Cond | None,
    budgets: Sequence[int],
    reference_steps: int,
    device: torch.device,
    *,
    batch: int | None,
    overwrite: bool,
) -> dict[str, Sampler]:
    """Fit a solver of so many evaluations for each budget, and write those of a model to its samplers.

    ValueError, before any work, where a file is there already.
    """
    keep = not is_oracle(source) and Path(source).exists()
    names = {budget: f"fitted-{budget}" for budget in budgets}
    taken = sorted(set(names.values()) & set(load_samplers(source))) if keep else []
    if taken and not overwrite:
        raise ValueError(f"--fit: {source} has {', '.join(taken)} already; add --overwrite to find them anew")
    found = {}
    with progress_bar("evaluations") as bar:
        task = bar.add_task("exact paths", total=reference_steps // 2 * 3, info="")

        def advance(_: int, state: Any) -> None:
            bar.update(task, advance=min(state.step, 1))

        truth = reference(
            denoiser,
            seeds=seeds,
            cond=cond,
            sampler=REFERENCE_SAMPLER.with_num_steps(reference_steps),
            execution=Execution(batch, device, trajectory=True, progress=advance),
        )
        for budget, name in names.items():

            def show(i: int, iterations: int, rms: float, name: str = name) -> None:
                bar.update(task, description=name, completed=i, total=iterations, info=f"RMS {rms:.2e}")

            sampler = found[name] = fit_solver(denoiser, budget, truth, batch_size=batch, progress=show)
            run = sample(
                denoiser, latents=truth.latents, cond=cond, sampler=sampler, execution=Execution(batch, device)
            )
            error = truth.error_of(run.x)
            if keep:
                notes = {"nfe": budget, "fit_seeds": len(seeds), "fit_rms": error.rms}
                path = save_sampler(sampler, source, name, notes=notes, overwrite=overwrite)
                bar.console.print(f"{path}: RMS {error.rms:.2e} on the seeds of the fit", markup=False, highlight=False)
    if not keep:
        err.print("note: what was fitted is not kept, since there is no folder of a model to keep it in", markup=False)
    return found
