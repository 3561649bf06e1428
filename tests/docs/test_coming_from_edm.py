"""The page for people who come from the reference: complete on the left, true on the right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffspace.cli.app import LazyCommand, app, main

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-edm.md"
# NVlabs/edm, commit 008a4e5: the names of the options of its programs, without what --help adds
REFERENCE = {
    "generate.py": """--network --outdir --seeds --subdirs --class --batch --steps --sigma_min --sigma_max --rho
        --S_churn --S_min --S_max --S_noise --solver --disc --schedule --scaling""",
    "train.py": """--outdir --data --cond --arch --precond --duration --batch --batch-gpu --cbase --cres --lr --ema
        --dropout --augment --xflip --fp16 --ls --bench --cache --workers --desc --nosubdir --tick --snap --dump --seed
        --transfer --resume --dry-run""",
    "dataset_tool.py": "--source --dest --max-images --transform --resolution",
    "fid.py": "--images --ref --num --seed --batch --data --dest",
}


def sections() -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """The program, our command, and the rows of each table."""
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading = re.match(r"(\S+): `diffspace ([\w ]+)`", part)
        assert heading is not None
        rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in part.splitlines() if "|" in line]
        assert all(len(row) == 3 for row in rows)
        yield heading[1], heading[2], rows[2:]  # type: ignore[misc]


def parameters(command: str) -> dict[str, Any]:
    """The options and arguments of a command, by each of their names."""
    found: Any = app()
    for word in command.split():
        found = found.commands[word]
        found = found.load() if isinstance(found, LazyCommand) else found
    names = {}
    for parameter in found.params:
        for name in (*parameter.opts, *parameter.secondary_opts, parameter.metavar, parameter.name.upper()):
            names[name] = parameter
    return names


def test_the_left_side_is_complete() -> None:
    listed = {program: [row[0].strip("`") for row in rows] for program, _, rows in sections()}
    assert listed == {program: options.split() for program, options in REFERENCE.items()}


@pytest.mark.parametrize("command", ["sample", "train", "data prepare", "evaluate"])
def test_options_on_the_right_exist(command: str) -> None:
    known = parameters(command)
    for _, ours, rows in sections():
        if ours != command:
            continue
        for _, right, remarks in rows:
            assert right == "–" or re.fullmatch(r"`[^`]+`", right), f"{right}: want one `counterpart`, or –"
            for word in right.strip("`").split():
                if "=" not in word and word != "–":
                    assert word in known, f"{command} has no {word}"
            for option in re.findall(r"`(--[\w-]+)`", remarks):
                assert option in known, f"{command} has no {option}"


def test_keys_on_the_right_are_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for shade in range(8):
            Image.new("RGB", (16, 16), (30 * shade, 9 * shade, 99)).save(tmp_path / name / f"{shade}.png")
    counterparts = [row[1].strip("`") for _, command, rows in sections() if command == "train" for row in rows]
    settings = [text for text in counterparts if "=" in text]
    assert len(settings) > 15
    for text in settings:
        assert main(["train", str(tmp_path), *text.split(), "--dry-run"]) == 0, capsys.readouterr().err
    capsys.readouterr()
