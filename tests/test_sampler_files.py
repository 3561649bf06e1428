"""Samplers beside a model: what is written is read back, what is damaged is named."""

import json

import numpy as np
import pytest
import torch

import diffspace as ds
from diffspace import Churn, Euler, GivenSteps, Heun, Process, VPSchedule, VPSteps
from diffspace.data import named_oracle
from diffspace.parts import allow_parts
from diffspace.process import NoScaling
from diffspace.sampler_files import find_sampler, load_samplers, save_sampler
from diffspace.sampling import AdamsBashforth, Execution, FittedSolver, Sampler, sample

LEVELS = (80.0, 1.0, 0.0)
FITTED = Sampler(GivenSteps(LEVELS), FittedSolver(LEVELS, ((0.0125,), (0.25, -1.125))))
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


def former(levels, rows):
    """The same as weights of ε_j = (x_j − D_j)/σ_j, of which every state is a sum."""
    n = len(rows)
    states, epsilons = torch.zeros(n + 1, n, dtype=torch.float64), torch.diag(torch.tensor(levels[:-1])).double()
    for i, (a, *weights) in enumerate(rows):
        denoised = states[: i + 1] - epsilons[: i + 1]
        others = (w * (d - denoised[i]) for w, d in zip(weights, denoised, strict=False))
        states[i + 1] = denoised[i] + a * (states[i] - denoised[i]) + sum(others)
    return [row[: i + 1].tolist() for i, row in enumerate(states.diff(dim=0))]


@pytest.mark.parametrize("form", ["mapping", "word", "nested"])
def test_weights_of_former_files_become_rows(tmp_path, form):
    levels, rows = [80.0, 9.0, 1.0, 0.2, 0.0], ((0.1,), (-0.3, 0.4), (1e3, -7.0, 0.25), (0.0, 0.5, -2.0, 30.0))
    weights = former(levels, rows)
    described = {
        "mapping": {"kind": "fitted", "levels": levels, "weights": weights},
        "word": f"fitted:levels={json.dumps(levels)},weights={json.dumps(weights)}".replace(" ", ""),
        "nested": {"kind": "afs", "solver": {"kind": "fitted", "levels": levels, "weights": weights}},
    }[form]
    path = save_sampler(FITTED, tmp_path, "old")
    config = json.loads(path.read_text())
    config["steps"]["levels"] = levels
    path.write_text(json.dumps(config | {"solver": described}))
    found = load_samplers(tmp_path)["old"]
    if form == "nested":
        found = Sampler(found.steps, found.solver.solver)
    now = Sampler(GivenSteps(tuple(levels)), FittedSolver(tuple(levels), rows))
    double = Execution(dtype=torch.float64)
    was, new = (sample(named_oracle("ring"), seeds=range(9), sampler=s, execution=double).x for s in (found, now))
    torch.testing.assert_close(was, new, rtol=1e-7, atol=1e-7)
    assert FittedSolver(tuple(levels), weights=tuple(map(tuple, weights))) == found.solver


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [[-79.0], [0.25]]}, r"weights: expected rows of 1, 2, … 2 numbers, got \[1, 1\]"),
        ({"weights": [-79.0, 0.25]}, r"weights: expected a list"),
        ({"weights": [[True], [0.25, -1.1]]}, r"weights: expected a list"),
        ({"weights": [[-79.0], [0.25, -1.0]], "rows": [[0.1], [0.25, -1.0]]}, "weights: give these or rows"),
        ({"weights": [[-80.0], [-0.1, -0.5]]}, "weights: step 1 brings back"),
        ({"rows": [[1e300], [0.25, -1.0]]}, r"rows: expected finite numbers up to 1e\+30"),
        ({}, r"rows: expected rows of 1, 2, … 2 numbers, got \[\]"),
    ],
)
def test_tables_that_say_something_else_are_refused(tmp_path, options, message):
    path = save_sampler(FITTED, tmp_path, "bad")
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"solver": {"kind": "fitted", "levels": [80.0, 1.0, 0.0], **options}}))
    with pytest.raises(ValueError, match=message):
        load_samplers(tmp_path)


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b", "a.json"])
def test_names_are_names_of_files(tmp_path, name):
    with pytest.raises(ValueError, match="name: "):
        save_sampler(Sampler(solver=Euler()), tmp_path, name)
    assert not list(tmp_path.rglob("*.json"))


def test_a_checkpoint_without_a_suffix_has_a_folder_beside_it(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(b"weights")
    path = save_sampler(Sampler(solver=Euler()), checkpoint, "mine")
    assert path == tmp_path / "checkpoint.samplers" / "mine.json"
    assert find_sampler(checkpoint, "mine") == Sampler(solver=Euler())


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


@pytest.mark.usefixtures("unchecked")
def test_what_could_not_be_read_again_is_not_written(tmp_path):
    for sampler, message in (
        (Sampler(process=ds.Process(sigma=lambda t: t)), "a function cannot be saved"),
        (Sampler(ds.GivenTimes((80.0, 1.0, 0.0))), "sampler: it cannot be saved"),
        (Euler(), r"sampler: expected Sampler\(…\)"),
    ):
        with pytest.raises(ValueError, match=message):
            save_sampler(sampler, tmp_path, "mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("unchecked")
def test_formulas_and_numbers_of_numpy_are_kept(tmp_path):
    process = ds.Process(sigma=ds.Formula("80 t^3"), s=ds.Formula("1/(1+t)"))
    sampler = Sampler(ds.EDMSteps(5, np.float32(0.25)), process=process)
    save_sampler(sampler, tmp_path, "mine")
    assert load_samplers(tmp_path) == {"mine": sampler}


class Own(Heun):
    """A solver that is not registered."""


def test_a_solver_of_the_user_is_written_for_those_who_ask_for_it(tmp_path):
    save_sampler(Sampler(solver=Own(0.5)), tmp_path, "mine")
    with pytest.raises(ValueError, match="is not registered"):
        load_samplers(tmp_path)
    with allow_parts([Own]):
        assert load_samplers(tmp_path)["mine"].solver == Own(0.5)
