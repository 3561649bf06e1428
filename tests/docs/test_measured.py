"""What pages say of fitted solvers is what was measured: the records of the benchmarks, which are kept beside them."""

from __future__ import annotations

import importlib
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
def benchmarks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("fitted_solvers"), importlib.import_module("learned_solvers")
    for name in set(sys.modules) & {"fitted_solvers", "learned_solvers", "learned_schemes"}:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["fitted_solvers", "fitted_networks", "fitted_networks_limited"])
def test_tables_of_fits(benchmarks, name):
    missing = [line for line in benchmarks[0].table(records(name)) if line not in PAGE.read_text()]
    assert not missing


@pytest.mark.parametrize("page", [PAGE, ROOT / "README.md"])
def test_what_fits_come_to(benchmarks, page):
    assert benchmarks[0].summary(records("fitted_solvers")) in " ".join(page.read_text().split())


def test_table_of_learned_solvers(benchmarks):
    lines = benchmarks[1].table(records("learned_solvers"), records("fitted_128"))
    missing = [line for line in lines if line not in PAGE.read_text()]
    assert not missing
