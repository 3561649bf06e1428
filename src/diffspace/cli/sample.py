"""`diffspace sample`: samples of a model as a picture, as single pictures or as an array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["sample_command"]

_SPEED = "Speed"
_STEPS = "Time steps (Table 1)"
_SOLVER = "Solver and process (Table 1)"
_CHURN = "Stochastic sampling (Algorithm 2)"

MIDPOINTS = {"heun": None, "midpoint": 0.5, "ralston": 2 / 3}


def sample_command(
    model: Annotated[
        str, typer.Argument(help="Folder of a model, a .pkl, .pt or .pth of others, or owner/name on the Hub.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="A grid (x.png), an array with its seeds and labels (x.npz), or a folder of PNGs (x/)."),
    ] = Path("samples.png"),
    seeds: Annotated[str, typer.Option(help="Seeds of the samples, such as 0-63,100.")] = "0-63",
    classes: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="Class by name or index, or several dealt in turn: 0,1,2. Default: random by seed.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples made at a time.")] = 64,
    columns: Annotated[int | None, typer.Option(help="Columns of the grid.")] = None,
    subdirs: Annotated[bool, typer.Option("--subdirs", help="One folder for every 1000 seeds.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
    precision: Annotated[
        str, typer.Option(help="Of the network: float32, bfloat16 or float16.", rich_help_panel=_SPEED)
    ] = "float32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network first; takes a minute.", rich_help_panel=_SPEED)
    ] = False,
    winograd: Annotated[
        bool,
        typer.Option(
            "--winograd", help="Faster 3×3 convolutions in float32 on a CPU, for more memory.", rich_help_panel=_SPEED
        ),
    ] = False,
    steps: Annotated[int, typer.Option(help="Number of steps N.", rich_help_panel=_STEPS)] = 18,
    discretization: Annotated[
        str,
        typer.Option(
            "--discretization",
            "--disc",
            help="edm, vp, ve, iddpm, loglinear, …; with options edm:rho=5.",
            rich_help_panel=_STEPS,
        ),
    ] = "edm",
    sigma_min: Annotated[
        float | None, typer.Option("--sigma-min", "--sigma_min", help="Lowest σ before 0.", rich_help_panel=_STEPS)
    ] = None,
    sigma_max: Annotated[
        float | None, typer.Option("--sigma-max", "--sigma_max", help="Highest σ.", rich_help_panel=_STEPS)
    ] = None,
    rho: Annotated[float | None, typer.Option(help="Exponent of EDM steps, 7.", rich_help_panel=_STEPS)] = None,
    epsilon_s: Annotated[
        float | None, typer.Option(help="Last time of VP steps, 1e-3.", rich_help_panel=_STEPS)
    ] = None,
    levels: Annotated[
        int | None,
        typer.Option("--M", help="Number of levels u_j of iDDPM steps, 1000.", rich_help_panel=_STEPS),
    ] = None,
    C_1: Annotated[float | None, typer.Option("--C-1", help="C_1 of iDDPM steps.", rich_help_panel=_STEPS)] = None,
    C_2: Annotated[float | None, typer.Option("--C-2", help="C_2 of iDDPM steps.", rich_help_panel=_STEPS)] = None,
    j0: Annotated[int | None, typer.Option("--j0", help="First u_j of iDDPM steps, 8.", rich_help_panel=_STEPS)] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Steps and solver that `diffspace solvers --fit` found: a name beside the model, or a file (x.json).",
            rich_help_panel=_SOLVER,
        ),
    ] = None,
    clip: Annotated[
        bool, typer.Option(help="Move a σ range outside the model's into it.", rich_help_panel=_STEPS)
    ] = False,
    solver: Annotated[
        str,
        typer.Option(
            help="heun, euler, midpoint, ralston, …; with options ab:k=4. See `diffspace solvers`.",
            rich_help_panel=_SOLVER,
        ),
    ] = "heun",
    alpha: Annotated[
        float | None, typer.Option(help="α of the second-order family, 1 for Heun.", rich_help_panel=_SOLVER)
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="σ(t): edm (or linear), vp, ve, cosine or flow.", rich_help_panel=_SOLVER)
    ] = "edm",
    scaling: Annotated[
        str | None,
        typer.Option(help="s(t): none, vp or flow. Default: what the schedule brings.", rich_help_panel=_SOLVER),
    ] = None,
    beta_d: Annotated[
        float | None, typer.Option(help="β_d of the VP schedule or VP steps, 19.9.", rich_help_panel=_SOLVER)
    ] = None,
    beta_min: Annotated[
        float | None, typer.Option(help="β_min of the VP schedule or VP steps, 0.1.", rich_help_panel=_SOLVER)
    ] = None,
    S_churn: Annotated[
        float, typer.Option("--S-churn", "--S_churn", help="Amount of churn.", rich_help_panel=_CHURN)
    ] = 0,
    S_tmin: Annotated[
        float,
        typer.Option("--S-min", "--S_min", "--S-tmin", help="Lowest σ with churn.", rich_help_panel=_CHURN),
    ] = 0,
    S_tmax: Annotated[
        float,
        typer.Option("--S-max", "--S_max", "--S-tmax", help="Highest σ with churn.", rich_help_panel=_CHURN),
    ] = float("inf"),
    S_noise: Annotated[
        float,
        typer.Option("--S-noise", "--S_noise", help="Inflation of the noise added.", rich_help_panel=_CHURN),
    ] = 1,
) -> None:
    """Draw samples from a trained model."""
    from diffspace.cli.console import out as stdout
    from diffspace.cli.console import progress_bar
    from diffspace.cli.output import Output
    from diffspace.cli.parsing import parse_classes, parse_seeds
    from diffspace.config import from_text
    from diffspace.loading import load
    from diffspace.process import Process
    from diffspace.sampler_files import find_sampler
    from diffspace.sampling import Churn, Execution, Sampler, random_labels, sample_batches
    from diffspace.train import choose_device

    seed_list = parse_seeds(seeds)

    betas = {"beta_d": beta_d, "beta_min": beta_min}
    vp_steps, vp_schedule = discretization == "vp", schedule == "vp"
    if not (vp_steps or vp_schedule) and (beta_d is not None or beta_min is not None):
        raise ValueError("--beta-d, --beta-min: have no effect; they go with --schedule vp or --disc vp")
    placed = {
        "num_steps": steps,
        "sigma_min": sigma_min,
        "sigma_max": sigma_max,
        "rho": rho,
        "epsilon_s": epsilon_s,
        "clip": clip or None,
    }
    placed |= {"M": levels, "C_1": C_1, "C_2": C_2, "j0": j0} | (betas if vp_steps else {})
    time_steps = from_text("steps", discretization, placed)
    if sampler is not None and (solver, discretization, alpha) != ("heun", "edm", None):
        raise ValueError("--sampler: brings its own solver and steps; leave out --solver, --disc and their options")
    if sampler is not None and any(
        value is not None for value in {**placed, "num_steps": None if steps == 18 else steps}.values()
    ):
        raise ValueError("--sampler: brings its own solver and steps; leave out --steps and the options of steps")

    if solver in MIDPOINTS:
        if alpha is not None and solver != "heun":
            raise ValueError(f"--alpha: {solver} has its own; give --solver heun with --alpha")
        stepping = from_text("solver", "heun", {"alpha": MIDPOINTS[solver] if alpha is None else alpha})
    else:
        stepping = from_text("solver", solver, {"alpha": alpha})
    process = Process(
        from_text("schedule", "edm" if schedule == "linear" else schedule, betas if vp_schedule else {}),
        None if scaling is None else from_text("scaling", scaling, {}),
    )
    churn = Churn(S_churn, S_tmin, S_tmax, S_noise)
    how = Sampler(time_steps, stepping, process, churn)
    if sampler is not None:
        found = find_sampler(model, sampler)
        how = Sampler(found.steps, found.solver, process, churn)
    if S_churn == 0 and churn != Churn():
        raise ValueError("--S-min, --S-max, --S-noise: have no effect without --S-churn")

    target = choose_device(device)
    if batch < 1:
        raise ValueError(f"--batch: {batch}; want at least 1")
    loaded = load(model, device=target)
    output = Output(out, loaded.transform, loaded.sample_shape, overwrite=overwrite, columns=columns, subdirs=subdirs)
    if output.is_folder and len(set(seed_list)) < len(seed_list):
        raise ValueError(f"--seeds: {seeds!r} names a seed twice, and a folder has one picture for each")
    labels = None
    if classes is not None:
        labels = parse_classes(classes, loaded.class_names, len(seed_list))
    elif loaded.class_names:
        labels = random_labels(seed_list, loaded.sample_shape, len(loaded.class_names))
    _prepare(loaded.denoiser.network, precision, compile, winograd)

    with output, progress_bar("samples") as bar:
        task = bar.add_task("sampling", total=len(seed_list), info="")

        def show(first: int, state: Any) -> None:
            bar.update(task, info=f"step {state.step}/{state.num_steps}, σ = {state.sigma:.3g}")

        done = 0
        for samples in sample_batches(
            loaded,
            seeds=seed_list,
            sampler=how,
            cond=None if labels is None else {"labels": labels},
            execution=Execution(batch, progress=show),
        ):
            own = None if labels is None else labels[done : done + len(samples.x)]
            output.add(loaded.decode(samples.x), samples.seeds or (), own)
            done += len(samples.x)
            bar.update(task, completed=done)
    stdout.print(
        f"{out}: {len(seed_list)} samples, {samples.num_steps} steps, NFE {samples.nfe}, "
        f"σ {float(samples.sigmas[0]):g} … {float(samples.sigmas[-2]):g} → {float(samples.sigmas[-1]):g}",
        markup=False,
    )


def _prepare(network: Module, precision: str, compile: bool, winograd: bool) -> None:
    """Give the network the precision and the means that were asked for."""
    import torch

    from diffspace.networks import use_winograd

    if precision not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"--precision: {precision!r}; want float32, bfloat16 or float16")
    network.to(getattr(torch, precision))
    if winograd:
        use_winograd(network)
    if compile:
        # on a CPU, weights as constants are kept in the layout that the kernels like best
        network.compile(options={"freezing": next(network.parameters()).device.type == "cpu"})
