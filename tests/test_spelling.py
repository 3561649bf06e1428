"""Solvers and steps in one word: there and back, lists of them, and mistakes."""

import pytest

from diffspace.process import VPSchedule
from diffspace.sampling import (
    AdamsBashforth,
    AnalyticalFirstStep,
    EDMSteps,
    Euler,
    GivenSteps,
    Heun,
    LogLinearSteps,
    OptimizedSteps,
    ScheduleSteps,
)
from diffspace.spelling import from_text, split_list, to_text


@pytest.mark.parametrize(
    ("family", "text", "thing"),
    [
        ("solver", "heun", Heun()),
        ("solver", "heun:alpha=0.5", Heun(0.5)),
        ("solver", "ab:k=4,prediction=x0", AdamsBashforth(4, "x0")),
        ("steps", "edm:rho=10,sigma_min=0.02", EDMSteps(rho=10, sigma_min=0.02)),
        ("steps", "loglinear", LogLinearSteps()),
        ("steps", "given:levels=[80.0,1.5,0.0]", GivenSteps((80.0, 1.5, 0.0))),
        (
            "solver",
            "afs:solver=(ab:k=4,prediction=x0),mean=0.1",
            AnalyticalFirstStep(AdamsBashforth(4, "x0"), 1.0, 0.1),
        ),
        ("solver", "afs:solver=euler,sigma_data=0.5", AnalyticalFirstStep(Euler(), 0.5)),
        ("steps", "schedule:schedule=(vp:beta_d=10)", ScheduleSteps(schedule=VPSchedule(10.0))),
        ("steps", "optimized:levels=[80.0,1.0,0.0],solver=(heun)", OptimizedSteps((80.0, 1.0, 0.0), Heun())),
    ],
)
def test_there_and_back(family, text, thing):
    assert from_text(family, text) == thing
    assert from_text(family, to_text(family, thing)) == thing


def test_what_is_a_default_is_not_said():
    assert to_text("solver", Heun(1.0)) == "heun"
    assert to_text("steps", EDMSteps(9, rho=5), omit=("num_steps",)) == "edm:rho=5"
    assert to_text("steps", EDMSteps(9)) == "edm:num_steps=9"


def test_a_list_with_commas_inside():
    text = "heun,ab:k=4,prediction=x0, given:levels=[80,1,0] ,afs:solver=(ab:k=2,prediction=x0),mean=0.1"
    words = ["heun", "ab:k=4,prediction=x0", "given:levels=[80,1,0]", "afs:solver=(ab:k=2,prediction=x0),mean=0.1"]
    assert split_list(text) == words


@pytest.mark.parametrize(
    ("family", "text", "message"),
    [
        ("solver", "huen", "solver.kind: 'huen' is unknown; did you mean 'heun'"),
        ("solver", "heun:aplha=1", "solver.aplha: 'heun' has no such option; did you mean 'alpha'"),
        ("solver", "heun:alpha", "solver: 'heun:alpha'; want kind:option=value"),
        ("solver", "heun:alpha=", "want kind:option=value"),
        ("solver", "heun:alpha=1,alpha=1", "solver.alpha: is given twice"),
        ("solver", "heun:alpha=3", "alpha: 3; want more than 0"),
        ("solver", "heun:alpha=half", "solver.alpha: 'half'; want a number"),
        ("solver", "fitted", "solver.levels: is missing; 'fitted' wants a list, each of a number"),
        ("steps", "given:levels=3", "steps.levels: 3; want a list, each of a number"),
        ("solver", "afs:solver=(huen)", "solver.kind: 'huen' is unknown"),
        ("solver", "afs:solver=(ab:k=4", "solver.kind: '\\(ab' is unknown"),
        ("steps", "", "steps.kind: '' is unknown"),
    ],
)
def test_mistakes_are_named(family, text, message):
    with pytest.raises(ValueError, match=message):
        from_text(family, text)
