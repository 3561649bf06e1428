"""The command line `edmkit`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The entry point of the `edmkit` command."""
    from edmkit.cli.app import main as run

    sys.exit(run())
