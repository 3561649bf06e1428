"""`diffspace sweep`: the quality of samples over their cost, for several samplers, guidance weights and churn."""

from __future__ import annotations

import io
import re
from csv import writer as csv_writer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

import diffspace as ds
from diffspace.checks import check_number
from diffspace.cli.options import AnyModel, Context, Device, Overwrite, Parts, integer_option

if TYPE_CHECKING:
    from diffspace.cli.sweep_run import Record
    from diffspace.metrics.sweep import Quality, Reached, SweepPoint

_CALIBRATION = "1000000-1000127"


def sweep_command(
    ctx: Context,
    source: AnyModel,
    nfe: Annotated[str, Option(help="Budgets: evaluations of the denoiser for a sample.")] = "5,8,12,18,25,35",
    samplers: Annotated[
        str | None,
        Option(
            help="heun, dpmpp2m@loglinear:sigma_min=0.02, a stored sampler, recommended, fitted, diffusers, "
            "diffusers:NAME. Default: heun, recommended, fitted, and diffusers where it is installed."
        ),
    ] = None,
    guidance: Annotated[str, Option(help="Guidance weights, such as none,2,2:0.3,5.")] = "none",
    churn: Annotated[str, Option(help="Values of S_churn, for samplers that take churn.")] = "0",
    score: Annotated[Literal["frechet", "kid"], Option(help="The score.")] = "frechet",
    features: Annotated[
        str | None,
        Option(
            help="inception, dinov2, efficientnet, classifier, pca, identity, a TorchScript file or module:Class. "
            "Default: efficientnet for colour images where it is installed, else a classifier if there are classes."
        ),
    ] = None,
    weights: Annotated[
        str | None, Option(help="Published weights of inception or dinov2: a path, or download.")
    ] = None,
    seeds: Annotated[str, Option(help="Seeds of the samples that are scored.")] = "0-999",
    calibration: Annotated[str, Option(help="Other seeds, on which recommended and fitted are found.")] = _CALIBRATION,
    solvers: Annotated[str | None, Option(help="Solvers to recommend from. Default: all.")] = None,
    steps: Annotated[str | None, Option(help="Kinds of steps to recommend from. Default: several.")] = None,
    reference_steps: Annotated[int, Option(help="Steps of the reference, for distances from the end points.")] = 400,
    tolerance: Annotated[float, Option(help="A score that is higher by this share is as good.")] = 0.05,
    out: Annotated[Path | None, Option(help="Draw the curves (x.png), light, and dark beside it (x-dark.png).")] = None,
    figures: Annotated[
        Path | None, Option("--json", help="Write every figure (x.json); a sweep that was killed goes on from it.")
    ] = None,
    csv: Annotated[Path | None, Option("--csv", help="Write the table (x.csv).")] = None,
    overwrite: Overwrite = False,
    batch: Annotated[int, integer_option("Samples in a batch.")] = 250,
    device: Device = None,
    part: Parts = None,
) -> None:
    """Score samples of a run over their evaluations, for several samplers, and say when each equals Heun's with 35.

    All samplers have the same seeds, with the conditions of held-out data in turn.
    """
    from diffspace.cli.console import Stages, out as stdout, progress_bar, warn
    from diffspace.cli.options import check_effect, load_model, parse_seeds
    from diffspace.cli.output import check_target
    from diffspace.cli.runs import load_data_of, open_recipe
    from diffspace.cli.scores.quality import Measure
    from diffspace.cli.scores.real import RealData
    from diffspace.cli.solvers import parse_budgets, parse_choice
    from diffspace.cli.sweep_methods import FITTED, RECOMMENDED, parse_methods
    from diffspace.cli.sweep_run import Record, Request, SweepRun
    from diffspace.files import write_text
    from diffspace.metrics.sweep import BLOCKS
    from diffspace.train import choose_device

    for option, path, suffix in (("--out", out, ".png"), ("--csv", csv, ".csv")):
        if path is not None:
            check_target(option, path, suffix, overwrite)
    if figures is not None:
        check_target("--json", figures, ".json", overwrite or figures.is_file())
    check_number("--tolerance", tolerance, "[0, inf)")
    budgets, words = parse_budgets(nfe), parse_methods(samplers, source)
    if not {RECOMMENDED, FITTED} & set(words):
        check_effect(ctx, f"without {RECOMMENDED} or {FITTED} in --samplers", "solvers", "steps", "calibration")
    seed_list, other = parse_seeds(seeds), parse_seeds(calibration, "--calibration")
    if set(other) & set(seed_list):
        raise ValueError("--calibration: expected other seeds than --seeds, on which the result is judged")
    if len(seed_list) < 2 * BLOCKS:
        raise ValueError(f"--seeds: expected at least {2 * BLOCKS}, for errors, got {len(seed_list)}")
    request = Request(
        source,
        budgets,
        words,
        _parse_guidance(guidance),
        _parse_churn(churn),
        seed_list,
        other,
        parse_choice(solvers, steps, budgets),
        reference_steps,
        ds.Execution(batch, choose_device(device)),
    )
    recipe = open_recipe(Path(source))
    model = load_model(source, device)
    if weights is not None and features is None:
        raise ValueError("--weights: has no effect without --features")
    data = load_data_of(Path(source), recipe, model, warn)
    measure = Measure(RealData(*data), score, features, weights, request.execution.device)
    denoisers = request.denoisers(model, measure)
    record = Record(figures, request.facts(model, measure), overwrite)
    with progress_bar("evaluations") as bar:
        SweepRun(request, model, denoisers, measure, record, Stages(bar)).run()
    record.write(_report(record, tolerance))
    if csv is not None:
        write_text(csv, _as_csv(record))
    if out is not None:
        _draw(out, record, source)
    written = [str(path) for path in (figures, csv, out) if path is not None]
    if written:
        stdout.print("\n" + ", ".join(written))


def _parse_guidance(text: str) -> list[str]:
    """`none,2,2:0.3,5` as "", "2" and "2:0.3,5"."""
    from diffspace.cli.guided import parse_weight

    words = re.findall(r"[^,:]*:[^,]*(?:,[^,]*)?|[^,]+", text)
    weights = ["" if word.strip() == "none" else word.strip() for word in words]
    for weight in filter(None, weights):
        parse_weight(weight)
    if not weights or len(set(weights)) < len(weights):
        raise ValueError(f"--guidance: expected weights such as none,2,2:0.3,5, each once, got {text!r}")
    return weights


def _parse_churn(text: str) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"--churn: expected numbers such as 0,20, got {text!r}") from None
    for value in values:
        check_number("--churn", value, "[0, inf)")
    return list(dict.fromkeys(values))


def _report(record: Record, tolerance: float) -> list[dict[str, Any]]:
    """Print the scores, and when each method is as good as the target; returns the latter for JSON."""
    from diffspace.cli.console import err, out, table
    from diffspace.metrics.sweep import SCORE_NAMES, TARGET, TARGET_NFE, best_of, least, reach, targets

    known = targets(record.points)
    rows = []
    for point in sorted(record.points, key=lambda point: (point.guidance, point.name, point.nfe)):
        if point.quality is None:
            err.print(f"failed: {point.name}, NFE {point.nfe}: {point.failure}")
            continue
        target = known.get(point.guidance)
        above = "" if target is None or target.quality is None else _plus(point.quality.above(target.quality))
        value = f"{point.quality.value:.4g} ± {point.quality.standard_error:.2g}"
        rms = "" if point.rms is None else f"{point.rms:.1e}"
        rows.append((point.name, str(point.nfe), f"{1e3 * point.seconds:.3g}", value, above, rms, point.sampler))
    headings = ("method", "NFE", "ms", SCORE_NAMES[record.score], f"above {TARGET} {TARGET_NFE}", "RMS", "sampler")
    out.print(table(headings, rows))
    real, n = record.notes["real"], record.notes["n"]
    few = "" if real.get("n", n) >= n else f" of {real['n']}, fewer than the samples, which is too high"
    out.print(
        f"\n{n} samples, the same seeds for all; real data: {real['value']:.4g} ± {real['standard_error']:.2g}{few}. "
        "ms: wall-clock time of a sample. RMS: distance of the first samples from the end points of the ODE."
    )
    results = []
    for target in known.values():
        reached = reach(record.points, target, tolerance)
        best = best_of(reached, "diffusers:")
        lines = [
            (f"{one.name}{' (the best of diffusers)' if one is best else ''}", *_cells(one, target)) for one in reached
        ]
        out.print(f"\nas good as {target.name} at NFE {target.nfe}, or worse by at most {tolerance:.0%}:")
        out.print(table(("method", "not excluded from", "shown from", "time of a sample"), lines))
        choices = least(record.points, target.guidance)
        out.print(
            f"\nthe least {SCORE_NAMES[record.score]}{_of(target.guidance)}, and others within two standard errors:"
        )
        for one in choices:
            out.print(f"  NFE ≤ {one.budget}: {'; '.join(map(_named, (one.point, *one.close)))}")
        results.append({"guidance": target.guidance, "tolerance": tolerance, "methods": [o.as_dict() for o in reached]})
        results[-1]["least"] = [one.as_dict() for one in choices]
    return results


def _of(guidance: str) -> str:
    return f" with guidance {guidance}" if guidance else ""


def _named(point: SweepPoint) -> str:
    """A method, with its evaluations where it takes fewer than the budget."""
    return point.name if point.nfe == point.budget else f"{point.name} ({point.nfe})"


def _plus(difference: Quality) -> str:
    return f"{difference.value:+.2g} ± {difference.standard_error:.2g}" if any(difference.blocks) else ""


def _cells(one: Reached, target: SweepPoint) -> tuple[str, str, str]:
    """NFE from which the quality is not excluded, from which it is shown, and the time that this takes."""
    possible, shown = ("not reached" if point is None else f"NFE {point.nfe}" for point in (one.possible, one.shown))
    if one.shown is None:
        return possible, shown, ""
    faster = "" if one.shown is target else f", {target.seconds / one.shown.seconds:.2g} times as fast"
    return possible, shown, f"{1e3 * one.shown.seconds:.3g} ms{faster}"


def _as_csv(record: Record) -> str:
    """A line for each score."""
    names = (
        "method",
        "guidance",
        "churn",
        "budget",
        "nfe",
        "seconds",
        "cpu_seconds",
        record.score,
        "standard_error",
        "rms",
        "sampler",
    )
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerow(names)
    for point in record.points:
        quality = (None, None) if point.quality is None else (point.quality.value, point.quality.standard_error)
        values = (point.method, point.guidance, point.churn, point.budget, point.nfe, point.seconds, point.cpu_seconds)
        writer.writerow((*values, *quality, point.rms, point.sampler))
    return text.getvalue()


def _draw(path: Path, record: Record, source: str) -> None:
    """The picture in both themes, x.png and x-dark.png."""
    from diffspace.cli.output import write_figure
    from diffspace.figures import sweep_figure
    from diffspace.figures.style import using
    from diffspace.metrics.sweep import SCORE_NAMES

    for theme, target in (("light", path), ("dark", path.with_name(f"{path.stem}-dark{path.suffix}"))):
        with using(theme):
            title = f"{source}: {record.notes['n']} samples"
            write_figure(
                target, sweep_figure(record.points, record.notes["real"]["value"], title, SCORE_NAMES[record.score])
            )
