"""The room of samplers in a real browser: each control changes the picture as mathematics says."""

from __future__ import annotations

import math

import pytest

from diffspace.explorer.sampler_settings import SOLVERS

pytestmark = pytest.mark.browser
RING = [[1, 0.1, math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)]


def choose(page, key, value):
    page.control(key).locator("select").select_option(value)
    return page.drawn()


def test_solvers_have_their_order_and_their_evaluations(page):
    page.open("#sampler?data.modes=1,0.5,0")
    errors = {}
    for word in ("euler", "heun"):
        choose(page, "a.solver", word)
        for steps in (20, 40):
            page.type("a.num_steps", str(steps)).drawn()
            errors[word, steps] = page.number("n.a.rms")
            assert page.number("n.a.nfe") == (steps if word == "euler" else 2 * steps - 1)
            assert page.number("n.a.sigma.length") == steps + 1
    assert errors["euler", 20] / errors["euler", 40] == pytest.approx(2, rel=0.25)
    assert errors["heun", 20] / errors["heun", 40] > 3.5
    midpoint = page.type("a.alpha", "0.5").drawn().number("n.a.rms")
    assert midpoint != errors["heun", 40]


def test_every_solver_of_the_list_can_be_chosen(page):
    page.open("#sampler?a.num_steps=40")
    for word, label in SOLVERS.items():
        if word == "fitted":
            continue
        choose(page, "a.solver", word)
        assert page.control("a.solver").locator("option:checked").inner_text() == label
        assert page.number("n.a.distance") < 0.25


def test_rho_and_the_range_place_the_steps(page):
    page.open("#sampler")
    page.type("a.rho", "3").drawn()
    rho, top, low, n = 3.0, 80.0, 0.002, 18
    levels = [(top ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - top ** (1 / rho))) ** rho for i in range(n)]
    assert page.number("Array.from(n.a.sigma)") == pytest.approx([*levels, 0.0])
    page.type("sampler.sigma_max", "20").type("sigma_min", "0.05").drawn()
    assert page.number("[n.a.sigma[0], n.a.sigma.at(-2)]") == pytest.approx([20, 0.05])
    choose(page, "a.steps", "loglinear")
    ratios = page.number("Array.from({length: 17}, (_, i) => n.a.sigma[i + 1] / n.a.sigma[i])")
    assert ratios == pytest.approx([(0.05 / 20) ** (1 / 17)] * 17)


def test_churn_goes_up_before_it_goes_down(page):
    page.open("#sampler?a.S_churn=5&a.num_steps=20&tracks=4")
    lifted = page.number("Array.from(n.a.sigma_hat, (v, i) => v / n.a.sigma[i])")
    assert lifted == pytest.approx([1.25] * 20)
    assert page.page.locator("table.measured tbody tr").first.locator("td").nth(1).inner_text() == "–"
    page.type("a.S_tmax", "1").drawn()
    lifted = page.number("Array.from(n.a.sigma_hat, (v, i) => v / n.a.sigma[i])")
    assert lifted[0] == 1
    assert lifted[-1] == pytest.approx(1.25)
    assert page.page.evaluate("document.querySelector('[data-picture=trajectories-a] .plot').data[1].visible") is True


def test_two_settings_are_side_by_side_on_the_same_noise(page):
    page.open("#sampler")
    page.page.get_by_label("a second sampler B on the same noise").check()
    page.drawn()
    start = "Array.from({length: 12}, (_, i) => n.%s.x[i])"
    assert page.number(start % "a") == page.number(start % "b")
    assert page.number("n.b.nfe") == 35
    assert page.page.locator("table.measured tbody tr").count() == 3
    assert page.page.locator('[data-picture="trajectories-b"]').is_visible()
    page.type("b.num_steps", "70").drawn()
    assert page.number("n.b.rms") < page.number("n.a.rms") * 3


def test_steps_are_taken_one_by_one_with_tangents_to_the_denoiser(page):
    page.open("#sampler?a.solver=euler&a.num_steps=10&step=4&tracks=2")
    trace = "document.querySelector('[data-picture=trajectories-a] .plot').data[3]"
    ends = page.page.evaluate(f"[{trace}.x[1], {trace}.y[1]]")
    assert ends == [0, page.number("n.a.denoised[4 * 2]")]
    page.page.get_by_role("button", name="a step on").click()
    assert page.get("step") == 5
    for _ in range(8):
        page.page.get_by_role("button", name="a step on").click()
    assert page.get("step") == 10
    assert page.page.evaluate(f"{trace}.visible") is False


def test_the_best_for_a_budget_is_found_and_shown(page):
    page.open("#sampler?a.solver=euler&a.num_steps=6")
    page.set(data__modes=RING)
    page.page.get_by_role("button", name="Find the best").click()
    page.drawn(120)
    assert page.number("n.b.nfe") == 6
    assert page.number("n.b.rms") < 0.5 * page.number("n.a.rms")
    assert "samples that the search has not seen" in page.page.locator("p.help[role=status]").inner_text()
    link, error = page.link, page.number("n.b.rms")
    page.open(link).drawn(120)
    assert page.number("n.b.rms") == error


def test_the_front_has_ones_own_choice_as_a_point(page):
    page.open("#sampler?a.num_steps=10")
    plot = "document.querySelector('[data-picture=front] .plot').data"
    page.until(f"{plot}?.length >= 9")
    own = page.page.evaluate(f"(() => {{ const t = {plot}.at(-1); return [t.x[0], t.y[0], t.name]; }})()")
    assert own == [19, page.number("n.a.rms"), "A"]


def test_wrong_settings_are_explained_at_their_place(page):
    page.open("#sampler?a.solver=sde&a.num_steps=40")
    page.type("a.beta", "1/(t")
    page.until("document.querySelector('[data-key=\"a.beta\"] .wrong').textContent")
    assert "not closed" in page.wrong("a.beta")
    page.type("a.beta", "").drawn()
    page.type("a.num_steps", "3")
    page.until("document.querySelector('figcaption.failed')")
    page.type("a.num_steps", "40").drawn()
    page.open("#sampler?process.name=formula", drawn=False)
    page.until("document.querySelector('[data-key=\"a.steps\"] .wrong')?.textContent")
    assert "only equal steps in the time t" in page.wrong("a.steps")
    choose(page, "a.steps", "time")
    assert page.number("n.a.rms") >= 0


def test_data_of_the_plane(page):
    page.open("#sampler?a.num_steps=30&compare=true")
    page.set(data__modes=RING)
    assert page.number("n.dim") == 2
    assert page.number("n.a.elsewhere") < 0.05
    assert page.number("n.a.distance") < 0.1
