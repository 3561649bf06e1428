"""`edmkit evaluate`: scores of a model beside those of real data, and a report with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["evaluate_command"]


def evaluate_command(
    model: Annotated[Path, typer.Argument(help="Folder of a training run.")],
) -> None:
    """Score a trained model and write a report with pictures."""
