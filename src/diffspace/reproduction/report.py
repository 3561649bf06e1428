"""The report of a reproduction: one page of HTML, the same as Markdown, pictures in two themes, CSV and JSON."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffspace.figures.article.entry import Picture, write_table
from diffspace.figures.article.page import CSS
from diffspace.figures.style import THEMES, new_figure, using
from diffspace.files import atomic_path, write_text, writing
from diffspace.reproduction.claims import RULE, Claim, mean_of
from diffspace.reproduction.pictures import pictures
from diffspace.reproduction.scale import Scale

Rows = Sequence[Mapping[str, Any]]

_PICTURES = "images/reproduce"
_PAPER = {"A": "2.48", "D": "2.09", "E": "1.88", "F": "1.79"}
_WHAT = {
    "A": "VP's preconditioning, noise distribution and weight",
    "D": "our preconditioning",
    "E": "our noise distribution and weight",
    "F": "non-leaky augmentation",
}


@dataclass(frozen=True)
class Run:
    """What a report is of.

    Args:
        scale: how much was measured, and its name.
        name: of the scale.
        results: the rows of each part.
        claims: the statements with their verdicts.
        real: the score of real training items, by data set.
        seconds: of all its sessions: on the wall, and of the processor.
        threads: of torch.
        notes: what was left out.
    """

    scale: Scale
    name: str
    results: Mapping[str, Rows]
    claims: Sequence[Claim]
    real: Mapping[str, float]
    seconds: tuple[float, float]
    threads: int
    notes: Sequence[str]


@dataclass(frozen=True)
class _Section:
    title: str
    text: str
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    picture: str = ""
    caption: str = ""
    command: str = ""


def write_report(run: Run, folder: Path) -> list[Path]:
    """Write index.html, reproduce.md, claims.csv, results.json, and a picture and a CSV of each part."""
    drawn = pictures(run.results, run.real)
    for name, picture in drawn.items():
        _draw(picture, folder, name)
        write_table(folder / f"{name}.csv", picture.tables[""])
    sections = _sections(run, {name: picture.caption for name, picture in drawn.items()})
    write_table(folder / "claims.csv", {key: [getattr(c, key) for c in run.claims] for key in Claim.__annotations__})
    record = {"scale": run.name, "real": run.real, "claims": [asdict(c) for c in run.claims], "results": run.results}
    write_text(folder / "results.json", json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(folder / "index.html", _as_html(sections))
    write_text(folder / "reproduce.md", _as_markdown(sections))
    return [folder / name for name in ("index.html", "reproduce.md", "claims.csv", "results.json")]


def _draw(picture: Picture, folder: Path, name: str) -> None:
    """The picture in both themes, where documentation has them: NAME.png and dark/NAME.png."""
    for theme in THEMES:
        path = folder / _PICTURES / ("dark" if theme == "dark" else "") / f"{name}.png"
        with using(theme), writing(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            figure = new_figure(picture.width, picture.height)
            picture.draw(figure)
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format="png", dpi=160)


def _sections(run: Run, captions: Mapping[str, str]) -> list[_Section]:
    count = Counter(claim.verdict for claim in run.claims)
    verdicts = ", ".join(f"{count[verdict]} {verdict}" for verdict in ("shown", "not shown", "cannot tell"))
    wall, cpu = (f"{seconds / 60:.0f}" for seconds in run.seconds)
    minutes = f"{wall} minutes, {cpu} of them the processor's, on {run.threads} thread{'s' if run.threads > 1 else ''}"
    text = (
        f"What the paper and the article claim of large networks, tried with small ones, in {minutes}. "
        f"{len(run.claims)} statements: {verdicts}. {RULE} A statement that is not shown "
        "here may hold at large scale: these are networks of about a hundred thousand parameters, trained for a "
        "minute, on images of 8×8 or 28×28. With this many statements, one is expected to be called shown by chance."
    )
    text += "".join(f" {note}." for note in run.notes)
    command = "diffspace reproduce" + ("" if run.name == "default" else f" --{run.name}")
    found = [_Section("The paper's claims at small scale", text, command=command)]
    headings = ("statement", "paper", "here", "verdict", "how sure")
    for part, rows in run.results.items():
        claims = [c for c in run.claims if c.part.split(",")[0] == part]
        title, what = _DESCRIBED[part]
        found.append(_Section(title, what.format(**vars(run.scale), **_facts(run)), _numbers_of(part, rows)))
        if part in captions:
            found.append(_Section("", "", None, part, captions[part]))
        body = [(_where(c) + c.says, c.paper, c.here, c.verdict, c.sure) for c in claims]
        found.append(_Section("", "", (headings, body)))
    return found


def _where(claim: Claim) -> str:
    return f"{claim.part.partition(', ')[2]}: " if ", " in claim.part else ""


def _facts(run: Run) -> dict[str, str]:
    real = ", ".join(f"{value:.3g} for {name}" for name, value in run.real.items())
    seconds = [row["seconds"] for row in run.results.get("table2", ())]
    return {"real": real or "not measured", "longest": f"{max(seconds):.0f}" if seconds else "?"}


_DESCRIBED = {
    "table2": (
        "Table 2: training, step by step",
        "Configurations A, D, E and F for VP, conditional on the class; B and C, the paper's hyperparameters and "
        "capacity, are held equal: all have the same network, optimizer, length and average. {seeds} seeds each, mean "
        "± spread; the longest training took {longest} s of processor time. The score is the Fréchet distance "
        "of {samples} samples to held-out data, in the features of a classifier of the training part; as many training "
        "items score {real}. "
        "Sampling is the paper's with 18 steps of Heun, NFE 35, and for stochastic sampling its parameters of CIFAR-10 "
        "with VP, moved to these data. In D the weight and the noise are VP's. The paper's column is FID of "
        "conditional CIFAR-10 with VP, deterministic; of C it is 2.08.",
    ),
    "figure2": (
        "Figure 2: deterministic sampling",
        "Each column has a network trained as in that column of Table 1 (VP: configuration A, seed 0), its own range "
        "of σ, and the same latents for all lines. Original: Euler with the column's steps and process; then Heun and "
        "our steps (ρ = 7) in that process; then σ(t) = t and s(t) = 1. iDDPM has discrete levels, to which all its "
        "steps are rounded, and our σ(t), s(t) already. The distance is the root mean square over {ends} samples from "
        "end points with {reference_steps} steps of fourth order, unrounded; the score is of {samples} samples.",
    ),
    "figure4": (
        "Figure 4: stochastic sampling",
        "The imperfect network is configuration E after {short_images} images, the good one after {long_images}. "
        "S_tmin, S_tmax and S_noise are those of ImageNet-64 (0.05, 50, 1.003), moved to these data. S_churn/N "
        "above √2 − 1 has no further effect. Scores of {samples} samples.",
    ),
    "tuning": (
        "Tables 4 and 5: the four parameters of the noise",
        "{trials} combinations for each network by optuna's TPE, on {samples} samples; the best is scored again with "
        "other seeds, since the best of many is partly lucky. S_tmin and S_tmax are in the paper's units of σ.",
    ),
    "augmentation": (
        "Augmentation with few data",
        "{few} training items, {few_images} images seen, with and without the paper's augmentation (A_prob = 12 %), "
        "{seeds} seeds. The loss is the mean over noise levels, 1 where nothing is learnt.",
    ),
    "article": (
        "What the article says of the ODE",
        "Of configuration E, seed 0: {ends} trajectories, as fine as in Figure 2.",
    ),
}


def _numbers_of(part: str, rows: Rows) -> tuple[Sequence[str], Sequence[Sequence[str]]] | None:
    """A table of the numbers of a part, where few say it."""
    if part == "table2":
        body = []
        for data, name in dict.fromkeys((row["data"], row["configuration"]) for row in rows):
            own = [row for row in rows if (row["data"], row["configuration"]) == (data, name)]
            scores = (mean_of([row[kind]["frechet"] for row in own]) for kind in ("deterministic", "stochastic"))
            known = mean_of([100 * row["deterministic"]["recognised"] for row in own])
            body.append((data, f"{name}: {_WHAT[name]}", *scores, f"{known} %", _PAPER[name]))
        return ("data", "configuration", "deterministic", "stochastic", "recognised", "paper"), body
    if part == "figure2":
        nfes = sorted({row["nfe"] for row in rows})
        lines = dict.fromkeys((row["column"], row["line"]) for row in rows)
        body = [(f"{column}, {line}", *(_at(rows, column, line, nfe) for nfe in nfes)) for column, line in lines]
        return ("RMS distance / Fréchet distance", *(f"NFE {nfe}" for nfe in nfes)), body
    return None


def _at(rows: Rows, column: str, line: str, nfe: int) -> str:
    row = next(r for r in rows if (r["column"], r["line"], r["nfe"]) == (column, line, nfe))
    return f"{(sum(row['squares']) / len(row['squares'])) ** 0.5:.2g} / {row['frechet']:.3g}"


def _as_html(sections: Sequence[_Section]) -> str:
    parts = []
    for k, section in enumerate(sections):
        if section.title:
            level = "h1" if k == 0 else "h2"
            parts.append(f"<{level}>{html.escape(section.title)}</{level}>")
        if section.text:
            parts.append(f"<p>{_emphasised(html.escape(section.text))}</p>")
        if section.command:
            parts.append(f"<p><code>{html.escape(section.command)}</code></p>")
        if section.picture:
            light, dark = (f"{_PICTURES}/{inner}{section.picture}.png" for inner in ("", "dark/"))
            caption = html.escape(section.caption)
            image = f'<img src="{light}" alt="{caption}">'
            source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            parts.append(f"<figure><picture>{source}{image}</picture><figcaption>{caption}</figcaption></figure>")
        if section.table:
            headings, rows = section.table
            head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
            body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            parts.append(f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>')
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>The paper\'s claims at small scale</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}{_OWN_CSS}</style>'
        f"{''.join(parts)}</html>\n"
    )


_OWN_CSS = """
body { max-width: 62rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
"""


def _emphasised(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text))


def _as_markdown(sections: Sequence[_Section]) -> str:
    parts = []
    for k, section in enumerate(sections):
        if section.title:
            parts.append(f"{'#' if k == 0 else '##'} {section.title}")
        if section.text:
            parts.append(section.text)
        if section.command:
            parts.append(f"```bash\n# not run in tests: it takes minutes\n{section.command}\n```")
        if section.picture:
            parts.append(f"![{section.caption}]({_PICTURES}/{section.picture}.png)")
        if section.table:
            headings, rows = section.table
            lines = [headings, ["---"] * len(headings), *rows]
            parts.append(
                "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
            )
    return "\n\n".join(parts) + "\n"
