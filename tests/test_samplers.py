"""Samplers beside a model: what is written is read back, what is damaged is named."""

import pytest

from diffspace import Euler, Heun
from diffspace.samplers import Sampler, find_sampler, load_samplers
from diffspace.sampling import AdamsBashforth, FittedSolver, OptimizedSteps

FITTED = FittedSolver((80.0, 1.0, 0.0), ((-79.0,), (0.25, -1.125)))
OPTIMISED = OptimizedSteps((80.0, 3.0, 0.1, 0.0), AdamsBashforth(3, "v", "angle", 0.5))


def test_round_trip(tmp_path):
    Sampler.of(FITTED, {"rms": 0.25}).save(tmp_path, "fitted-2")
    Sampler.of(OPTIMISED).save(tmp_path, "ab-3")
    read = load_samplers(tmp_path)
    assert list(read) == ["ab-3", "fitted-2"]
    assert read["fitted-2"] == Sampler(FITTED, FITTED.steps, {"rms": 0.25}) == find_sampler(tmp_path, "fitted-2")
    assert read["ab-3"].solver == OPTIMISED.solver
    assert read["ab-3"].steps == OPTIMISED
    assert find_sampler("elsewhere", str(tmp_path / "samplers" / "ab-3.json")) == read["ab-3"]


def test_beside_a_checkpoint_of_others(tmp_path):
    path = Sampler(Heun(), OPTIMISED).save(tmp_path / "x.pkl", "h")
    assert path == tmp_path / "x.pkl.samplers" / "h.json"
    assert load_samplers(tmp_path / "x.pkl")["h"].solver == Heun()


def test_nothing_is_replaced_unasked(tmp_path):
    Sampler.of(FITTED).save(tmp_path, "a")
    with pytest.raises(ValueError, match=r"a\.json is there already"):
        Sampler.of(OPTIMISED).save(tmp_path, "a")
    assert load_samplers(tmp_path)["a"].solver == FITTED
    Sampler.of(OPTIMISED).save(tmp_path, "a", overwrite=True)
    assert load_samplers(tmp_path)["a"].steps == OPTIMISED


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b"])
def test_names_are_names_of_files(tmp_path, name):
    with pytest.raises(ValueError, match="name: "):
        Sampler(Euler(), OPTIMISED).save(tmp_path, name)
    assert not list(tmp_path.rglob("*.json"))


def test_an_unknown_name_is_met_with_the_known(tmp_path):
    with pytest.raises(ValueError, match="has no 'fited'; there are none"):
        find_sampler(tmp_path, "fited")
    Sampler.of(FITTED).save(tmp_path, "fitted")
    with pytest.raises(ValueError, match="did you mean 'fitted'"):
        find_sampler(tmp_path, "fited")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "diffspace sampler 1"}',
        '{"format": "diffspace sampler 2", "solver": {"kind": "heun"}, "steps": {"kind": "edm"}, "notes": {}}',
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
