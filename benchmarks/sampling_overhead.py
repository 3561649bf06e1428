"""What `sample()` costs beyond the denoiser, per evaluation: Heun against a minimal loop by hand, then every solver.

    python benchmarks/sampling_overhead.py

The denoiser is one multiplication. All run in this process, in turns, on the same latents in float64; loop and
`sample()` must agree. Times are divided by the number of evaluations. `sample()` is timed as a whole: checks of its
input, placement of the steps and all; "first" is a run whose weights are not in a cache yet.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import diffspace as ds
from diffspace.parts import find, kinds
from diffspace.sampling import FittedSolver


def denoiser(x: Tensor, sigma: Tensor, cond: object = None) -> Tensor:
    return x * 0.5


@torch.no_grad()
def heun_loop(latents: Tensor, n: int) -> Tensor:
    """Algorithm 1 for σ = t, s = 1 with the steps of Eq. 5: times are floats, and little is done to tensors."""
    a, b = math.pow(80, 1 / 7), math.pow(0.002, 1 / 7)
    sigmas = [math.pow(a + i / (n - 1) * (b - a), 7) for i in range(n)] + [0.0]
    x = latents * sigmas[0]
    for t, t_next in itertools.pairwise(sigmas):
        h = t_next - t
        d = (x - denoiser(x, torch.full((), t, dtype=x.dtype))).div_(t)
        x_next = x.add(d, alpha=h)
        if t_next > 0:
            d_next = (x_next - denoiser(x_next, torch.full((), t_next, dtype=x.dtype))).div_(t_next)
            x_next = x.add(d.add_(d_next), alpha=0.5 * h)
        x = x_next
    return x


def microseconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e6


def compare(shape: tuple[int, ...], num_steps: int, rounds: int) -> None:
    latents = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    steps = ds.EDMSteps(num_steps)
    evaluations = 2 * num_steps - 1

    def by_hand() -> Tensor:
        return heun_loop(latents, num_steps)

    def by_library() -> Tensor:
        return ds.sample(denoiser, latents=latents, steps=steps).x

    torch.testing.assert_close(by_library(), by_hand(), rtol=1e-12, atol=1e-12)
    pairs = [(microseconds(by_hand), microseconds(by_library)) for _ in range(rounds)]
    hand, library = (statistics.median(times) / evaluations for times in zip(*pairs, strict=True))
    ratios = [b / a for a, b in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"{shape!s:>16} {num_steps:>5} {hand:>10.1f} {library:>10.1f} {middle:>8.2f}   {low:.2f} to {high:.2f}",
        flush=True,
    )


def fitted(num_steps: int) -> ds.Sampler:
    """A table of the shape that `fit_solver` finds: in every step a weight for each evaluation so far."""
    levels = (*ds.EDMSteps(num_steps).sigmas().tolist()[:-1], 0.0)
    rows = tuple((b / a, *(1e-3,) * i) for i, (a, b) in enumerate(itertools.pairwise(levels)))
    return ds.Sampler(ds.GivenSteps(levels), FittedSolver(levels, rows))


def every_solver(shape: tuple[int, ...], num_steps: int, rounds: int) -> None:
    """The solvers of the registry beside Heun, in turns."""
    latents = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solvers = {kind: find("solver", kind)() for kind in kinds("solver") if kind not in ("fitted", "afs")}
    solvers["afs"] = ds.AnalyticalFirstStep(sigma_data=1.0)  # which a plain function does not state
    # a range of its own, so that no run before has left its weights
    steps = ds.EDMSteps(num_steps, sigma_max=80 - 1e-3 * math.prod(shape) / 1e6)
    samplers = {kind: ds.Sampler(steps, solver) for kind, solver in solvers.items() if not solver.stochastic}
    samplers |= {f"fitted-{n}": fitted(n) for n in (5, 10, 18)}
    counts, first = {}, {}
    times: dict[str, list[float]] = {kind: [] for kind in samplers}
    for turn in range(rounds + 1):
        for kind, sampler in samplers.items():
            start = time.perf_counter()
            counts[kind] = ds.sample(denoiser, latents=latents, sampler=sampler).nfe
            spent = (time.perf_counter() - start) * 1e6 / counts[kind]
            if turn == 0:
                first[kind] = spent
            else:
                times[kind].append(spent)
    heun = times["heun"]
    print(f"\n{shape!s:>16} {'NFE':>5} {'first':>10} {'median':>10} {'of Heun':>8}")
    for kind, spent in times.items():
        ratio = statistics.median(a / b for a, b in zip(spent, heun, strict=True))
        middle = statistics.median(spent)
        print(f"{kind:>16} {counts[kind]:>5} {first[kind]:>10.1f} {middle:>10.1f} {ratio:>8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each line, roughly (default 5)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"µs per evaluation, float64, {options.threads} thread(s), torch {torch.__version__}")
    print(f"{'shape':>16} {'steps':>5} {'hand loop':>10} {'sample()':>10} {'ratio':>8}   its quartiles")
    for shape, num_steps, cost in (
        ((64, 3, 32, 32), 18, 600e-6),
        ((64, 3, 32, 32), 100, 600e-6),
        ((1, 2), 18, 20e-6),
        ((1, 2), 100, 20e-6),
    ):
        compare(shape, num_steps, max(8, int(options.seconds / (2 * cost * 2 * num_steps))))
    every_solver((64, 3, 32, 32), 18, max(3, int(options.seconds)))
    every_solver((1, 2), 18, max(3, int(10 * options.seconds)))


if __name__ == "__main__":
    main()
