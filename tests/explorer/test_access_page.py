"""The page for everybody: screen readers, keyboards, narrow screens, little movement; and how fast it answers."""

from __future__ import annotations

import statistics

import pytest

pytestmark = pytest.mark.browser
ROOMS = ("process", "sampler", "model")


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, server, room, theme):
    from axe_playwright_python.sync_playwright import Axe

    from .conftest import Page

    # axe is injected as a script, which the policy of the page forbids
    context = browser.new_context(bypass_csp=True, color_scheme=theme)
    page = Page(context.new_page(), server.address).open(f"#{room}?tour=curvature.1")
    for details in page.page.locator("details > summary").all():
        if details.is_visible():
            details.click()
    found = Axe().run(page.page).response["violations"]
    context.close()
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not serious, [(each["id"], [node["html"][:200] for node in each["nodes"][:4]]) for each in serious]


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_is_cut_off_on_a_phone(page, room):
    page.page.set_viewport_size({"width": 390, "height": 844})
    page.open(f"#{room}")
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    widths = page.page.evaluate("[...document.querySelectorAll('.plot')].map((e) => e.getBoundingClientRect().width)")
    assert all(width > 300 for width in widths if width)


def test_every_input_has_a_name(page):
    for room in ROOMS:
        page.open(f"#{room}")
        nameless = page.page.evaluate(
            "[...document.querySelectorAll('input, select, textarea')].filter((e) => !e.labels?.length"
            " && !e.getAttribute('aria-label')).map((e) => e.outerHTML)"
        )
        assert nameless == []


def test_pictures_are_described(page):
    page.open("#sampler")
    described = page.page.locator(".plot").first.get_attribute("aria-label")
    assert "35 evaluations in 18 steps" in described


@pytest.mark.parametrize(
    ("room", "key", "low", "high"), [("process", "sigma_max", 1.0, 8.0), ("sampler", "a.rho", 3.0, 12.0)]
)
def test_a_moved_slider_shows_its_picture_at_once(page, room, key, low, high):
    """The median of 50 changes, from the change to the painted picture."""
    page.open(f"#{room}")
    page.page.wait_for_timeout(2500)  # for what is made once
    page.page.evaluate("window.explorer.latencies.length = 0")
    for k in range(50):
        page.set(**{key.replace(".", "__"): low + (high - low) * ((7 * k) % 50) / 50})
    latencies = page.page.evaluate("window.explorer.latencies")
    print(f"{room}, {key}: median {statistics.median(latencies):.0f} ms of {len(latencies)}")
    assert len(latencies) >= 45
    # what is aimed at is 100 ms on two idle cores; other tests run beside this one
    assert statistics.median(latencies) < 600
