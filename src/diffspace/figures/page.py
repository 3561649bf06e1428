"""A page of HTML in one file, with its pictures inside: each function returns HTML, and is given text to escape."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from diffspace.figures.samples import save_image

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


def picture(source: Figure | np.ndarray, caption: str) -> str:
    """A figure, or the pixels of small images, whose squares stay sharp, with a caption below."""
    png = io.BytesIO()
    if isinstance(source, Figure):
        source.savefig(png, format="png", dpi=160)
    else:
        save_image(png, source)
    kind = "" if isinstance(source, Figure) else ' class="pixels"'
    uri = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")
    text = html.escape(caption)
    return f'<figure{kind}><img src="{uri}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def table(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text under headings; the first column names, the last one may explain."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = []
    for row in rows:
        kinds = ["", *[' class="num"'] * (len(row) - 2), ' class="note"']
        cells = (f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def section(title: str, text: str, *parts: str) -> str:
    """A heading, a paragraph, and pictures or tables side by side."""
    head = f"<h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>"
    return f'{head}<div class="parts">{"".join(parts)}</div>'


def render_page(title: str, facts: str, sections: Iterable[str]) -> str:
    """The page as one string."""
    name, body = html.escape(title), "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>\n'
        f'<body><h1>{name}</h1><p class="facts">{html.escape(facts)}</p>\n{body}\n</body></html>\n'
    )
