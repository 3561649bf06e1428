"""Options that several commands share, and how their words are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

import diffspace as ds
from diffspace.checks import LAST_SEED, check_integer, check_seed, nearest
from diffspace.parts import import_part

if TYPE_CHECKING:
    from diffspace._shapes import Int, Tensor

    Context = typer.Context
else:
    Context = typer.Context.__mro__[1]  # typer passes an object of the base class


MOST_SAMPLES = 1_000_000
"""Samples of one command, whose seeds are a list."""


def integer_option(
    help: str, *flags: str, minimum: int = 1, maximum: int | None = None, panel: str | None = None
) -> Any:
    """An option for an integer from `minimum` to `maximum`, in a section of the help."""

    def check(context: Any, param: Any, value: int | None) -> int | None:
        if value is not None:
            check_integer(param.opts[0], value, minimum, maximum)
        return value

    return Option(*flags, help=help, callback=check, rich_help_panel=panel)


def _import(names: list[str] | None) -> list[str] | None:
    for name in names or []:
        import_part(name)
    return names


AnyModel = Annotated[
    str, Argument(help="Folder of a run or model, a checkpoint of another project, or hf:owner/name on the Hub.")
]
DATA = "digits, a point set (swissroll, …), a folder or .zip of images, an array, …"
DataOptions = Annotated[
    list[str] | None, Argument(help="Options of the data, such as size=64 holdout=1000.", show_default=False)
]
Classes = Annotated[
    list[str] | None,
    Option(
        "--class",
        help="By name, several in turn: cat,dog; repeatable, for names with commas; #3 is number 3. Default: random.",
        show_default=False,
    ),
]
Proportions = Annotated[bool, Option("--class-proportions", help="Random classes in the proportions of the data.")]
Conditions = Annotated[
    list[str] | None,
    Option(
        "--cond",
        metavar="NAME=VALUE|FILE.npz",
        help="Conditions: params=0.3,1.2 (of several samples: 0.3,1.2;0.5,2), image=x.png or a folder, or all of them "
        "in the arrays of a file, rows in turn; repeatable.",
        show_default=False,
    ),
]
Sets = Annotated[int, integer_option("Sets of n samples; distances are their mean.", maximum=1000)]
Size = Annotated[
    int | None,
    integer_option(
        "Samples in a set. Default: as many as held out, up to 10,000.", "--n", minimum=2, maximum=MOST_SAMPLES
    ),
]
Steps = Annotated[int, integer_option("Steps of the Heun sampler.")]
FirstSeed = Annotated[int, integer_option("Seed of the first sample; the others follow.", minimum=0, maximum=LAST_SEED)]
Batch = Annotated[int, integer_option("Samples in a batch.")]
ProcessCount = Annotated[
    int | None,
    integer_option(
        "Processes on this machine; torchrun starts them on several. Default: one.", "--processes", maximum=1024
    ),
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace what exists already.")]
Device = Annotated[str | None, Option(help="cpu, cuda, cuda:1 or mps. Default: the best available.")]
Parts = Annotated[
    list[str] | None,
    Option(
        "--part",
        metavar="MODULE:CLASS",
        help="Import a class of your own that the files name, such as the network of the model.",
        callback=_import,
        show_default=False,
    ),
]


def check_effect(ctx: Context, why: str, *names: str) -> None:
    """ValueError where one of these options was given, which has no effect for a reason such as "without --sweep"."""
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name) if parameter.name in names else None
        if source is not None and source.name != "DEFAULT":
            raise ValueError(f"{parameter.opts[0]}: has no effect {why}")


def load_model(source: str, device: str | None) -> ds.Model:
    """A model on the device of that name, or the best available."""
    from diffspace.train import choose_device

    return ds.load(source, device=choose_device(device))


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """`0-63,100` as the seeds 0 to 63 and 100."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise ValueError(f"{option}: expected numbers and ranges such as 0-63,100, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{option}: the range {part.strip()!r} runs backward")
        check_seed(option, last)
        if len(seeds) + last - first >= MOST_SAMPLES:
            raise ValueError(f"{option}: expected at most {MOST_SAMPLES} seeds, got {text!r}")
        seeds.extend(range(first, last + 1))
    return seeds


def choose_labels(
    model: ds.Model, classes: Sequence[str] | None, seeds: Sequence[int], proportional: bool = False
) -> Int[Tensor, "batch"] | None:
    """The named classes in turn, else random ones by seed; None for a model without classes."""
    import torch

    count = getattr(model.denoiser.network, "label_dim", len(model.class_names))
    if proportional and (classes or not count):
        raise ValueError(f"--class-proportions: has no effect {'with --class' if classes else 'without classes'}")
    if not classes:
        if count and not model.class_names:
            raise ValueError(f"--class: the model has {count} classes without names; choose by number, such as '#0'")
        return model.random_labels(seeds, proportional) if count else None
    if not count:
        raise ValueError("--class: the model was trained without classes")
    found = [number for text in classes for number in _class_numbers(text, model.class_names, count)]
    numbers = torch.tensor(found, dtype=torch.int64, device="cpu")
    model.check_labels(numbers)
    return numbers.repeat(-(-len(seeds) // len(numbers)))[: len(seeds)]


def _class_numbers(text: str, names: Sequence[str], count: int) -> list[int]:
    """The classes of a word of --class: one name, which may have commas, or names and numbers between commas."""
    if text in names:
        return [names.index(text)]
    numbers = []
    for word in (part.strip() for part in text.split(",")):
        number = re.fullmatch(r"#(\d+)", word)
        if word in names:
            numbers.append(names.index(word))
        elif number is not None and int(number[1]) < count:
            numbers.append(int(number[1]))
        else:
            raise ValueError(f"--class: {word!r} is unknown; #0 to #{count - 1} are numbers; {nearest(word, names)}")
    return numbers
