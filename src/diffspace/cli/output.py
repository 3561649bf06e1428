"""What commands write: figures and JSON; and whether they can be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffspace.files import atomic_path, check_writable, write_text
from diffspace.model import CONFIG, WEIGHTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_target(option: str, path: Path, suffix: str, overwrite: bool) -> None:
    """ValueError, before any work is done, where `path` cannot be written or would replace something.

    It is a file that ends in `suffix`, or a folder if that is empty.
    """
    if suffix and path.suffix != suffix:
        raise ValueError(f"{option}: expected a name that ends in {suffix}, got {path}")
    if suffix and not path.parent.is_dir():
        raise ValueError(f"{option}: there is no folder {path.parent}")
    check_place(option, path)
    if path.exists():
        if path.is_dir() == bool(suffix):
            raise ValueError(f"{option}: {path} is a {'folder' if suffix else 'file'}; choose another name")
        if not overwrite and (suffix or any(path.iterdir())):
            raise ValueError(f"{option}: {path} exists already; add --overwrite to replace it")


def check_place(option: str, path: Path) -> None:
    """ValueError, before any work is done, where the file or folder `path` cannot be written."""
    try:
        check_writable(path)
    except OSError as error:
        raise ValueError(f"{option}: {path} cannot be written: {error.strerror}") from None


def check_model_folder(option: str, folder: Path, overwrite: bool) -> None:
    """ValueError where a model cannot be written into a folder, or would replace more than a model."""
    check_target(option, folder, "", overwrite)
    if folder.is_dir() and not {path.name for path in folder.iterdir()} <= {CONFIG, WEIGHTS}:
        raise ValueError(f"{option}: {folder} contains more than a model; choose another name")


def write_json(path: Path, record: Any) -> None:
    """Write a record that people read too."""
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=160)
