"""What pages say of fitted solvers is what was measured: the records of the benchmarks, which are kept beside them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "fitted-solvers-measured.md"


def records(name):
    return [json.loads(line) for line in (BENCHMARKS / "records" / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def benchmark():
    place = importlib.util.spec_from_file_location("fitted_solvers", BENCHMARKS / "fitted_solvers.py")
    module = importlib.util.module_from_spec(place)
    sys.modules[place.name] = module  # as the modules beside it import it
    place.loader.exec_module(module)
    yield module
    del sys.modules[place.name]


@pytest.mark.parametrize("name", ["fitted_solvers", "fitted_networks"])
def test_tables_of_fits(benchmark, name):
    missing = [line for line in benchmark.table(records(name)) if line not in PAGE.read_text()]
    assert not missing


@pytest.mark.parametrize("page", [PAGE, ROOT / "README.md"])
def test_what_fits_come_to(benchmark, page):
    words = " ".join(page.read_text().split())
    shares = [record["rms"] for record in records("fitted_solvers")]
    assert f"{len(shares)} cells" in words
    assert f"geometric mean {benchmark.geometric_mean(shares):.2f}" in words
    assert f"worst {max(shares):.2f}" in words
    assert not any(record["worse_by"] > 2 for record in records("fitted_solvers"))


def test_table_of_learned_solvers(benchmark):
    place = importlib.util.spec_from_file_location("learned_solvers", BENCHMARKS / "learned_solvers.py")
    learned = importlib.util.module_from_spec(place)
    sys.path.insert(0, str(BENCHMARKS))  # for the schemes
    try:
        place.loader.exec_module(learned)
    finally:
        sys.path.remove(str(BENCHMARKS))
    missing = [
        line
        for line in learned.table(records("learned_solvers"), records("fitted_128"))
        if line not in PAGE.read_text()
    ]
    assert not missing
