"""The documentation site: complete where it says so, with names that exist, and without anything from outside."""

import importlib
import re
import sys
from pathlib import Path

import pytest

import diffspace as ds
from diffspace import parts
from diffspace.cli.app import LazyCommand, app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BUILT = ROOT / "build" / "docs"


def test_every_page_of_the_reference_is_complete():
    api = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference" / "api").glob("*.rst"))
    listed = set(re.findall(r"public-names:: diffspace\.([\w.]+)", api)) | set(re.findall(r":names: (.*)", api)[0].split())
    packages = {path.parent.name for path in (ROOT / "src" / "diffspace").glob("*/__init__.py")} - {"cli", "pickles"}
    assert packages <= listed
    for name in dir(ds):
        thing = getattr(ds, name)
        places = [place for place in listed if name in vars(importlib.import_module(f"diffspace.{place}"))] if (
            name not in listed
        ) else [name]
        assert places or name.startswith("__"), f"{name} is on no page: {thing}"


def test_every_command_and_every_kind_of_part_has_its_section():
    names = []
    for name, lazy in app().commands.items():
        command = lazy.load() if isinstance(lazy, LazyCommand) else lazy
        names += [f"{name} {word}" for word in getattr(command, "commands", {})] or [name]
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert re.findall(r"\{command-options\} (.*)", page) == names
    families = re.findall(r"\{part-options\} (\w+)\n", (DOCS / "reference" / "recipe.md").read_text(encoding="utf-8"))
    assert set(families) == set(parts.FAMILIES) - {"process", "measurement"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_names_in_the_text_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`(?:ds|diffspace)\.([a-zA-Z_][\w.]*\w)", text):
        thing = ds
        for part in name.split("."):
            try:
                thing = getattr(thing, part)
            except AttributeError:
                assert hasattr(thing, "__path__"), f"{page.name}: diffspace.{name}"
                thing = importlib.import_module(f"{thing.__name__}.{part}")


@pytest.mark.skipif(not (BUILT / "index.html").exists(), reason="the site is not built: make docs")
def test_built_pages_fetch_nothing_from_outside():
    outside = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*""")
    for page in BUILT.rglob("*.html"):
        assert not outside.search(page.read_text(encoding="utf-8")), page
    for sheet in BUILT.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet
