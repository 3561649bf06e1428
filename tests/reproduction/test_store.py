"""What is measured once is kept, and never mixed with what other code or options measured."""

from __future__ import annotations

import sys

import pytest

from diffspace.reproduction import SCALES, Store, measure
from diffspace.reproduction.bench import Bench
from diffspace.reproduction.store import FILE, facts_of

FACTS = {"scale": {"seeds": 3}, "code": "abc"}


def test_a_killed_run_goes_on_with_its_numbers(tmp_path):
    asked = []

    def measure(value):
        asked.append(value)
        return {"value": value, "pair": (1, 2.5)}

    first = Store(tmp_path, FACTS)
    before = first.once("a", lambda: measure(0.1 + 0.2))
    with pytest.raises(KeyboardInterrupt):
        first.once("b", lambda: (_ for _ in ()).throw(KeyboardInterrupt))

    again = Store(tmp_path, FACTS)
    # what was kept has the same digits and types as what was computed
    assert again.once("a", lambda: measure(9.0)) == before == {"value": 0.1 + 0.2, "pair": [1, 2.5]}
    again.once("b", lambda: measure(7.0))
    assert asked == [0.1 + 0.2, 7.0]
    assert again.seconds >= first.seconds > 0


def test_numbers_of_other_code_or_options_are_refused(tmp_path):
    Store(tmp_path, FACTS).once("a", lambda: 1)
    with pytest.raises(ValueError, match=r"another kind: code 'abc' there, 'xyz' here; add --overwrite"):
        Store(tmp_path, {**FACTS, "code": "xyz"})
    assert Store(tmp_path, {**FACTS, "code": "xyz"}, overwrite=True).once("a", lambda: 2) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"format": "diffspace reproduce 1"}', '{"format": 3, "facts": 1}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=FILE):
        Store(tmp_path, FACTS)


def test_facts_name_the_scale_and_the_code():
    quick, default = (facts_of(SCALES[name]) for name in ("quick", "default"))
    assert quick["code"] == default["code"]
    assert quick["scale"] != default["scale"]
    assert facts_of(SCALES["quick"]) == quick


def test_the_search_alone_is_left_out_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    notes: list[str] = []
    assert measure(["tuning"], {"digits": object.__new__(Bench)}, notes.append) == {}
    assert notes == [
        "tuning is left out: the search for S_churn, S_tmin, S_tmax and S_noise requires the package optuna, which is "
        "not installed: pip install optuna"
    ]
