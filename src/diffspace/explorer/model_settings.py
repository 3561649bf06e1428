"""What the room of models asks for, checked, with the Python and the command that make the same samples."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from diffspace._shapes import Bool, Tensor
from diffspace.checks import LAST_SEED, check_integer, check_number, check_seed, nearest
from diffspace.config import from_text
from diffspace.explorer.models import IN_TURN, Offered
from diffspace.guidance import GuidanceWeight, Interval
from diffspace.sampling import Churn, EDMSteps, Sampler

SOLVERS: Mapping[str, str] = MappingProxyType(
    {
        "euler": "Euler (DDIM)",
        "heun": "Heun, order 2",
        "rk4": "Runge–Kutta, order 4",
        "dpmpp2m": "DPM-Solver++ 2M",
        "dpmpp3m": "DPM-Solver++ 3M",
        "ipndm:k=4": "iPNDM, order 4",
        "unipc:k=2": "UniPC, order 2",
    }
)
"""The solvers that the room offers besides fitted samplers, in the words of `config.from_text`, with their labels."""

METHODS = [(word, label, not from_text("solver", word).multistep) for word, label in SOLVERS.items()]
"""Words and labels with whether the solver can churn, for the page."""

IMAGES, POINTS = 36, 1000
"""The most samples of a request."""

CELLS = 32
"""The most cells of a painted mask along a side, of one or more pixels each."""

FITTED = "fitted "

LEAST, MOST = 0.001, 1000.0
"""The ends of the interval of σ in which samples are guided; from one to the other, they are guided everywhere."""


@dataclass(frozen=True)
class Draw:
    """Samples of a model: of `count` seeds from `seed` on, of a class or each in turn, by a sampler.

    They are guided where low < σ ≤ high. `method` is a solver, or "fitted NAME" for a sampler of the model's folder,
    which brings its own steps.
    """

    model: str = ""
    label: str = IN_TURN
    guidance: float = 1.0
    low: float = LEAST
    high: float = MOST
    method: str = "heun"
    num_steps: int = 18
    rho: float = 7.0
    churn: float = 0.0
    seed: int = 0
    count: int = 16

    def __post_init__(self) -> None:
        check_number("guidance", self.guidance, "[-5, 20]")
        check_number("low", self.low, f"[{LEAST:g}, {MOST:g}]")
        check_number("high", self.high, f"[{LEAST:g}, {MOST:g}]")
        if self.low >= self.high:
            raise ValueError(f"high: expected more than {self.low:g}, where the guidance begins, got {self.high:g}")
        if self.method not in SOLVERS and not self.method.startswith(FITTED):
            raise ValueError(f"method: {self.method[:40]!r} is unknown; {nearest(self.method[:40], SOLVERS)}")
        check_integer("num_steps", self.num_steps, 1, 200)
        check_number("rho", self.rho, "[0.2, 100]")
        check_number("churn", self.churn, "[0, 1000]")
        check_integer("count", self.count, 1, POINTS)
        check_integer("seed", self.seed, 0, LAST_SEED - self.count + 1)

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.count)

    @property
    def everywhere(self) -> bool:
        """Whether samples are guided at every σ."""
        return (self.low, self.high) == (LEAST, MOST)

    @property
    def weight(self) -> GuidanceWeight:
        """That of the guidance, as a function of σ where it is limited."""
        return self.guidance if self.everywhere else Interval(self.guidance, self.low, self.high)

    def sampler(self, offered: Offered) -> Sampler:
        """How to sample; ValueError for a fitted sampler that the model does not have."""
        if self.method.startswith(FITTED):
            name = self.method.removeprefix(FITTED)
            if name not in offered.samplers:
                raise ValueError(f"method: the model has no sampler {name[:40]!r}; {nearest(name, offered.samplers)}")
            return offered.samplers[name]
        solver = from_text("solver", self.method)
        if self.churn and solver.multistep:
            raise ValueError(f"churn: {SOLVERS[self.method]} remembers earlier steps, which churn would falsify; use 0")
        return Sampler(EDMSteps(self.num_steps, rho=self.rho), solver, churn=Churn(self.churn))


@dataclass(frozen=True)
class One(Draw):
    """One of these samples, by its number among them."""

    chosen: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("chosen", self.chosen, 0, self.count - 1)


@dataclass(frozen=True)
class Between(One):
    """The way from the latent of one seed to that of another, of the class of the chosen sample."""

    begin: int = 0
    end: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed("begin", self.begin)
        check_seed("end", self.end)


@dataclass(frozen=True)
class Paint(One):
    """An image of which a painted part is drawn anew.

    `image` is "sample", the chosen one, or a bundled set, of which it is number `number`. `mask` has a bit for each
    cell, row by row, as hexadecimal digits, 1 where it is drawn anew; "" is the lower half.
    """

    mask: str = ""
    image: str = "sample"
    number: int = 0
    resamplings: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("number", self.number, 0, LAST_SEED)
        check_integer("resamplings", self.resamplings, 1, 20)

    def cells(self, shape: Sequence[int]) -> tuple[Bool[Tensor, "rows columns"], int]:
        """Which cells are painted, and the pixels along a side of each."""
        height, width = shape[-2:]
        size = math.ceil(max(height, width) / CELLS)
        rows, columns = math.ceil(height / size), math.ceil(width / size)
        if not self.mask:
            half = torch.arange(rows, dtype=torch.int64, device="cpu")[:, None] >= rows // 2
            return half.expand(rows, columns), size
        digits = math.ceil(rows * columns / 4)
        if len(self.mask) != digits or set(self.mask) - set("0123456789abcdef"):
            raise ValueError(f"mask: expected {digits} hexadecimal digits for {rows}×{columns} cells")
        bits = f"{int(self.mask, 16):0{4 * digits}b}"[: rows * columns]
        painted = torch.tensor([bit == "1" for bit in bits], dtype=torch.bool, device="cpu")
        return painted.reshape(rows, columns), size

    def anew(self, shape: Sequence[int]) -> Bool[Tensor, "height width"]:
        """The pixels that are drawn anew; ValueError where that is none or all."""
        cells, size = self.cells(shape)
        pixels = cells.repeat_interleave(size, 0).repeat_interleave(size, 1)[: shape[-2], : shape[-1]]
        if bool(pixels.all()) or not bool(pixels.any()):
            what = "everything" if bool(pixels.any()) else "nothing"
            raise ValueError(f"mask: {what} is painted; paint what is to be drawn anew, and leave something")
        return pixels


def check_model(offered: Offered, settings: Draw) -> None:
    """ValueError for what this model cannot do."""
    if offered.lacks:
        raise ValueError(
            f"model: it needs the condition {offered.lacks!r} beside each sample, which the page does not have; "
            "use `diffspace sample --cond`"
        )
    most = IMAGES if offered.kind != "points" else POINTS
    check_integer("count", settings.count, 1, most)


def python_start(offered: Offered, settings: Draw, labels: Sequence[int] | None) -> list[str]:
    """The lines that make `model`, `denoiser`, `sampler`, `decode`, and `labels` where there are classes."""
    lines = ["import torch", "import diffspace as ds"]
    if offered.source:
        lines += ["", f"model = ds.load({offered.source!r})", "decode = model.decode"]
    else:
        lines += ["from diffspace.data import load_data, named_oracle", "", 'model = named_oracle("digits")']
        lines.append('decode = load_data("digits").transform.inverse')
    if offered.guided(settings.weight, labels) is offered.denoiser:
        lines.append("denoiser = model")
    else:
        weight = settings.weight
        prefix = "" if isinstance(weight, float | int) else "ds.guidance."
        lines.append(f"denoiser = ds.guidance.ClassifierFree(model, {prefix}{weight!r})")
    if settings.method.startswith(FITTED):
        name = settings.method.removeprefix(FITTED)
        lines.append(f"sampler = ds.load_samplers({offered.source!r})[{name!r}]")
    else:
        churn = f", churn=ds.Churn({settings.churn!r})" if settings.churn else ""
        solver = f"ds.{from_text('solver', settings.method)!r}"
        lines.append(f"sampler = ds.Sampler(ds.EDMSteps({settings.num_steps}, rho={settings.rho!r}), {solver}{churn})")
    return lines


def python_cond(labels: Sequence[int] | None) -> str:
    """The argument `cond`, after others."""
    if labels is None:
        return ""
    same = f"[{labels[0]}] * {len(labels)}" if len(labels) > 3 and len(set(labels)) == 1 else f"{list(labels)}"
    return f', cond={{"labels": torch.tensor({same})}}'


def command(offered: Offered, settings: Draw, labels: Sequence[int] | None) -> str:
    """The command that makes the same samples; "" where there is none."""
    if not offered.source:
        return ""
    seeds = settings.seeds
    words = ["diffspace", "sample", offered.source, "--seeds", f"{seeds[0]}-{seeds[-1]}"]
    if labels is not None:
        numbers = [f"#{k}" for k in (labels[: len(offered.classes)] if settings.label == IN_TURN else labels[:1])]
        words += ["--class", ",".join(numbers)]
        if settings.guidance != 1 and offered.has_null:
            within = "" if settings.everywhere else f":{settings.low!r},{settings.high!r}"
            words += ["--guidance", f"{settings.guidance!r}{within}"]
    elif offered.classes:
        words += ["--guidance", "0"]  # of which the class has no effect
    if settings.method.startswith(FITTED):
        words += ["--sampler", settings.method.removeprefix(FITTED)]
    else:
        words += ["--solver", settings.method, "--steps", str(settings.num_steps), "--rho", f"{settings.rho!r}"]
        if settings.churn:
            words += ["--S-churn", f"{settings.churn!r}"]
    return shlex.join([*words, "--out", "samples.png"])
