"""What is drawn is what was measured."""

import pytest
import torch

from diffspace.data import named_oracle
from diffspace.figures import draw_pareto, draw_solver_error
from diffspace.figures.style import new_figure, theme
from diffspace.sampling import AdamsBashforth, EDMSteps, Euler, Heun, Sampler
from diffspace.solverlab import REFERENCE_SAMPLER, compare_solvers, pareto, reference


@pytest.fixture(scope="module")
def comparison():
    ring = named_oracle("ring")
    truth = reference(ring, seeds=range(8), sampler=REFERENCE_SAMPLER.with_num_steps(60))
    solvers = {"euler": Euler(), "heun": Heun(), "ab": AdamsBashforth(3)}
    samplers = {f"{name}, edm": Sampler(EDMSteps(), solver) for name, solver in solvers.items()}
    return compare_solvers(ring, truth, samplers, (5, 9, 15))


def test_a_line_for_each_sampler(comparison):
    ax = new_figure(4, 3).subplots()
    draw_solver_error(ax, comparison)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert set(drawn) == {"euler", "heun", "ab"}
    assert drawn["heun"] == [[r.nfe, r.error.rms] for r in comparison.rows if r.solver == "heun"]


def test_the_front_is_emphasised_and_named(comparison):
    figure = new_figure(6, 4)
    ax = figure.subplots()
    draw_pareto(ax, comparison)
    front = pareto(comparison, margin=0.05)
    thick = max(ax.get_lines(), key=lambda line: line.get_linewidth())
    assert thick.get_color() == theme().palette[0]
    assert thick.get_xydata().tolist() == [[row.nfe, row.error.rms] for row in front]
    texts = [text.get_text() for text in ax.texts]
    assert "heun, edm" in texts
    for i, row in enumerate(front, 1):
        assert f"{i}  NFE {row.nfe}\n    {row.solver}\n    edm" in texts
    figure.canvas.draw()


def test_an_exact_sampler_has_no_place_on_the_axis_but_in_the_key():
    def one_point(x, sigma, cond=None):
        return torch.ones_like(x)

    truth = reference(one_point, shape=(2,), seeds=range(3), sampler=REFERENCE_SAMPLER.with_num_steps(20))
    comparison = compare_solvers(one_point, truth, {"euler": Sampler(EDMSteps(), Euler())}, (5,))
    assert comparison.rows[0].error.rms == 0
    ax = new_figure(4, 3).subplots()
    draw_pareto(ax, comparison)
    assert [text.get_text() for text in ax.texts] == ["1  NFE 5: no error\n    euler\n    edm"]
