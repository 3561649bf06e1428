"""The progress bar in a pipe, in a terminal and in a notebook."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import torch

import diffspace as ds
from diffspace.oracles import FiniteData


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(bar, **options):
    data = FiniteData(torch.zeros(1, 2, dtype=torch.float64) + 1)
    ds.sample(data, seeds=range(6), steps=ds.EDMSteps(3), execution=ds.Execution(progress=bar, **options))


def test_a_pipe_has_a_line_for_each_report_and_the_last_one_always():
    pipe = io.StringIO()
    run(ds.ProgressBar("sampling", every=0, file=pipe), batch_size=3)
    lines = pipe.getvalue().splitlines()
    assert lines[0] == "sampling: 0 of 3  σ = 80"
    assert lines[3] == "sampling: 3 of 3  σ = 0"
    assert lines[-1] == "sampling: 3 of 3  from sample 3 on, σ = 0"
    seldom = io.StringIO()
    run(ds.ProgressBar(file=seldom))
    assert seldom.getvalue().splitlines() == ["0 of 3  σ = 80", "3 of 3  σ = 0"]


def test_a_terminal_has_one_line_that_is_rewritten():
    terminal = Terminal()
    run(ds.ProgressBar("sampling", every=0, file=terminal))
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().split("\r\x1b[K")[1:] == [
        "sampling: 0 of 3  σ = 80",
        "sampling: 1 of 3  σ = 2.52",
        "sampling: 2 of 3  σ = 0.002",
        "sampling: 3 of 3  σ = 0\n",
    ]


def test_a_notebook_has_a_bar_that_moves(monkeypatch):
    shown = []

    def display(bundle, *, raw, display_id):
        assert raw
        assert display_id
        shown.append(bundle["text/html"])
        return SimpleNamespace(update=lambda bundle, raw: shown.append(bundle["text/html"]))

    notebook = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    bar = ds.ProgressBar("fitting", every=0)
    for i in range(3):
        bar(i, 2, 0.12345)
    assert shown[0] == '<progress value="0" max="2"></progress> <code>fitting: 0 of 2  0.123</code>'
    assert len(shown) == 3
    assert 'value="2"' in shown[-1]
