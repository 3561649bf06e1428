"""The room of training in a real browser: what is dragged, trained, stopped, kept and linked."""

from __future__ import annotations

import csv
import math

import pytest

pytestmark = pytest.mark.browser

RING = [[1, 0.1, math.cos(a), math.sin(a)] for a in range(6)]
QUICK = "#training?t.steps=100&t.width=16"
BUSY = "window.explorer.room().runs.active"


def peak(page):
    """ln σ where training looks most, and the distance of the levels."""
    at = page.number("Math.log(n.sigma[n.density.indexOf(Math.max(...n.density))])")
    return at, page.number("Math.log(n.sigma[1] / n.sigma[0])")


def press(page, name):
    page.page.get_by_role("button", name=name, exact=True).click()


def train(page, seconds=60):
    """Press Train, wait for the end, and return the stages of the newest run."""
    press(page, "Train")
    page.until(f"!{BUSY} && window.explorer.room().runs.newest?.done", seconds)
    return stages(page)


MEASURED = "map(({step, images, loss, excess}) => ({step, images, loss, excess}))"


def stages(page):
    return page.page.evaluate(f"window.explorer.room().runs.newest?.stages.{MEASURED}")


def runs(page):
    return page.page.evaluate("window.explorer.room().runs.list.map((run) => run.name)")


def drag(page, handle, by):
    box = page.page.locator(f'[data-handle="{handle}"]').bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse = page.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + by / 2, y, steps=3)
    mouse.move(x + by, y, steps=3)
    mouse.up()
    page.drawn()


def test_c_skip_is_a_half_at_sigma_data(page):
    page.open("#training")
    deviation = page.number("n.deviation")
    assert page.number("n.sigma_data") == deviation
    assert page.number("n.at_sigma_data.c_skip") == pytest.approx(0.5)
    page.control("t.own_sigma").locator("input").check()
    page.type("t.sigma_data", "2").drawn()
    assert page.number("n.sigma_data") == 2
    near = "n.sigma.reduce((best, v, k) => Math.abs(v - 2) < Math.abs(n.sigma[best] - 2) ? k : best, 0)"
    sigma, c_skip = page.number(f"[n.sigma[{near}], n.curves.EDM.c_skip[{near}]]")
    assert c_skip == pytest.approx(4 / (4 + sigma**2))
    # what is told wrong is seen: the network's target no longer has variance 1
    assert page.number("Math.min(...n.curves.EDM.target)") < 0.9 * page.number("Math.max(...n.curves.EDM.target)")


def test_designs_change_variances_and_the_loss_at_the_start(page):
    page.open("#training")
    assert page.number("n.curves.EDM.target.every((v) => Math.abs(v - 1) < 1e-12)")
    page.control("t.prediction").locator("select").select_option("x₀")
    page.drawn()
    assert page.number("n.curves['x₀'].signal.every((v) => v === 1)")
    assert page.number("n.curves['x₀'].c_skip.filter((v) => !Number.isNaN(v)).every((v) => v === 0)")
    page.control("t.weighting").locator("select").select_option("noise")
    page.drawn()
    # λ = 1/σ² on the error of D = 0
    first, last = page.number("[0, n.sigma.length - 1].map((k) => n.start[k] * n.sigma[k] ** 2)")
    assert first == pytest.approx(last)
    page.page.get_by_role("button", name="All choices of VE").click()
    page.drawn()
    assert [page.get(f"t.{key}") for key in ("prediction", "weighting", "draws")] == ["VE", "own", "VE"]
    assert page.number("n.curves.VE.c_in.filter((v) => !Number.isNaN(v)).every((v) => v === 1)")
    assert page.number("n.P_mean") is None
    assert page.page.locator(".handles").is_hidden()


def test_the_curve_of_the_noise_levels_is_dragged(page):
    page.open("#training")
    before, cell = peak(page)
    assert before == pytest.approx(page.number("n.P_mean"), abs=cell)
    drag(page, "mean", 60)
    assert page.get("t.draws") == "lognormal"
    after, _ = peak(page)
    assert after > before + 0.5
    assert after == pytest.approx(page.get("t.P_mean"), abs=cell)
    std = page.get("t.P_std")
    drag(page, "high", 40)
    assert page.get("t.P_std") > std + 0.3
    drag(page, "low", 40)  # towards the middle
    assert page.get("t.P_std") == pytest.approx(std, abs=0.05)
    assert page.get("t.P_mean") == pytest.approx(after, abs=cell)


def test_the_curve_of_the_noise_levels_by_keys_and_sliders(page):
    page.open("#training?t.draws=lognormal")
    knob = page.page.locator('[data-handle="mean"]')
    knob.focus()
    knob.press("ArrowRight")
    page.drawn()
    assert page.get("t.P_mean") == pytest.approx(-1.1)
    assert knob.get_attribute("aria-valuenow") == "-1.1"
    edge = page.page.locator('[data-handle="high"]')
    edge.press("Shift+ArrowLeft")
    page.drawn()
    assert page.get("t.P_std") == pytest.approx(1.19)
    page.type("t.P_mean", "0.7").type("t.P_std", "0.5").drawn()
    at, cell = peak(page)
    assert at == pytest.approx(0.7, abs=cell)
    page.type("t.P_std", "0")
    assert "expected a number from 0.05 to 5" in page.wrong("t.P_std")


@pytest.mark.parametrize("data", [None, RING])
def test_training_lowers_the_loss_towards_the_attainable_one(page, data):
    page.open("#training")
    if data:
        page.set(data__modes=data)
    found = train(page)
    attainable = page.number("n.exact.attainable_loss")
    assert [found[0]["step"], found[-1]["step"]] == [0, 400]
    assert found[-1]["loss"] > attainable
    assert found[-1]["excess"] < 0.25 * found[0]["excess"]
    # what is drawn is what was measured
    drawn = page.page.evaluate("Array.from(document.querySelector('[data-picture=learning] .plot').data[0].y)")
    assert drawn == [stage["excess"] for stage in found[1:]]
    shown = page.page.locator('[data-picture="denoiser"] figcaption')
    before = shown.inner_text()
    page.type("t.sigma", "3")
    assert "σ = 3.16" in shown.inner_text() != before
    samples = page.page.evaluate("window.explorer.room().runs.newest.stages.at(-1).samples.shape")
    assert samples == [200, 2 if data else 1]


def test_runs_are_kept_for_comparison_and_cleared(page):
    page.open(QUICK)
    slow = train(page)[-1]["loss"]
    page.set(t__prediction="VE", t__draws="VE")
    assert train(page)[-1]["loss"] > slow
    assert runs(page) == ["EDM, 100 steps, width 16", "VE, p of VE, 100 steps, width 16"]
    press(page, "Train")  # trained already
    assert "trained already" in page.page.locator("#said").inner_text()
    for seed in range(1, 6):
        page.set(t__seed=seed)
        train(page)
    assert len(runs(page)) == 6
    assert "EDM" not in runs(page)[0]  # the oldest has gone
    page.page.get_by_role("button", name="Clear all runs").click()
    assert runs(page) == []
    assert page.get("t.runs") == ""


def test_the_stages_of_a_run_can_be_gone_through_again(page):
    page.open(QUICK)
    seen = train(page)
    caption = "document.querySelector('[data-picture=samples] figcaption').innerText"
    for k in (0, 4, len(seen) - 1):
        page.type("t.stage", str(k))
        page.until(f"{caption}.startsWith('After {seen[k]['images']} images')")
        loss = page.page.locator(".readouts dd").nth(4).inner_text()
        assert float(loss) == pytest.approx(seen[k]["loss"], rel=1e-3)
    page.type("t.stage", "2")
    page.set(t__seed=1)
    later = train(page)  # is followed to its end
    page.until(f"{caption}.startsWith('After {later[-1]['images']} images')")


def test_runs_are_of_the_data_that_they_have_seen(page):
    page.open(QUICK)
    train(page)
    page.set(data__modes=[[1, 0.5, 0]])
    assert runs(page) == []
    assert page.get("t.runs") == ""


def test_stop_ends_a_training_and_keeps_its_curve(page):
    page.open("#training?t.steps=5000")
    press(page, "Train")
    page.until("window.explorer.room().runs.newest?.stages.length > 2")
    press(page, "Stop")
    count = len(stages(page))
    assert page.page.evaluate(f"{BUSY} === null")
    page.page.wait_for_timeout(1500)
    assert len(stages(page)) == count
    assert page.get("t.runs") == ""
    assert "stopped" in page.page.evaluate("document.querySelector('[data-picture=learning] .plot').data[0].name")
    # the server is free for the next one at once
    page.set(t__steps=100, t__width="16")
    assert train(page)[-1]["step"] == 100


def test_a_link_trains_its_runs_again(page, browser, server):
    page.open(QUICK + "&t.seed=4")
    page.set(t__draws="lognormal", t__P_mean=-0.3)
    first = train(page)
    page.set(t__prediction="v", t__own_sigma=True, t__sigma_data=0.7)
    second = train(page)
    link = page.link
    page.open(link)
    page.until(f"!{BUSY} && window.explorer.room().runs.list.filter((run) => run.done).length === 2", 60)
    again = page.page.evaluate(f"window.explorer.room().runs.list.map((run) => run.stages.{MEASURED})")
    assert again == [first, second]
    assert page.link == link


def test_two_pages_train_at_the_same_time_with_the_numbers_of_each_alone(page, browser, server):
    page.open(QUICK)
    alone = train(page)
    page.page.get_by_role("button", name="Clear all runs").click()
    other = browser.new_page()
    other.goto(f"{server.address}/{QUICK}&t.prediction=v")
    other.get_by_role("button", name="Train", exact=True).click()
    together = train(page)
    other.close()
    assert together == alone


def test_wrong_runs_in_a_link_are_refused_with_a_message(page):
    said = "document.querySelector('.training .failed')?.textContent"
    page.open("#training?t.runs=EDM,own,EDM,,999999,64,0")
    assert page.until(said) == "steps: expected an integer from 100 to 5000, got 999999"
    assert runs(page) == []
    page.open("#training?t.runs=%3Cimg%3E;;,,,")
    assert "is not a run" in page.until(said)
    page.until(f"!{BUSY} && window.explorer.state.get('t.runs') === ''")


def test_numbers_of_a_picture_as_csv(page, tmp_path):
    page.open(QUICK)
    found = train(page)
    with page.page.expect_download() as download:
        page.page.get_by_role("button", name="Save the numbers of How fast it learns as CSV").click()
    download.value.save_as(tmp_path / "learning.csv")
    with open(tmp_path / "learning.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss_1"]) for row in rows] == [stage["loss"] for stage in found]
    assert [int(row["images_1"]) for row in rows] == [stage["images"] for stage in found]
