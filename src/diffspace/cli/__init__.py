"""The command line `diffspace`."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """The entry point of the `diffspace` command."""
    limit_spinning()
    if "WORLD_SIZE" in os.environ:
        from diffspace.cli.launch import follow_launcher

        follow_launcher()
    from diffspace.cli.app import main as run

    sys.exit(run())


def limit_spinning() -> None:
    """Let waiting OpenMP threads spin for less time than libgomp does by default, unless the user has chosen otherwise.

    A thread that spins takes the processor from other work; one that never spins takes long to wake. Only GNU's OpenMP,
    which torch's wheels for Linux use, reads `GOMP_SPINCOUNT`, once, when torch is imported. docs/performance.md has
    figures.
    """
    chosen = any(name == "OMP_WAIT_POLICY" or name.startswith(("GOMP_", "KMP_")) for name in os.environ)
    if sys.platform == "linux" and "torch" not in sys.modules and not chosen:
        os.environ["GOMP_SPINCOUNT"] = "100000"
