"""What `diffspace watch` shows in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from diffspace.cli.plot import Line, plot, short
from diffspace.figures.curves import Curve, Curves, smooth

_COLOURS = ("blue", "red", "green", "magenta", "yellow", "cyan")
_NARROW = 76  # columns below which there is no room for two panels
_SMALL = 16  # columns of the narrowest panel
_TRAINING = {"grad_norm": "gradient norm", "learning_rate": "learning rate", "images_per_second": "images/s"}
_LINEAR = {"learning rate", "images/s"}


def duration(seconds: float) -> str:
    """`3 h 12 min`, `4 min 5 s`, `7 s`."""
    whole = max(0, round(seconds))
    units = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((i for i, (count, _) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2] if count or unit == "s")


def view(runs: Sequence[Curves], silent: Sequence[float], width: int, height: int) -> RenderableType:
    """The state of each run and its curves; `silent` has the seconds for which each has logged nothing."""
    width = max(width, 40)
    head = [line for run, since in zip(runs, silent, strict=True) for line in _state(run, since, width)]
    if all(not run.last and not run.held_out for run in runs):
        return Group(*head)
    room = max(14, min(height, 44) - len(head) - 1)
    if width < _NARROW:
        return Group(*head, *_loss(runs, width, room // 2), *_levels(runs, width, room // 2))
    upper, left = room * 3 // 5, width // 2
    small = [
        (title, [run.training[key] for run in runs])
        for key, title in _TRAINING.items()
        if any(run.training[key] for run in runs)
    ]
    for name in dict.fromkeys(name for run in runs for name in run.measured):
        small.append((name, [next(iter(run.measured.get(name, {}).values()), Curve()) for run in runs]))
    small = small[: max(1, width // _SMALL)]
    each = (width - len(small) + 1) // max(1, len(small))
    if any(run.by_sigma or run.held_out_by_sigma for run in runs):
        above = [_loss(runs, left - 1, upper), _levels(runs, width - left, upper)]
    else:
        above = [_loss(runs, width, upper)]
    return Group(
        *head, *_beside(above), *_beside([_small(curves, title, each, room - upper) for title, curves in small])
    )


def _beside(panels: Sequence[Sequence[Text]]) -> list[Text]:
    return [Text(" ").join(parts) for parts in zip(*panels, strict=True)]


def _state(run: Curves, silent: float, width: int) -> list[Text]:
    last = run.last
    if not last:
        return [Text.assemble((run.name, "bold"), "  nothing is logged yet")]
    first = Text.assemble((run.name, "bold"))
    if run.total:
        share = min(1.0, run.images / run.total)
        cells = 20
        full = round(share * cells)
        first.append("  ").append("━" * full, "green").append("━" * (cells - full), "dim")
        first.append(f" {share:.0%}")
    facts = [f"{int(run.images):,}" + (f" of {run.total:,}" if run.total else "") + " images"]
    if run.finished:
        facts.append("done")
    else:
        speed, left = last.get("images_per_second"), last.get("seconds_left")
        if isinstance(speed, int | float):
            facts.append(f"{speed:,.0f} images/s")
        if isinstance(left, int | float):
            facts.append(f"{duration(left)} left")
        if silent > 60:
            facts.append(f"silent for {duration(silent)}")
    first.append("  " + ", ".join(facts))
    figures = [f"loss {_figure(run.training['loss'])}"]
    if run.held_out:
        least = min(run.held_out.values)
        now = run.held_out.values[-1]
        figures.append(f"held-out {now:.4g}" + (f" (least {least:.4g})" if now > least else ""))
    for name, curves in run.measured.items():
        figures.append(" ".join([name, *(f"{label} {c.values[-1]:.4g}".strip() for label, c in curves.items())]))
    if run.training["grad_norm"]:
        figures.append(f"gradient norm {_figure(run.training['grad_norm'])}")
    if last.get("skipped"):
        figures.append(f"{last['skipped']} steps skipped")
    lines = [first, Text("  ".join(figures))]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _figure(curve: Curve) -> str:
    """The mean of the last records, which one batch alone does not sway."""
    recent = curve.values[-10:]
    return f"{sum(recent) / len(recent):.4g}" if recent else "–"


def _title(name: str, *keys: tuple[str, str]) -> Text:
    text = Text.assemble((f" {name}", "bold"))
    for words, style in keys:
        text.append("  ").append(words, style)
    return text


def _colour(i: int) -> str:
    """The colour of run number i."""
    return _COLOURS[i % len(_COLOURS)]


def _loss(runs: Sequence[Curves], width: int, height: int) -> list[Text]:
    lines, keys = [], []
    for i, run in enumerate(runs):
        loss, colour = run.training["loss"], _colour(i)
        if loss:
            lines.append(Line(loss.images, smooth(loss.values, len(loss.values) // 60), colour))
        if run.held_out:
            held = "red" if len(runs) == 1 else colour
            lines.append(Line(run.held_out.images, run.held_out.values, held, "•"))
        keys.append((f"⠒ {run.name}" if len(runs) > 1 else "⠒ training", colour))
    if any(run.held_out for run in runs):
        keys.append(("• held-out", "red" if len(runs) == 1 else ""))
    end = max((run.images for run in runs), default=0)
    logarithmic = all(y > 0 for line in lines for y in line.y)
    return plot(_title("loss", *keys), lines, width, height, log_y=logarithmic, x_range=(0, end) if end else None)


def _levels(runs: Sequence[Curves], width: int, height: int) -> list[Text]:
    lines: list[Line] = []
    keys: list[tuple[str, str]] = []
    trivial = next((run.trivial for run in runs if run.trivial), None)
    drawn = [(run, slices) for run in runs if (slices := run.slices(8))]
    if len(runs) == 1 and drawn and len(drawn[0][1]) > 1:
        lines.append(Line(*drawn[0][1][0].points(), "bright_black"))
        keys.append(("⠒ first", "bright_black"))
    for i, (_, slices) in enumerate(drawn):
        lines.append(Line(*slices[-1].points(), _colour(i)))
    if len(runs) == 1:
        keys += [("⠒ now", "blue")] if drawn else []
        if runs[0].held_out_by_sigma:
            lines.append(Line(*runs[0].held_out_by_sigma[-1].points(), "red", "•"))
    if trivial and lines:
        low, high = (f(x for line in lines for x in line.x) for f in (min, max))
        sigma = [low * (high / low) ** (k / width) for k in range(width + 1)]  # one for each character
        lines.insert(0, Line(sigma, [trivial] * len(sigma), "dim", "┈"))
        keys.append(("┈ trivial", "dim"))
    return plot(_title("error by σ", *keys), lines, width, height, log_x=True, log_y=True)


def _small(curves: Sequence[Curve], title: str, width: int, height: int) -> list[Text]:
    """A panel of one curve for each run."""
    lines = [
        Line(curve.images, smooth(curve.values, len(curve.values) // 40), _colour(i))
        for i, curve in enumerate(curves)
        if curve
    ]
    logarithmic = title not in _LINEAR and all(y > 0 for line in lines for y in line.y)
    low, top = (f((y for line in lines for y in line.y), default=0) for f in (min, max))
    heading = _title(title, *([(short(lines[0].y[-1]), "")] if len(lines) == 1 else []))
    end = max((line.x[-1] for line in lines), default=0)
    span = (0.0, top) if not logarithmic and low >= 0 and top > 0 else None
    return plot(heading, lines, width, height, log_y=logarithmic, y_range=span, x_range=(0, end) if end else None)
