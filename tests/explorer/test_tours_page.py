"""Guided tours in a real browser: every question can be answered by moving something, one tour by keys alone."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser
ANSWER = "document.querySelector('#tour .answer').textContent"


FACTS = """(() => {
  const room = window.explorer.room(), n = room.numbers;
  const measured = ({nfe, rms, distance, spread}) => ({nfe, rms, distance, spread});
  const [a, b] = [n.a, n.b].map((side) => side && measured(side));
  const runs = (room.runs?.list ?? []).map((run) => run.stages.at(-1).loss);
  return {bent: n.deviation, missed: n.euler_error, exact: n.distance, a, b, runs};
})()"""

# what the sentences of a step say of the numbers before and after its move
CLAIMS = {
    ("processes", 1): lambda old, new: new["bent"] > 2 * old["bent"],
    ("processes", 3): lambda old, new: new["bent"] < old["bent"] / 2,
    ("curvature", 0): lambda old, new: new["bent"] < 0.02,
    ("curvature", 1): lambda old, new: new["bent"] > old["bent"] and new["missed"] < old["missed"],
    ("curvature", 4): lambda old, new: old["a"]["rms"] < new["a"]["rms"] < 0.2,
    ("heun", 0): lambda old, new: 0.4 < new["a"]["rms"] / old["a"]["rms"] < 0.6,
    ("heun", 1): lambda old, new: 0.15 < new["a"]["rms"] / old["a"]["rms"] < 0.35,
    ("heun", 2): lambda old, new: old["a"]["rms"] < old["b"]["rms"] and new["a"]["rms"] > new["b"]["rms"],
    ("heun", 3): lambda old, new: new["a"]["rms"] < old["a"]["rms"] and new["a"]["nfe"] < old["a"]["nfe"],
    ("heun", 4): lambda old, new: new["b"]["rms"] < new["a"]["rms"] and new["b"]["nfe"] == new["a"]["nfe"],
    ("steps", 0): lambda old, new: new["a"]["rms"] < old["a"]["rms"],
    ("steps", 1): lambda old, new: new["a"]["rms"] > 0.7 * old["a"]["rms"],
    ("steps", 2): lambda old, new: old["b"]["rms"] > new["a"]["rms"] >= new["b"]["rms"],
    ("steps", 3): lambda old, new: new["a"]["spread"] < old["a"]["spread"],
    ("churn", 0): lambda old, new: new["a"]["distance"] < min(old["a"]["distance"] / 2, 2 * new["exact"]),
    ("churn", 2): lambda old, new: abs(new["a"]["spread"] - 1) > abs(old["a"]["spread"] - 1),
    ("churn", 3): lambda old, new: new["a"]["nfe"] > old["a"]["nfe"],
    ("churn", 4): lambda old, new: new["a"]["spread"] < old["a"]["spread"] < 1,
    **dict.fromkeys(
        [("preconditioning", 1), ("preconditioning", 2), ("levels", 1), ("levels", 2), ("levels", 4)],
        lambda old, new: new["runs"][-2] > 1.02 * new["runs"][-1],  # EDM's is the last
    ),
}


def test_every_question_is_open_at_first_and_answered_by_the_move(page):
    page.open()
    tours = page.page.evaluate("import('/static/tours.js').then((m) => m.TOURS.map((t) => [t.id, t.steps.length]))")
    assert len(tours) >= 5
    for tour, length in tours:
        assert length == 5
        for k in range(length):
            page.page.evaluate(f"import('/static/tours.js').then((m) => m.go('{tour}', {k}))")
            page.drawn()
            assert page.page.evaluate(ANSWER) == "", (tour, k)
            old = page.page.evaluate(FACTS)
            page.page.locator("#tour").get_by_role("button", name="Show me").click()
            assert page.until(ANSWER, 90).startswith("✓"), (tour, k)
            new = page.page.evaluate(FACTS)
            assert CLAIMS.get((tour, k), lambda *facts: True)(old, new), (tour, k, old, new)


def test_the_link_of_a_step_opens_it(page):
    page.open("#process?tour=curvature.2&sigma_max=80")
    assert "Why does EDM’s flow bend so little? · 2 of 5" in page.page.locator("#tour").inner_text()
    page.page.get_by_role("button", name="Next").click()
    page.drawn()
    assert page.link.startswith("#sampler?")
    page.page.go_back()
    page.until("window.explorer.state.get('tour') === 'curvature.2'")
    page.drawn()
    page.page.get_by_role("button", name="End").click()
    assert page.page.locator("#tour").is_hidden()
    page.open("#process?tour=nothing.9")
    assert page.page.locator("#tour").is_hidden()


def test_a_tour_by_the_keyboard_alone(page):
    page.open()
    keys = page.page.keyboard

    def reach(condition: str, most: int = 80) -> None:
        """Press Tab until what has the focus fulfils a condition."""
        for _ in range(most):
            keys.press("Tab")
            if page.page.evaluate(f"(() => {{ const e = document.activeElement; return {condition}; }})()"):
                return
        raise AssertionError(condition)

    def next_step() -> None:
        reach("e.classList.contains('next')")
        keys.press("Enter")
        page.drawn()

    reach("e.id === 'tours'")
    keys.press("Enter")
    reach("e.textContent.startsWith('Why does any')")
    keys.press("Enter")
    page.drawn()
    assert page.get("tour") == "processes.1"
    reach("e.getAttribute('aria-label') === 'time, as a part of all (slider)'")
    keys.press("Home")
    assert "At the data" in page.until(ANSWER)
    page.page.evaluate("document.querySelector('#tour .text').focus()")  # where the step began
    next_step()
    assert page.get("tour") == "processes.2"
    reach("e.tagName === 'SELECT' && e.closest('[data-key=\"process.name\"]')")
    keys.press("V")
    page.drawn()
    assert "They bend more" in page.until(ANSWER)
    page.page.evaluate("document.querySelector('#tour .text').focus()")
    next_step()
    reach("e.closest('[data-key=\"process.s\"]')")
    keys.press("Control+A")
    keys.type("exp(-t)")
    page.drawn()
    assert "They do" in page.until(ANSWER)
    page.page.evaluate("document.querySelector('#tour .text').focus()")
    next_step()
    reach("e.getAttribute('aria-label') === 'how far towards it (slider)'")
    keys.press("End")
    assert "It falls" in page.until(ANSWER)
    page.page.evaluate("document.querySelector('#tour .text').focus()")
    next_step()
    for key, text in (("sigma", "t"), ("s", "1")):
        reach(f"e.closest('[data-key=\"process.{key}\"]')")
        keys.press("Control+A")
        keys.type(text)
    page.drawn()
    assert "f = 0" in page.until(ANSWER)
