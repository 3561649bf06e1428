"""Every code block of README and docs runs, or is written to its file, in order, in one folder for each page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(`{3,})([^`\n]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
MARK = "# not run in tests: "
FILE = re.compile(r"# file: (\S+)\n")  # a block that is written to a file


def blocks(page):
    """(language, text) of each block that is code; `{name}` begins a directive of the site, which Sphinx checks."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for _, language, text in found if not language.startswith("{")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_run(page, tmp_path, commands):
    environment = os.environ | {
        "PATH": os.pathsep.join((str(commands), str(Path(sys.executable).parent), os.environ["PATH"]))
    }
    for language, text in blocks(page):
        if text.startswith(MARK) or language in ("", "text"):
            continue
        if named := FILE.match(text):
            (tmp_path / named[1]).parent.mkdir(exist_ok=True)
            (tmp_path / named[1]).write_text(text, encoding="utf-8")
            continue
        assert language in ("bash", "python"), f"{page.name}: a block in {language!r} is not checked"
        command = (
            ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [commands / "diffspace", "-c", text]
        )
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stdout}{done.stderr}"


def test_marked_blocks_say_why():
    for page in PAGES:
        for _, text in blocks(page):
            if text.startswith("# not run"):
                assert len(text.splitlines()[0]) > len(MARK) + 5


def test_links_to_files_of_the_project_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        pictures = re.findall(r"<\w+ .*?src(?:set)?=\"([^\"]+)", text)
        for target in pictures + re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
