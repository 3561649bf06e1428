"""A page of HTML in one file, with its pictures inside."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

_CSS = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1f2933; background: #fff;
  max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.8rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.facts { color: #616e7c; margin-top: 0; }
.parts { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
figure { margin: .5rem 0; flex: 1 1 20rem; min-width: 0; }
figure img { max-width: 100%; height: auto; display: block; }
figure.pixels img { image-rendering: pixelated; width: 100%; }
figcaption { font-size: .86rem; color: #616e7c; margin-top: .35rem; }
table { border-collapse: collapse; font-size: .92rem; margin: .6rem 0; }
th, td { text-align: left; padding: .38rem 1.1rem .38rem 0; border-bottom: 1px solid #e4e7eb; vertical-align: top; }
th { font-weight: 600; } td.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.note { color: #616e7c; font-size: .86rem; }
"""


@dataclass(frozen=True)
class Picture:
    """An image as a data: address, with its caption; `pixels` keeps the squares of small images sharp."""

    uri: str
    caption: str
    pixels: bool = False

    def render(self) -> str:
        kind = ' class="pixels"' if self.pixels else ""
        caption = html.escape(self.caption)
        return f'<figure{kind}><img src="{self.uri}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first column names, the last one may explain."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def render(self) -> str:
        head = "".join(f"<th>{html.escape(h)}</th>" for h in self.headings)
        body = []
        for row in self.rows:
            kinds = [""] + [' class="num"'] * (len(row) - 2) + [' class="note"']
            body.append("".join(f"<td{k}>{html.escape(c)}</td>" for k, c in zip(kinds, row, strict=False)))
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in body)}</table>"


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and pictures or tables side by side."""

    title: str
    text: str
    parts: tuple[Picture | Table, ...] = ()

    def render(self) -> str:
        parts = "".join(part.render() for part in self.parts)
        head = f"<h2>{html.escape(self.title)}</h2><p>{html.escape(self.text)}</p>"
        return f'{head}<div class="parts">{parts}</div>'


def render_page(title: str, facts: str, sections: Sequence[Section]) -> str:
    """The page as one string of HTML."""
    body = "\n".join(section.render() for section in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>\n'
        f'<body><h1>{html.escape(title)}</h1><p class="facts">{html.escape(facts)}</p>\n{body}\n</body></html>\n'
    )
