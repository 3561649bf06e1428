"""The command line `diffspace`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The entry point of the `diffspace` command."""
    from diffspace.cli.app import main as run

    sys.exit(run())
