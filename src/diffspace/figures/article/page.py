"""A page of HTML that shows figures beside each other, light or dark as the reader's system is."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from diffspace.figures.article.entry import Entry

CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --quiet: #616e7c; --paper: #fff; --line: #e4e7eb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --quiet: #9aa5b1; --paper: #14181d; --line: #2b323b; } }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); background: var(--paper);
  max-width: 46rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.8rem 0 0; }
nav { columns: 2; font-size: .92rem; margin: 1.2rem 0; }
nav a { display: block; }
a { color: inherit; }
figure { margin: .6rem 0; }
img { max-width: 100%; height: auto; display: block; }
figcaption, .facts { font-size: .9rem; color: var(--quiet); margin: .35rem 0; }
"""


def render_page(figures: Sequence[tuple[Entry, str, Sequence[Path]]]) -> str:
    """The page of some figures, each with its caption and its files, which lie beside the page."""
    links = "".join(f'<a href="#{entry.name}">{html.escape(entry.title)}</a>' for entry, _, _ in figures)
    sections = "".join(_section(entry, caption, [file.name for file in files]) for entry, caption, files in figures)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Figures of diffspace</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{CSS}</style><h1>The design space of diffusion models, in figures</h1>"
        f'<p class="facts">Made by <code>diffspace figures</code>.</p><nav>{links}</nav>{sections}</html>\n'
    )


def _section(entry: Entry, caption: str, files: Sequence[str]) -> str:
    shown = _picture(entry, files, ".gif") + (_picture(entry, files, ".png") or _picture(entry, files, ".svg"))
    others = ", ".join(f'<a href="{name}">{name}</a>' for name in files if not name.endswith(".gif"))
    return (
        f'<h2 id="{entry.name}">{html.escape(entry.title)}</h2><p class="facts">{html.escape(entry.source)}</p>'
        f"<figure>{shown}<figcaption>{html.escape(caption)}</figcaption></figure>"
        f'<p class="facts">{others}</p>'
    )


def _picture(entry: Entry, files: Sequence[str], suffix: str) -> str:
    """The picture in the reader's theme; empty if there is none of this kind."""
    light, dark = (f"{entry.name}-{theme}{suffix}" for theme in ("light", "dark"))
    if light not in files:
        return ""
    image = f'<img src="{light}" alt="{html.escape(entry.title, quote=True)}">'
    return f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">{image}</picture>'
