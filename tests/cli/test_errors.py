"""Whatever happens to a command is told in one line, which is never empty and names the file."""

import errno
import os

import pytest
import torch

from diffspace.cli import app


def fails(error):
    def main(*args, **options):
        raise error

    return lambda: type("Group", (), {"main": staticmethod(main)})


CPU = (
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000 bytes. Error code 12 (Cannot allocate memory)\nframe #0: c10::ThrowEnforceNotMet"
)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("steps: one\ntwo"), 2, "steps: one two"),
        (ValueError(), 2, "ValueError without a message"),
        (RuntimeError(CPU), 1, "out of memory, for 4000000000000 bytes"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU"),
            1,
            "out of memory, for 20.00 MiB",
        ),
        (MemoryError(), 1, "out of memory"),
        (MemoryError("micro_batch: not even 1 sample fits"), 1, "micro_batch: not even 1 sample fits"),
        (OverflowError("cannot convert float infinity to integer"), 2, "cannot convert float infinity to integer"),
        (RecursionError("maximum recursion depth exceeded"), 2, "it is nested too deeply"),
        (FloatingPointError("denoiser: not finite"), 1, "denoiser: not finite"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x/a.npz"), 1, "x/a.npz: No space left on device"),
        (OSError(), 1, "OSError without a message"),
        (ValueError("x" * 10_000), 2, "x" * 2000 + " …"),
    ],
)
def test_one_line(monkeypatch, capsys, error, code, line):
    monkeypatch.setattr(app, "app", fails(error))
    assert app.main([]) == code
    told = capsys.readouterr().err
    assert told.startswith("diffspace: ")
    assert told.endswith(f"{line}\n")
    assert told.count("\n") == 1


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    monkeypatch.setattr(app, "app", fails(AttributeError("'NoneType' object has no attribute 'x'")))
    with pytest.raises(AttributeError):
        app.main([])


def test_an_interrupted_command_says_so(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffspace.data.load_data", interrupted)
    assert app.main(["inspect", "digits"]) == 130
    assert capsys.readouterr().err == "diffspace: interrupted\n"
