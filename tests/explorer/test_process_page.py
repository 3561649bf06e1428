"""The room of processes and what all rooms share, in a real browser."""

from __future__ import annotations

import csv
import math

import pytest
import torch

import diffspace as ds
from diffspace.studies import lines_under, processes, three_modes

pytestmark = pytest.mark.browser


def test_the_first_picture_is_that_of_the_library(page):
    page.open()
    exact = lines_under(three_modes(), ds.Process(), 3.0, lines=25, columns=161)
    assert page.number("n.deviation") == exact.deviation
    assert page.number("Array.from(n.x)") == exact.x.flatten().tolist()
    assert page.page.title() == "Process – diffspace explorer"


def test_each_control_changes_the_picture_as_mathematics_says(page):
    page.open()
    page.control("process.name").locator("select").select_option("VP")
    page.drawn()
    vp, _ = processes()["VP"]
    assert page.number("n.t_max") == pytest.approx(vp.sigma_inv(3.0))
    assert page.number("n.s.at(-1)") == pytest.approx(1 / math.sqrt(10))
    straight = page.set(process__name="EDM", sigma_max=80).number("n.deviation")
    assert straight < 0.01 < page.set(process__name="rectified flow").number("n.deviation")
    page.set(process__name="VP", towards__name="EDM", share=1)
    assert page.number("n.deviation") == pytest.approx(straight)
    page.type("lines", "7").drawn()
    assert page.number("n.x.shape[1]") == 7
    assert page.number("n.sigma.at(-1)") == pytest.approx(80)


def test_formulas_are_taken_while_they_are_typed_and_errors_are_at_their_place(page):
    page.open("#process?process.name=formula")
    page.type("process.sigma", "t^2").type("process.s", "1/(1+t)")
    page.type("process.t_max", "2").drawn()
    assert page.number("n.sigma.at(-1)") == pytest.approx(4)
    assert page.number("n.f.at(-1)") == pytest.approx(-1 / 3)  # ṡ/s
    assert page.number("n.g.at(-1)") == pytest.approx(1 / 3 * math.sqrt(2 * 4 * 4))
    page.type("process.sigma", "t^2 + foo")
    page.until("document.querySelector('[data-key=\"process.sigma\"] .wrong').textContent")
    assert "unexpected" in page.wrong("process.sigma")
    assert "last settings that were right" in page.page.locator("figcaption").first.inner_text()
    page.type("process.sigma", "t - 1")
    page.until("document.querySelector('[data-key=\"process.sigma\"] .wrong').textContent.includes('positive')")
    page.type("process.sigma", "t").drawn()
    assert page.control("process.sigma").locator(".wrong").is_hidden()
    page.type("process.t_max", "-1")
    assert "expected a number from 0.001 to 1000" in page.wrong("process.t_max")


def test_a_link_leads_to_the_same_numbers(page, browser, server):
    page.open("#process?process.name=cosine&lines=9")
    page.set(data__modes=[[1, 0.1, -0.5], [2, 0.2, 0.75]], sigma_max=5, towards__name="EDM", share=0.25)
    link, numbers = page.link, page.number("[n.deviation, ...n.x]")
    page.open(link)
    assert page.number("[n.deviation, ...n.x]") == numbers
    assert page.link == link


@pytest.mark.parametrize(
    "link",
    ["#nowhere?x=1", "#process?lines=abc&sigma_max=&data.modes=1,2;x", "#process?%E0%A4%A", "#process?room=x&=&&"],
)
def test_a_broken_link_opens_the_defaults(page, link):
    page.open(link)
    assert page.number("n.x.shape[1]") == 25


def test_modes_are_moved_by_keys_and_by_the_pointer(page):
    page.open()
    handle = page.page.locator(".pad .mode").first
    handle.focus()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Shift+ArrowRight")
    page.page.keyboard.press("+")
    page.drawn()
    assert page.get("data.modes")[0] == [0.4, pytest.approx(0.138), pytest.approx(-0.89)]
    assert page.page.evaluate("document.activeElement.dataset.mode") == "0"
    page.page.keyboard.press("Delete")
    assert len(page.drawn().get("data.modes")) == 2
    box = page.page.locator(".pad .mode").first.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] / 2 + 40, box["y"])
    page.page.mouse.up()
    assert page.drawn().get("data.modes")[0][2] > 0.4
    page.page.get_by_role("button", name="Add a mode").click()
    assert len(page.drawn().get("data.modes")) == 3
    assert page.number("Math.max(...n.x.subarray(0, 25))") < 2


def test_points_of_a_csv_file_are_data_and_errors_name_the_line(page):
    page.open()
    page.page.get_by_text("Points from a CSV file").click()
    box = page.page.locator("textarea")
    for text, message in (
        ("1, 2\n3, x", "line 2: expected numbers"),
        ("1, 2\n3", "line 2: expected 2 numbers, got 1"),
        ("1,2,3", "line 1: expected one or two numbers, got 3"),
        ("5000, 1", "line 1: expected numbers from −100 to 100"),
        ("a, b\n", "no line has a number"),
    ):
        box.fill(text)
        page.page.get_by_role("button", name="Use these").click()
        assert message in page.wrong("data.points")
    box.fill("x, y\n" + "\n".join(f"{0.2 * math.cos(k)}, {math.sin(k)}" for k in range(40)))
    page.page.get_by_role("button", name="Use these").click()
    page.drawn()
    assert page.number("n.dim") == 2
    assert len(page.get("data.points")) == 40
    at_data = page.number("Array.from({length: 25}, (_, i) => [n.x[2 * i], n.x[2 * i + 1]])")
    points = torch.tensor(page.get("data.points"))
    assert float(torch.cdist(torch.tensor(at_data), points).min(1).values.max()) < 5 * 0.03
    page.page.locator("input[type=file]").set_input_files(
        {"name": "big.csv", "mimeType": "text/csv", "buffer": b"1\n" * 700_000}
    )
    page.until("document.querySelector('[data-key=\"data.points\"] .wrong').textContent.includes('1 MB')")


def test_points_are_drawn_by_the_pointer(page):
    page.open()
    page.page.get_by_role("button", name="Draw points").click()
    box = page.page.locator(".pad").bounding_box()
    page.page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.page.mouse.down()
    for k in range(12):
        page.page.mouse.move(box["x"] + 60 + 12 * k, box["y"] + 60 + 5 * k)
    page.page.mouse.up()
    assert len(page.drawn().get("data.points")) > 8
    assert page.number("n.dim") == 2


def test_time_moves_and_plays(page):
    page.open("#process?time=0.05")
    page.page.get_by_role("button", name="play from noise to data").click()
    page.until("window.explorer.state.get('time') === 0")
    assert page.page.locator(".readouts dd").first.inner_text() == "0"
    page.set(time=0.5)
    assert page.page.locator(".readouts dd").nth(1).inner_text() == "1.5"


def test_a_picture_is_saved_with_its_numbers_and_its_code(page, tmp_path):
    page.open("#process?lines=5")
    figure = page.page.locator('[data-picture="flow-lines"]')
    for kind, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("CSV", b"t,sigma,s,x_0")):
        with page.page.expect_download() as waiting:
            figure.get_by_role("button", name=f"as {kind}").click()
        file = tmp_path / f"flow.{kind.lower()}"
        waiting.value.save_as(file)
        assert file.read_bytes().startswith(start)
    with (tmp_path / "flow.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(line["x_3"]) for line in table] == page.number("Array.from({length: 161}, (_, i) => n.x[5 * i + 3])")
    figure.get_by_role("button", name="Code of").click()
    assert "lines_under(data, process, t_max, lines=5" in page.page.locator("dialog pre").first.inner_text()
    page.page.keyboard.press("Escape")
    assert page.page.locator("dialog[open]").count() == 0


def test_two_tabs_do_not_disturb_each_other(page, browser):
    page.open("#process?process.name=VP")
    other = type(page)(page.page.context.new_page(), page.address)
    other.open("#process?process.name=VE")
    for k in range(5):
        page.page.evaluate("(k) => window.explorer.state.set({ lines: 10 + k })", k)
        other.page.evaluate("(k) => window.explorer.state.set({ lines: 30 + k })", k)
    assert page.drawn().number("n.x.shape[1]") == 14
    assert other.drawn().number("n.x.shape[1]") == 34
    assert not other.faults


def test_the_newest_of_many_changes_is_what_is_shown(page):
    page.open()
    page.page.evaluate("for (let k = 2; k <= 60; k++) window.explorer.state.set({ lines: k })")
    assert page.drawn().number("n.x.shape[1]") == 60


def test_the_theme_is_light_or_dark(page):
    page.open()
    read = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.page.evaluate(read) == "rgb(255, 255, 255)"
    page.page.get_by_role("button", name="Switch between light and dark").click()
    assert page.page.evaluate(read) == "rgb(20, 24, 29)"
    page.page.reload()
    page.drawn()
    assert page.page.evaluate(read) == "rgb(20, 24, 29)"


def test_settings_of_a_link_that_are_wrong_are_said_where_no_picture_is_yet(page):
    page.open("#process?sigma_max=-5", drawn=False)
    page.until("document.querySelector('figcaption.failed')")
    assert "sigma_max: expected a number in [0.05, 200], got -5" in page.page.locator("figcaption").first.inner_text()
    page.open("#process?data.modes=")
    assert page.number("n.x.shape[1]") == 25
    page.open("#nowhere")
    assert page.page.url.endswith("#process")
