"""The room of models in a real browser: what each control changes, the strip, solvers, painting, and the keyboard."""

from __future__ import annotations

import csv
import time

import pytest
from random_models import DIGITS, make_model

import diffspace as ds
from diffspace.explorer.models import Offered
from diffspace.transform import Transform

pytestmark = pytest.mark.browser

TILES = "Array.from(n.tiles).join()"


class Slow:
    """A denoiser of normal data, as slow as one of large images."""

    evaluations, sample_shape = 0, (1, 8, 8)

    def __call__(self, x, sigma, cond=None):
        time.sleep(0.05)
        Slow.evaluations += 1
        return x / (1 + sigma**2)


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_model((1, 8, 8), DIGITS, label_dim=3, label_dropout=0.1).save(folder)
    ds.save_sampler(ds.Sampler(ds.EDMSteps(6), ds.AdamsBashforth(3, "x0", "log_sigma")), folder, "six")
    models = {
        "tiny": Offered.of(ds.load(folder), str(folder), ds.load_samplers(folder)),
        "plane": Offered.of(make_model((2,), Transform(), label_dim=3), "plane"),
        "signal": Offered.of(make_model((2, 16), Transform()), "signal"),
        "slow": Offered(Slow(), DIGITS, (1, 8, 8), source="slow"),
    }
    made = type(server)(models=models)
    yield made
    made.close()


@pytest.fixture
def models(page, trained):
    page.address = trained.address
    return page


def study(page, expression):
    """A value of the numbers `n` of the view that is shown."""
    read = "window.explorer.room().studies[window.explorer.state.get('m.view')].study.numbers"
    return page.page.evaluate(f"(() => {{ const n = {read}; return {expression}; }})()")


def test_without_a_model_the_room_has_the_digits_and_says_how_to_get_one(page):
    page.open("#model")
    assert page.number("n.tiles.shape") == [16, 8, 8]
    assert "diffspace train digits" in page.page.locator("#m-about").inner_text()
    assert page.page.locator('.control[data-key="m.model"]').is_hidden()
    assert page.page.locator('.control[data-key="m.guidance"]').is_hidden()
    assert page.page.locator(".tile[aria-pressed=true]").get_attribute("aria-label") == "seed 0"


def test_each_control_changes_the_samples(models):
    models.open("#model?m.count=4&m.num_steps=6")
    seen = {models.number(TILES)}
    changes = {"seed": 9, "guidance": 4, "low": 0.5, "high": 1, "num_steps": 8, "rho": 3, "churn": 20}
    for key, value in changes.items():
        models.type(f"m.{key}", str(value)).drawn()
        seen.add(models.number(TILES))
    models.control("m.label").locator("select").select_option(label="b, c")
    seen.add(models.drawn().number(TILES))
    models.control("m.method").locator("select").select_option("fitted six")
    seen.add(models.drawn().number(TILES))
    assert len(seen) == 10
    assert models.number("n.labels") == [1, 1, 1, 1]
    assert models.page.locator('.control[data-key="m.num_steps"]').is_hidden()  # the found sampler has its own
    models.page.get_by_role("button", name="Other seeds").click()
    assert models.drawn().number("n.seeds") == [13, 14, 15, 16]


def test_a_link_leads_to_the_same_images(models, browser):
    models.open("#model?m.count=3&m.num_steps=5&m.view=paint&m.chosen=2")
    models.type("m.guidance", "2.5").drawn()
    models.page.locator("canvas.mask").click(position={"x": 20, "y": 20})
    models.drawn()
    tiles, filled, link = models.number(TILES), study(models, TILES), models.link
    context = browser.new_context()
    other = type(models)(context.new_page(), models.address).open(link)
    assert (other.number(TILES), study(other, TILES)) == (tiles, filled)
    context.close()


def test_pictures_are_the_numbers_in_colours_of_the_page(models):
    models.open("#model?m.count=3&m.num_steps=5")
    read = """(() => {
      const n = window.explorer.room().numbers, canvas = document.querySelectorAll(".tile canvas")[1];
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return [canvas.width, canvas.height, Array.from(n.tiles.slice(64, 128)), Array.from(data)];
    })()"""
    width, height, values, data = models.page.evaluate(read)
    assert (width, height) == (8, 8)
    paper, ink = (255, 255, 255), (0x1F, 0x29, 0x33)
    for i, value in enumerate(values):
        for c in range(3):
            assert abs(data[4 * i + c] - (paper[c] + value / 255 * (ink[c] - paper[c]))) <= 1


def test_the_strip_is_that_of_the_selected_sample(models):
    models.open("#model?m.count=5&m.num_steps=9")
    models.page.locator("figure[data-picture=samples] .tile").nth(3).click()
    models.drawn()
    assert models.get("m.chosen") == 3
    assert study(models, "n.seed") == 3
    last = "Array.from(n.x.slice(-64)).join()"
    assert study(models, last) == models.number("Array.from(n.tiles.slice(3 * 64, 4 * 64)).join()")
    sigma = study(models, "Array.from(n.sigma)")
    assert sigma == sorted(sigma, reverse=True)
    heads = models.page.locator("figure[data-picture=way] .tag:not(.head)").all_inner_texts()
    assert len(heads) == len(sigma)
    assert float(heads[0]) == pytest.approx(sigma[0], rel=0.06)


def test_solvers_come_nearer_with_more_evaluations(models, tmp_path):
    models.open("#model?m.count=3&m.view=solvers")
    rows = study(models, "n.rows.map(({name, nfe, rms}) => [name, nfe, rms])")
    assert {name for name, _, _ in rows} == {"Euler (DDIM)", "Heun, order 2", "DPM-Solver++ 2M", "fitted six"}
    for chosen in ("Euler (DDIM)", "DPM-Solver++ 2M"):
        errors = [rms for name, _, rms in rows if name == chosen]
        assert errors[0] > 2 * errors[-1]
    with models.page.expect_download() as started:
        models.page.get_by_role("button", name="Save the numbers of Distance from").click()
    started.value.save_as(tmp_path / "errors.csv")
    with (tmp_path / "errors.csv").open() as file:
        read = list(csv.reader(file))
    assert read[0] == ["solver", "nfe", "steps", "rms"]
    assert [float(line[-1]) for line in read[1:]] == [rms for _, _, rms in rows]


def test_a_slow_computation_shows_its_progress_and_can_be_stopped(models):
    models.page.goto(f"{models.address}/#model?m.model=slow&m.count=2&m.num_steps=8")
    models.until("document.querySelectorAll('figure[data-picture=samples].busy .tile canvas').length === 2")
    models.drawn()
    models.page.evaluate("window.explorer.state.set({'m.view': 'solvers'})")
    models.until("document.querySelector('figure[data-picture=solvers] progress').value > 0.05")
    began = time.monotonic()
    assert models.page.evaluate("fetch('/api/about').then((answer) => answer.ok)")
    assert time.monotonic() - began < 2
    models.page.get_by_role("button", name="Stop").click()
    models.until("!document.querySelector('figure[data-picture=solvers]').classList.contains('busy')")
    time.sleep(0.5)
    before = Slow.evaluations
    time.sleep(0.5)
    assert Slow.evaluations == before
    assert models.page.evaluate("window.explorer.room().drawn") is False
    assert models.set(m__view="way", m__model="").number("n.kind") == "image"


def test_between_two_seeds_has_their_samples_at_its_ends(models):
    models.open("#model?m.count=6&m.num_steps=6&m.label=1&m.view=between")
    models.type("m.begin", "2").type("m.end", "5").drawn()
    assert study(models, "Array.from(n.tiles.slice(0, 64)).join()") == models.number(
        "Array.from(n.tiles.slice(2 * 64, 3 * 64)).join()"
    )
    assert study(models, "Array.from(n.tiles.slice(-64)).join()") == models.number(
        "Array.from(n.tiles.slice(-64)).join()"
    )


def test_what_is_painted_is_drawn_anew_and_the_rest_is_kept(models):
    models.open("#model?m.count=3&m.num_steps=5&m.view=paint")
    canvas = models.page.locator("canvas.mask")
    models.page.get_by_role("button", name="Nothing").click()
    models.until("document.querySelector('figure[data-picture=paint] figcaption').textContent.includes('nothing')")
    box = canvas.bounding_box()
    at = [(box["x"] + (k + 0.5) * box["width"] / 8, box["y"] + 2.5 * box["height"] / 8) for k in range(8)]
    models.page.mouse.move(*at[1])
    models.page.mouse.down()
    models.page.mouse.move(*at[4], steps=8)
    models.page.mouse.up()
    models.drawn()
    painted = study(models, "Array.from(n.cells)")
    assert [k for k, cell in enumerate(painted) if cell] == [17, 18, 19, 20]
    same = "n.seeds.every((_, k) => n.known.every((value, i) => n.anew[i] || n.tiles[64 * k + i] === value))"
    assert study(models, same)
    assert study(models, "n.seeds.some((_, k) => n.known.some((value, i) => n.tiles[64 * k + i] !== value))")


def test_by_the_keyboard_alone(models):
    models.open("#model?m.count=6&m.num_steps=5")
    keyboard = models.page.keyboard
    models.page.locator("figure[data-picture=samples] .tile[tabindex='0']").focus()
    keyboard.press("ArrowRight")
    keyboard.press("ArrowRight")
    models.drawn()
    assert models.get("m.chosen") == 2
    assert models.page.evaluate("document.activeElement.getAttribute('aria-label')") == "seed 2, class d"
    keyboard.press("End")
    assert models.drawn().get("m.chosen") == 5
    models.page.get_by_role("button", name="Paint anew").focus()
    keyboard.press("Enter")
    models.drawn()
    models.page.locator("canvas.mask").focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "Space", "ArrowRight", "Space"):
        keyboard.press(key)
    models.drawn()
    painted = [k for k, cell in enumerate(study(models, "Array.from(n.cells)")) if cell]
    assert painted == [19, 20, *range(32, 64)]  # beside the lower half, with which it begins
    assert models.page.locator(".painter [aria-live]").inner_text() == "row 3, column 5: drawn anew"


def test_other_shapes_are_shown(models):
    models.open("#model?m.model=plane&m.count=50&m.num_steps=5")
    assert models.page.locator("figure[data-picture=sample-points]").is_visible()
    assert models.page.locator("figure[data-picture=samples]").is_hidden()
    assert models.page.evaluate("document.querySelector('#room .js-plotly-plot').data[0].x.length") == 50
    for view in ("solvers", "between"):
        models.set(m__view=view)
    models.open("#model?m.model=signal&m.count=4&m.num_steps=5")
    assert models.page.locator("figure[data-picture=samples] .tile canvas").count() == 4
    models.set(m__view="paint")  # which this model has not
    assert models.page.locator("figure[data-picture=way]").is_visible()
    assert models.page.get_by_role("button", name="Paint anew").is_hidden()
    models.control("m.model").locator("select").select_option("")
    models.set(m__view="way")
    assert models.number("n.kind") == "image"


def test_errors_are_at_their_place(models):
    models.open("#model?m.count=4&m.num_steps=5")
    models.type("m.guidance", "21")
    assert "expected a number from -5 to 20" in models.wrong("m.guidance")
    models.page.evaluate("window.explorer.state.set({'m.count': 900})")
    models.until("document.querySelector('[data-key=\"m.count\"] .wrong').textContent")
    assert "from 1 to 36, got 900" in models.wrong("m.count")


def test_images_are_saved_and_code_is_shown(models, tmp_path):
    models.open("#model?m.count=4&m.num_steps=5")
    with models.page.expect_download() as started:
        models.page.get_by_role("button", name="Save Samples as PNG").click()
    started.value.save_as(tmp_path / "samples.png")
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    models.page.get_by_role("button", name="Code of Samples").click()
    text = models.page.locator("dialog").inner_text()
    assert "ds.sample(denoiser, seeds=range(0, 4)" in text
    assert "diffspace sample" in text
