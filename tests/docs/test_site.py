"""The documentation site: complete where it says so, with names that exist, and without anything from outside."""

import importlib
import re
from pathlib import Path

import pytest

import diffspace as ds
from diffspace import parts

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NOT_MODULES = {"json", "plugins"}  # diffspace.json is a file, diffspace.plugins a group of entry points
BUILT = ROOT / "build" / "docs"


def test_every_public_name_is_on_a_page_of_the_library():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference" / "api").glob("*.rst"))
    places = re.findall(r"public-names:: (diffspace\S*)\n(?!   :names:)", pages)
    packages = {f"diffspace.{path.parent.name}" for path in (ROOT / "src" / "diffspace").glob("*/__init__.py")}
    assert packages - {"diffspace.cli", "diffspace.pickles"} <= set(places)
    listed = set(re.findall(r"\w+", " ".join(re.findall(r":names: (.*)", pages))))
    listed |= {name for place in places for name in vars(importlib.import_module(place))}
    assert {name for name in dir(ds) if not name.startswith("__") and not hasattr(getattr(ds, name), "__path__")} <= (
        listed | {"presets"}
    )


def test_every_family_of_parts_has_a_section():
    families = re.findall(r"\{part-options\} (\w+)\n", (DOCS / "reference" / "recipe.md").read_text(encoding="utf-8"))
    assert set(families) == set(parts.FAMILIES) - {"process", "measurement"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_names_in_the_text_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`(?:ds|diffspace)\.([a-zA-Z_][\w.]*\w)", text):
        if name in NOT_MODULES:
            continue
        thing = ds
        for part in name.split("."):
            try:
                thing = getattr(thing, part)
            except AttributeError:
                assert hasattr(thing, "__path__"), f"{page.name}: diffspace.{name}"
                thing = importlib.import_module(f"{thing.__name__}.{part}")


def test_examples_of_the_gallery_find_their_models():
    """Where one is missing, the example trains for minutes while the site is built."""
    gallery = ROOT / "examples" / "gallery"
    for example in gallery.glob("plot_*.py"):
        for model in re.findall(r'"(models/[\w./-]+)"', example.read_text(encoding="utf-8")):
            assert (gallery / model).exists(), f"{example.name}: {model}; make gallery"


@pytest.mark.skipif(not (BUILT / "index.html").exists(), reason="the site is not built: make docs")
def test_built_pages_fetch_nothing_from_outside():
    outside = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*""")
    for page in BUILT.rglob("*.html"):
        assert not outside.search(page.read_text(encoding="utf-8")), page
    for sheet in BUILT.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet
