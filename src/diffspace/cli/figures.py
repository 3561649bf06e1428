"""`diffspace figures`: the figures of the article and of the paper, drawn anew, with the numbers behind them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from diffspace.checks import check_number, nearest
from diffspace.cli.options import Device, Overwrite, Parts

if TYPE_CHECKING:
    from diffspace.figures.article import Entry, Subject
    from diffspace.process import Process

_FORMATS = ("png", "svg", "pdf")


def figures_command(
    names: Annotated[
        list[str] | None, Argument(metavar="[NAME]...", help="Figures, such as strange. Default: all.")
    ] = None,
    out: Annotated[Path, Option(help="The folder for the pictures, their numbers and index.html.")] = Path("figures"),
    model: Annotated[
        str | None, Option(help="A run, a model or hf:owner/name, for figures of a trained model.", show_default=False)
    ] = None,
    sigma: Annotated[str | None, Option(help="σ(t) of your own, such as 't^2'.", show_default=False)] = None,
    s: Annotated[str | None, Option("--s", help="s(t) of your own, such as '1/(1+t)'.", show_default=False)] = None,
    t_max: Annotated[float | None, Option(help="Where your own σ(t) begins.  [default: 1]", show_default=False)] = None,
    sigma_data: Annotated[str | None, Option(help="Values of σ_data, such as 0.5,2.", show_default=False)] = None,
    formats: Annotated[str, Option("--format", help=f"Of the pictures: some of {','.join(_FORMATS)}.")] = "png,svg",
    still: Annotated[bool, Option("--still", help="No animations.")] = False,
    show_list: Annotated[bool, Option("--list", help="Print the names of all figures and stop.")] = False,
    overwrite: Overwrite = False,
    device: Device = None,
    part: Parts = None,
) -> None:
    """Draw the figures of the article and of the paper, light and dark, with the numbers behind them as CSV."""
    from diffspace.cli.console import out as stdout, table

    if show_list:
        from diffspace.figures.article import ENTRIES

        stdout.print(table(("name", "figure", "of"), [(entry.name, entry.title, entry.source) for entry in ENTRIES]))
        return
    process = _own_process(sigma, s, t_max)
    kinds = [kind.strip() for kind in formats.split(",")]
    if unknown := [kind for kind in kinds if kind not in _FORMATS]:
        raise ValueError(f"--format: {unknown[0]!r} is unknown; {nearest(unknown[0], _FORMATS)}")
    given = {"--model": model, "--sigma": sigma, "--s": s, "--t-max": t_max, "--sigma-data": sigma_data}
    chosen = _choose(names, [option for option, value in given.items() if value is not None])
    _write(chosen, _subject(process, t_max, sigma_data, model, device), out, kinds, still, overwrite)


def _choose(names: list[str] | None, options: list[str]) -> list[Entry]:
    """The figures of these names, each once; ValueError where an option has an effect on none of them."""
    from diffspace.figures.article import ENTRIES

    known = {entry.name: entry for entry in ENTRIES}
    for name in names or ():
        if name not in known:
            raise ValueError(f"NAME: {name!r} is unknown; {nearest(name, known)}")
    chosen = [known[name] for name in dict.fromkeys(names or known)]
    for option in options:
        if not any(option in entry.options for entry in chosen):
            able = ", ".join(entry.name for entry in ENTRIES if option in entry.options)
            raise ValueError(f"{option}: has no effect on {', '.join(names or ())}; it has on {able}")
    return chosen


def _own_process(sigma: str | None, s: str | None, t_max: float | None) -> Process | None:
    """The process of the user's formulas, checked; None without one."""
    if sigma is None:
        for option, value in (("--s", s), ("--t-max", t_max)):
            if value is not None:
                raise ValueError(f"{option}: has no effect without --sigma")
        return None
    from diffspace.process import Formula, Process
    from diffspace.studies.flows import check_process

    if t_max is not None:
        check_number("--t-max", t_max, "(0, inf)")
    process = Process(sigma=Formula(sigma, "--sigma"), s=Formula("1" if s is None else s, "--s"))
    check_process(process, 1.0 if t_max is None else t_max)
    return process


def _subject(
    process: Process | None, t_max: float | None, sigma_data: str | None, model: str | None, device: str | None
) -> Subject:
    from diffspace.cli.options import load_model
    from diffspace.figures.article import Subject

    given: dict[str, Any] = {"process": process, "t_max": t_max}
    if sigma_data is not None:
        given["sigma_data"] = _numbers("--sigma-data", sigma_data)
    if model is not None:
        run = Path(model) if (Path(model) / "recipe.yaml").is_file() else None
        given |= {"model": load_model(model, device), "model_name": model, "run": run}
    return Subject(**given)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """`0.5,2` as numbers above 0."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{option}: expected numbers such as 0.5,2, got {text!r}") from None
    for value in values:
        check_number(option, value, "(0, inf)")
    return tuple(dict.fromkeys(values))


def _write(chosen: list[Entry], subject: Subject, out: Path, kinds: list[str], still: bool, overwrite: bool) -> None:
    """Compute, draw and write all figures, and the page that shows them."""
    import dataclasses

    from diffspace.cli.console import Stages, out as stdout, progress_bar
    from diffspace.cli.output import check_target
    from diffspace.figures.article import render_page, write_picture
    from diffspace.files import write_text, writing

    check_target("--out", out, "", overwrite)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    done = []
    with progress_bar("figures") as bar:
        stage = Stages(bar)
        for number, entry in enumerate(chosen):
            stage(entry.name, number, len(chosen))

            def show(text: str, name: str = entry.name, number: int = number) -> None:
                stage(f"{name}: {text}", number, len(chosen))

            picture = entry.make(dataclasses.replace(subject, progress=show))
            show("drawing")
            files = write_picture(picture, out, entry.name, formats=kinds, animate=not still)
            done.append((entry, picture.caption, files))
    write_text(out / "index.html", render_page(done))
    stdout.print(f"{out / 'index.html'}: {', '.join(entry.name for entry in chosen)}")
