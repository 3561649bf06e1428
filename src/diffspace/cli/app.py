"""The command line: its commands, each imported when it is used, and every error of the user's on one line."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from diffspace import __version__
from diffspace.checks import first_line, is_out_of_memory, printable

# name: the function or Typer in diffspace.cli, and the line in `diffspace --help`
_COMMANDS = {
    "train": ("train:train_command", "Train a model."),
    "watch": ("watch:watch_command", "Draw loss, held-out loss, error by noise level and more."),
    "sample": ("sample:sample_command", "Draw samples from a trained model."),
    "solvers": ("solvers:solvers_command", "Measure solvers and recommend one for each budget."),
    "sweep": ("sweep:sweep_command", "Score samplers over their cost."),
    "evaluate": ("evaluate:evaluate_command", "Score a trained model and write a report."),
    "ema": ("ema:ema_command", "Make averages of the weights of any width after training."),
    "likelihood": ("likelihood:likelihood_command", "Print how likely a model finds held-out data."),
    "convert": ("convert:convert_command", "Convert a checkpoint of another project."),
    "export": ("export:export_command", "Write a model as a file that runs without diffspace."),
    "figures": ("figures:figures_command", "Draw the figures of the article, and the numbers behind them."),
    "explore": ("explore:explore_command", "Serve a page to see and move the design space by hand."),
    "reproduce": ("reproduce:reproduce_command", "Try the paper's claims at small scale and write a report."),
    "inspect": ("inspect:inspect_command", "Print statistics of a data set and the settings they suggest."),
    "data": ("data:data_app", "Prepare data sets of images, and check them."),
}

_LONGEST = 2000  # characters of a message, which may show a value of any size

# typer carries its own copy of click since 0.26, and used the real one before
_USAGE_ERRORS = tuple(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class _Interrupted(BaseException):
    """Ctrl-C, of which newer versions of typer say nothing."""


class _Group(TyperGroup):
    """The group, whose options are flags. With a default of None, typer would import pydantic to check them."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted from None

    def get_params(self, ctx: Any) -> Any:
        parameters = super().get_params(ctx)
        for parameter in parameters:
            parameter.default = False
        return parameters


class LazyCommand(TyperCommand):
    """Stands for a command whose module is imported when its options are asked for."""

    def __init__(self, name: str, place: str, help: str) -> None:
        super().__init__(name, help=help)
        self._place = place

    def load(self) -> Any:
        """The command itself."""
        module, _, attribute = self._place.partition(":")
        found = getattr(import_module(f"diffspace.cli.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
            found.command(self.name, cls=_Command)(function)
        command = get_command(found)
        command.name = self.name
        return command

    def make_context(self, *args: Any, **options: Any) -> Any:
        return self.load().make_context(*args, **options)


class _Command(TyperCommand):
    """A command whose help has a section for each `rich_help_panel`, as plain text: importing rich takes 0.2 s."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                general = "Arguments" if parameter.param_type_name == "argument" else "Options"
                title = getattr(parameter, "rich_help_panel", None) or general
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _version(value: bool | None) -> None:
    if value:
        typer.echo(f"diffspace {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None: ...


def app() -> Any:
    """The `diffspace` command with its commands."""
    typed = typer.Typer(
        name="diffspace",
        help="Train, sample and measure diffusion models in the design space of Karras et al. (2022).",
        no_args_is_help=True,
        rich_markup_mode=None,
        cls=_Group,
        callback=_options,
    )
    group: Any = get_command(typed)
    for name, (place, help) in _COMMANDS.items():
        group.add_command(LazyCommand(name, place, help))
    return group


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0, 2 for a mistake in what was given, 1 for a failure on the way, 130 for Ctrl-C.

    Errors of input, files, memory and arithmetic are printed on one line. Any other exception is a fault of the
    program, and is raised.
    """
    if "_DIFFSPACE_COMPLETE" in os.environ:
        # typer would check values with pydantic and draw help with rich; it does without what is not installed
        sys.modules.update({"pydantic": None, "rich": None})  # type: ignore[dict-item]
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_show, warnings.showwarning)
            # train starts others with its words
            code = app().main(words, "diffspace", standalone_mode=False, obj=words)
    except (KeyboardInterrupt, _Interrupted, typer.Abort):
        return _complain("interrupted", 130)
    except Exception as error:
        if isinstance(error, FloatingPointError | OSError) or is_out_of_memory(error):
            return _complain(first_line(error), 1)
        if isinstance(error, ValueError):
            return _complain(str(error) or first_line(error), 2)
        if isinstance(error, OverflowError | RecursionError):
            return _complain(f"what was given cannot be worked with: {first_line(error)}", 2)
        if not isinstance(error, _USAGE_ERRORS):
            raise
        usage: Any = error
        if type(error).__name__ == "NoArgsIsHelpError":
            usage.show()
            return 2
        return _complain(usage.format_message(), 2)
    return code if isinstance(code, int) else 0


def _show(usual: Callable[..., None], message: Warning, category: type[Warning], *where: Any, **more: Any) -> None:
    """What the library warns of, on a line of its own; other warnings as usual."""
    if category is not UserWarning:
        return usual(message, category, *where, **more)
    from diffspace.cli.console import warn

    return warn(str(message))


def _complain(message: str, code: int) -> int:
    from diffspace.cli.launch import complain

    line = " ".join(message.split())
    complain(printable(f"diffspace: {line if len(line) <= _LONGEST else line[:_LONGEST] + ' …'}"))
    return code
