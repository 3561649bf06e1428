"""How long the numbers of each figure take, and with --draw the figures themselves.

    python benchmarks/figures.py            # medians of 15 calls at default settings, one thread
    python benchmarks/figures.py --draw     # seconds to compute, and to draw in both themes as PNG and SVG

A slider wants the numbers of the 1-D and 2-D pictures within 30 ms.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from diffspace import studies
from diffspace.averages import PowerFunction
from diffspace.presets import EDM
from diffspace.sampling import EDMSteps
from diffspace.studies.problems import log_space


def calls() -> dict[str, Callable[[], object]]:
    """The functions of `diffspace.studies` that a page would call, at default settings."""
    data, sigma, named = studies.three_modes(), log_space(0.002, 80.0, 121), studies.processes()
    levels = EDMSteps(18, sigma_min=0.01, sigma_max=3.0).sigmas().tolist()
    found = {f"lines_under, {name}": lambda p=process: studies.lines_under(data, *p) for name, process in named.items()}
    return {
        "flow_lines, strange": lambda: studies.flow_lines(data, studies.strange_process(), 1.0),
        **found,
        "octave_errors": lambda: studies.octave_errors(data, named["VP"][0], sigma),
        "tangents": lambda: studies.tangents(data),
        "stepped_lines": lambda: studies.stepped_lines(data, levels),
        "one_step": lambda: studies.one_step(data),
        "local_errors": lambda: studies.local_errors(data),
        "diffused": lambda: studies.diffused(data, 1.0),
        "algorithm_steps": lambda: studies.algorithm_steps(data, studies.churning()),
        "coefficient_curves": lambda: studies.coefficient_curves(EDM.preconditioning, sigma),
        "profile_curve": lambda: studies.profile_curve(PowerFunction(0.1), 10_000_000, batch=10_000),
    }


def milliseconds(call: Callable[[], object], repeats: int = 15) -> float:
    """The median of the processor's time, which other work on the machine hardly changes."""
    call()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true")
    if not parser.parse_args().draw:
        torch.set_num_threads(1)
        for name, call in calls().items():
            print(f"{name:<32} {milliseconds(call):6.1f} ms")
        return
    from diffspace.figures.article import ENTRIES, Subject, write_picture

    total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for entry in ENTRIES:
            started = time.perf_counter()
            picture = entry.make(Subject())
            made = time.perf_counter()
            write_picture(picture, Path(folder), entry.name)
            done = time.perf_counter()
            total += done - started
            print(f"{entry.name:<18} computed in {made - started:5.1f} s, drawn in {done - made:5.1f} s", flush=True)
    print(f"all: {total:.0f} s")


if __name__ == "__main__":
    main()
