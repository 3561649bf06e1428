"""Exact end points, and solvers fitted to them, with what is under way shown: for `solvers` and `sweep`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import diffspace as ds
from diffspace.cli.console import Stages
from diffspace.protocols import Cond, Denoiser
from diffspace.solverlab import REFERENCE_SAMPLER, Reference, SolverSearch, search_solver

_KEPT = 100  # states of the exact paths, between which they are interpolated


def exact_ends(
    denoiser: Denoiser,
    seeds: Sequence[int],
    cond: Cond | None,
    steps: int,
    execution: ds.Execution,
    stage: Stages,
    *,
    shape: tuple[int, ...] | None = None,
    trajectory: bool = False,
) -> Reference:
    """The reference of some seeds.

    Args:
        denoiser: of which they sample.
        seeds: of the latents.
        cond: their conditions.
        steps: of the reference.
        execution: batch size and device.
        stage: told how far it is.
        shape: of a sample, where the denoiser does not know it.
        trajectory: keep the paths, to which solvers are fitted.
    """
    progress = stage.steps(len(seeds), execution.batch_size or len(seeds))
    return ds.reference(
        denoiser,
        seeds=seeds,
        shape=shape,
        cond=cond,
        sampler=REFERENCE_SAMPLER.with_num_steps(steps),
        execution=dataclasses.replace(
            execution, trajectory=max(1, steps // _KEPT) if trajectory else False, progress=progress
        ),
    )


def fit_each(
    denoiser: Denoiser,
    budgets: Sequence[int],
    truth: Reference,
    ends: Reference | None,
    execution: ds.Execution,
    stage: Stages,
    evaluations: int | None = None,
) -> Iterator[tuple[str, int, SolverSearch]]:
    """For each budget the name `fitted-BUDGET`, the budget, and what the search on the paths of `truth` found.

    The end points of `ends` judge it; without them, those of some of `truth`, which are left out of the fit.
    `evaluations` limits each search.
    """
    for budget in budgets:
        name = f"fitted-{budget}"
        stage(name)
        found = search_solver(
            denoiser,
            budget,
            truth,
            validation=ends,
            evaluations=evaluations,
            batch_size=execution.batch_size,
            progress=lambda i, iterations, rms: stage.show(i, iterations, f"RMS {rms:.2e}"),
        )
        yield name, budget, found
