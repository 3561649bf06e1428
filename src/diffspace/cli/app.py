"""The command line: every error of the user's on one line, with exit code 2."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from diffspace import __version__
from diffspace.cli.convert import convert_command
from diffspace.cli.data import data_app
from diffspace.cli.ema import ema_command
from diffspace.cli.evaluate import evaluate_command
from diffspace.cli.inspect import inspect_command
from diffspace.cli.likelihood import likelihood_command
from diffspace.cli.sample import sample_command
from diffspace.cli.solvers import solvers_command
from diffspace.cli.train import train_command
from diffspace.cli.watch import watch_command

__all__ = ["app", "main"]

# typer carries its own copy of click since 0.26, and used the real one before
_USAGE_ERRORS = tuple(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="diffspace",
    help="Train, sample and measure diffusion models in the design space of Karras et al. (2022).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(value: bool | None) -> None:
    if value:
        typer.echo(f"diffspace {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None: ...


app.command("train")(train_command)
app.command("watch")(watch_command)
app.command("sample")(sample_command)
app.command("solvers")(solvers_command)
app.command("evaluate")(evaluate_command)
app.command("ema")(ema_command)
app.command("likelihood")(likelihood_command)
app.command("convert")(convert_command)
app.command("inspect")(inspect_command)
app.add_typer(data_app)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0, 2 for the user's mistakes, 1 for a failed computation, 130 for Ctrl-C."""
    try:
        code = app(arguments, standalone_mode=False)
    except ValueError as error:
        return _complain(str(error), 2)
    except (FloatingPointError, MemoryError, OSError) as error:
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", 130)
    except Exception as error:
        if not isinstance(error, _USAGE_ERRORS):
            raise
        return _complain(getattr(error, "format_message", error.__str__)(), 2)
    return code if isinstance(code, int) else 0


def _complain(message: str, code: int) -> int:
    print(f"diffspace: {' '.join(message.split())}", file=sys.stderr)
    return code
