"""Samplers beside a model: what is written is read back, what is damaged is named."""

import json

import pytest

from diffspace import Churn, Euler, GivenSteps, Heun, Process, VPSchedule, VPSteps
from diffspace.process import NoScaling
from diffspace.sampler_files import find_sampler, load_samplers, save_sampler
from diffspace.sampling import AdamsBashforth, FittedSolver, Sampler

LEVELS = (80.0, 1.0, 0.0)
FITTED = Sampler(GivenSteps(LEVELS), FittedSolver(LEVELS, ((-79.0,), (0.25, -1.125))))
OPTIMISED = Sampler(GivenSteps((80.0, 3.0, 0.1, 0.0)), AdamsBashforth(3, "v", "angle", 0.5))
CHURNED = Sampler(VPSteps(7), Heun(0.5), Process(VPSchedule(), NoScaling()), Churn(40.0, 0.05))


@pytest.mark.parametrize("sampler", [FITTED, OPTIMISED, CHURNED])
def test_round_trip(tmp_path, sampler):
    path = save_sampler(sampler, tmp_path, "mine", notes={"rms": 0.25})
    assert json.loads(path.read_text())["notes"] == {"rms": 0.25}
    assert load_samplers(tmp_path) == {"mine": sampler}
    assert find_sampler(tmp_path, "mine") == find_sampler("elsewhere", str(path)) == sampler


def test_every_sampler_is_loaded(tmp_path):
    save_sampler(FITTED, tmp_path, "fitted-2")
    save_sampler(OPTIMISED, tmp_path, "ab-3")
    assert load_samplers(tmp_path) == {"ab-3": OPTIMISED, "fitted-2": FITTED}
    assert load_samplers(tmp_path / "nowhere") == {}


def test_beside_a_checkpoint_of_others(tmp_path):
    path = save_sampler(OPTIMISED, tmp_path / "x.pkl", "h")
    assert path == tmp_path / "x.pkl.samplers" / "h.json"
    assert load_samplers(tmp_path / "x.pkl")["h"] == OPTIMISED


def test_nothing_is_replaced_unasked(tmp_path):
    save_sampler(FITTED, tmp_path, "a")
    with pytest.raises(ValueError, match=r"a\.json exists already"):
        save_sampler(OPTIMISED, tmp_path, "a")
    assert load_samplers(tmp_path)["a"] == FITTED
    save_sampler(OPTIMISED, tmp_path, "a", overwrite=True)
    assert load_samplers(tmp_path)["a"] == OPTIMISED


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b"])
def test_names_are_names_of_files(tmp_path, name):
    with pytest.raises(ValueError, match="name: "):
        save_sampler(Sampler(solver=Euler()), tmp_path, name)
    assert not list(tmp_path.rglob("*.json"))


def test_an_unknown_name_is_met_with_the_known(tmp_path):
    with pytest.raises(ValueError, match="has no sampler 'fited'; there are none"):
        find_sampler(tmp_path, "fited")
    save_sampler(FITTED, tmp_path, "fitted")
    with pytest.raises(ValueError, match="did you mean 'fitted'"):
        find_sampler(tmp_path, "fited")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "diffspace sampler 1"}',
        '{"format": "diffspace sampler 2", "solver": {"kind": "heun"}, "steps": {"kind": "edm"}, "notes": {}}',
        '{"format": "diffspace sampler 3", "solver": {"kind": "heun"}, "steps": {"kind": "edm"}, "notes": {}}',
        '{"format": "diffspace sampler 1", "solver": {"kind": "os.system"}, "steps": {"kind": "edm"}, "notes": {}}',
        '{"format": "diffspace sampler 1", "solver": {"kind": "fitted", "levels": [1, 0], "weights": [["a"]]},'
        ' "steps": {"kind": "edm"}, "notes": {}}',
    ],
)
def test_damaged_files_are_named(tmp_path, text):
    path = tmp_path / "samplers" / "bad.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match=r"sampler: .*bad\.json"):
        find_sampler(tmp_path, "bad")
