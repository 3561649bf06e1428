"""Formulas of t against Python's own arithmetic and 40-digit derivatives, and what they refuse."""

from __future__ import annotations

import math
import pickle

import mpmath
import pytest
import torch

from diffspace.config import from_text, to_config
from diffspace.process import Formula, FormulaScaling, FormulaSchedule, Process, VESchedule

CASES = {
    "t": lambda t: t,
    "2t": lambda t: 2 * t,
    "2 t (1 + t)": lambda t: 2 * t * (1 + t),
    "-t^2": lambda t: -(t**2),
    "2^-t": lambda t: 2 ** (-t),
    "2^3^t": lambda t: 2 ** (3**t),
    "t^t": lambda t: t**t,
    "1 - 2 - t": lambda t: 1 - 2 - t,
    "8 / 4 / t": lambda t: 2 / t,
    "8 ÷ 4 × t − 1": lambda t: 2 * t - 1,
    "√(t) + t²": lambda t: mpmath.sqrt(t) + t**2,
    "√t² + 3√t t": lambda t: t + 3 * mpmath.sqrt(t) * t,
    "t√√t √3t": lambda t: t * mpmath.sqrt(mpmath.sqrt(t)) * mpmath.sqrt(3) * t,
    "sqrt(exp(9.95 t^2 + 0.1 t) - 1)": lambda t: mpmath.sqrt(mpmath.exp(9.95 * t**2 + 0.1 * t) - 1),
    "ln(1 + t) ** 2": lambda t: mpmath.log(1 + t) ** 2,
    "tanh(t) sin(pi t) cos(e t) / tan(1 + t / 9)": lambda t: (
        mpmath.tanh(t) * mpmath.sin(mpmath.pi * t) * mpmath.cos(mpmath.e * t) / mpmath.tan(1 + t / 9)
    ),
    "1.5e-1 t": lambda t: mpmath.mpf("0.15") * t,
    "5": lambda t: mpmath.mpf(5),
}


@pytest.mark.parametrize(("text", "truth"), CASES.items(), ids=CASES)
def test_values_and_derivatives(text, truth):
    formula = Formula(text)
    times = [0.1, 0.73, 1.9]
    with mpmath.workdps(40):
        values = [float(truth(mpmath.mpf(t))) for t in times]
        slopes = [float(mpmath.diff(truth, mpmath.mpf(t))) for t in times]
    assert [formula(t) for t in times] == pytest.approx(values, rel=1e-13)
    assert [formula.derivative(t) for t in times] == pytest.approx(slopes, rel=1e-12, abs=1e-14)
    t = torch.tensor(times, dtype=torch.float64)
    assert formula(t).tolist() == pytest.approx(values, rel=1e-13)
    assert formula.derivative(t).tolist() == pytest.approx(slopes, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os')", "unexpected '_' at character 1"),
        ("t.real", "unexpected '.' at character 2"),
        ("x + 1", "unexpected 'x'"),
        ("exec(t)", "unexpected 'exec'"),
        ("exp t", r"expected '\(' after 'exp'"),
        ("(t", r"a '\(' that is not closed"),
        ("t)", r"unexpected '\)'"),
        ("t +", "something is missing at the end"),
        ("", "something is missing at the end"),
        ("t, 1", "unexpected ','"),
        ("(" * 60 + "t" + ")" * 60, "more than 40 levels"),
        ("-" * 100 + "t", "more than 40 levels"),
        ("t^" * 100 + "t", "more than 40 levels"),
        ("t" * 10_000_000, "at most 500 characters, got 10000000"),
    ],
)
def test_anything_else_is_refused_in_a_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        Formula(text, "--sigma")
    assert str(caught.value).startswith("--sigma: ")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["9^9^9^9", "log(-1)", "1/(t - t)", "(0 - 2)^0.5", "exp(exp(exp(99)))", "sqrt(t - 3)"])
def test_what_has_no_value_is_not_finite(text):
    assert not math.isfinite(Formula(text)(1.0))


def test_a_formula_is_a_schedule_everywhere():
    """In a process, by its word, in a config, and through pickle, with the closed form's times."""
    process = Process(from_text("schedule", "formula:text=sqrt(t)"), from_text("scaling", "formula:text=1/(1+t)"))
    assert to_config("process", process) == {
        "schedule": {"kind": "formula", "text": "sqrt(t)", "t_max": None},
        "scaling": {"kind": "formula", "text": "1/(1+t)"},
    }
    assert pickle.loads(pickle.dumps(process)) == process
    assert FormulaSchedule("sqrt(t)") != FormulaSchedule("t")
    exact, t = VESchedule(), torch.tensor([1e-6, 0.3, 50.0], dtype=torch.float64)
    torch.testing.assert_close(process.sigma_dot(t), exact.sigma_dot(t), rtol=1e-15, atol=0)
    torch.testing.assert_close(process.sigma_inv(exact.sigma(t)), t, rtol=1e-14, atol=0)
    torch.testing.assert_close(process.s_dot(t), -1 / (1 + t) ** 2, rtol=1e-14, atol=0)
    assert FormulaScaling("1/(1+t)").s(1.0, 0.0) == 0.5
