"""The numbers of the room of models: those that the library gives, by its own code and by the command."""

import math
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_models import DIGITS, make_model, random_network

import diffspace as ds
from diffspace.checks import LAST_SEED
from diffspace.cli.app import main
from diffspace.config import build
from diffspace.data import load_data
from diffspace.explorer.jobs import Job, SupersededError
from diffspace.explorer.model_room import BUDGETS, ModelRoom
from diffspace.explorer.model_settings import CELLS, Between, Draw, One, Paint
from diffspace.explorer.models import EXACT, Offered, exact_digits
from diffspace.transform import PIXELS, Transform

JOB = Job(600.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    make_model((1, 8, 8), DIGITS, label_dim=3, label_dropout=0.1).save(path)
    ds.save_sampler(ds.Sampler(ds.EDMSteps(6, rho=4.0), ds.AdamsBashforth(3, "x0", "log_sigma")), path, "six")
    return path


@pytest.fixture(scope="module")
def room(folder):
    return ModelRoom({"tiny": Offered.of(ds.load(folder), str(folder), ds.load_samplers(folder))})


@pytest.fixture(scope="module")
def exact():
    return ModelRoom()


def run(python):
    names = {}
    exec(compile(python, "the code of a picture", "exec"), names)
    return names


def test_without_a_model_samples_are_digits_of_the_data(exact):
    found = exact.samples(Draw(count=6, num_steps=30), JOB)
    data = load_data("digits").raw()[:, 0]
    near = torch.cdist(
        torch.from_numpy(np.round(found["tiles"].numpy() * (16 / 255))).flatten(1), data.flatten(1).double()
    )
    assert float(near.min(1).values.max()) == 0
    assert found["labels"] is None
    assert found["command"] == ""
    assert exact.describe() == [exact_digits().describe(EXACT)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"guidance": 3.0, "label": "1", "seed": 7},
        {"guidance": 3.0, "low": 0.2, "high": 5.0},
        {"label": "none", "method": "dpmpp2m", "num_steps": 9, "rho": 3.0},
        {"method": "euler", "churn": 12.0, "label": "2"},
        {"method": "fitted six", "guidance": 0.5},
    ],
)
def test_the_code_and_the_command_make_the_samples(room, tmp_path, options):
    found = room.samples(Draw(**{"count": 5, "num_steps": 8} | options), JOB)
    raw = run(found["python"])["raw"]
    assert torch.equal(room.models["tiny"]._pixels(raw), found["tiles"])
    words = shlex.split(found["command"].replace("samples.png", str(tmp_path / "x.npz")))
    assert main(words[1:]) == 0
    with np.load(tmp_path / "x.npz") as file:
        stored = torch.from_numpy(next(value for value in (file[key] for key in file.files) if value.ndim == 4))
    assert torch.equal(stored, raw)


def test_each_setting_changes_the_samples(room):
    plain = Draw(count=4, num_steps=6, method="euler")
    first = room.samples(plain, JOB)["tiles"]
    assert torch.equal(first, room.samples(plain, JOB)["tiles"])
    for name, value in {"guidance": 4.0, "label": "2", "num_steps": 9, "rho": 2.0, "churn": 20.0, "seed": 3}.items():
        assert not torch.equal(first, room.samples(replace(plain, **{name: value}), JOB)["tiles"]), name
    later = room.samples(replace(plain, seed=1, label="2"), JOB)["tiles"]
    assert torch.equal(later[:3], room.samples(replace(plain, label="2"), JOB)["tiles"][1:])
    guided = replace(plain, guidance=4.0)
    everywhere = room.samples(guided, JOB)["tiles"]
    assert not torch.equal(everywhere, room.samples(replace(guided, low=1.0), JOB)["tiles"])
    assert not torch.equal(everywhere, room.samples(replace(guided, high=1.0), JOB)["tiles"])
    assert torch.equal(everywhere, room.samples(replace(guided, low=0.0011, high=90.0), JOB)["tiles"])
    assert torch.equal(first, room.samples(replace(guided, low=90.0), JOB)["tiles"])  # above all steps
    unguided = room.samples(replace(plain, label="none"), JOB)["tiles"]
    assert torch.equal(unguided, room.samples(replace(plain, guidance=0.0), JOB)["tiles"])


def test_large_batches_are_told_as_they_come(room, monkeypatch):
    monkeypatch.setattr("diffspace.explorer.model_room._AT_ONCE", 130)
    monkeypatch.setattr("diffspace.explorer.model_room._TOLD", 0.0)
    events = []
    found = room.samples(Draw(count=5, num_steps=4), Job(600.0, send=events.append))
    monkeypatch.undo()
    assert sorted({event["first"] for event in events}) == [0, 2, 4]
    shares = [event["share"] for event in events]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert torch.equal(found["tiles"], room.samples(Draw(count=5, num_steps=4), JOB)["tiles"])


@pytest.mark.parametrize("method", ["heun", "dpmpp3m", "fitted six"])
def test_the_way_ends_at_the_sample(room, method):
    settings = One(count=4, chosen=2, seed=5, method=method, num_steps=12)
    found, samples = room.way(settings, JOB), room.samples(settings, JOB)
    assert torch.equal(found["x"][-1], samples["tiles"][2])
    sigma = found["sigma"].tolist()
    assert sigma == sorted(sigma, reverse=True)
    assert sigma[-1] == 0
    assert len(found["x"]) == len(found["denoised"]) == len(sigma) <= 10
    assert found["distance"][-1] == 0
    names = run(found["python"])
    torch.testing.assert_close(names["distance"].double(), found["distance"][:-1], rtol=1e-5, atol=1e-6)
    assert names["sigma"].tolist() == sigma[:-1]


def test_a_run_of_one_step_has_a_way(exact):
    assert exact.way(One(num_steps=1), JOB)["sigma"].tolist()[1:] == [0.0]


def test_errors_fall_with_the_evaluations(exact):
    events = []
    found = exact.solvers(One(count=6, chosen=1, seed=3), Job(600.0, send=events.append))
    euler = [row["rms"] for row in found["rows"] if row["name"].startswith("Euler")]
    assert len(euler) == len(BUDGETS)
    assert euler[0] > 2 * euler[2]
    assert euler[-1] < 1e-9  # the data are points, which are met exactly
    for row in found["rows"]:
        assert row["nfe"] <= row["budget"]
        if row["budget"] == 35:
            assert torch.equal(row["tile"], found["reference"])
    assert [event["row"] for event in events if "row" in event] == found["rows"]


def test_errors_are_those_of_the_library_and_the_reference_is_kept(room, monkeypatch):
    settings = One(count=3, chosen=2, label="1", guidance=2.0, churn=5.0, num_steps=7)
    found = room.solvers(settings, JOB)
    assert {row["name"] for row in found["rows"]} == {"Euler (DDIM)", "Heun, order 2", "DPM-Solver++ 2M", "fitted six"}
    assert found["seeds"] == [2, 0, 1]
    comparison = run(found["python"])["comparison"]
    for row in found["rows"]:
        own = next(each for each in comparison.rows if (each.name, each.budget) == (row["name"], row["budget"]))
        assert (own.nfe, own.num_steps) == (row["nfe"], row["steps"])
        assert math.isclose(own.error.rms, row["rms"], rel_tol=1e-6)
    assert found["reference_error"] < 1e-3
    monkeypatch.setattr(ds, "reference", None)  # a second one would fail
    again = room.solvers(replace(settings, rho=5.0), JOB)
    assert torch.equal(again["reference"], found["reference"])


def test_between_begins_and_ends_at_the_samples_of_the_seeds(room):
    settings = Between(count=3, chosen=1, begin=4, end=LAST_SEED, num_steps=8, guidance=2.0, churn=9.0)
    found = room.between(settings, JOB)
    assert found["labels"] == [1] * 8
    for seed, tile in ((4, found["tiles"][0]), (LAST_SEED, found["tiles"][-1])):
        own = room.samples(Draw(seed=seed, count=1, label="1", num_steps=8, guidance=2.0), JOB)
        assert torch.equal(own["tiles"][0], tile)
    assert torch.equal(room.models["tiny"]._pixels(run(found["python"])["raw"]), found["tiles"])


MASK = "00003c3c3c000000"


@pytest.mark.parametrize("image", ["sample", "digits"])
def test_what_is_not_painted_is_kept(room, image):
    settings = Paint(count=3, chosen=1, mask=MASK, image=image, number=11, resamplings=2, num_steps=5)
    found = room.paint(settings, JOB)
    anew = found["anew"].bool()
    assert int(anew.sum()) == 12
    known = found["known"].expand_as(found["tiles"])
    assert torch.equal(found["tiles"][:, ~anew], known[:, ~anew])
    assert not torch.equal(found["tiles"][:, anew], known[:, anew])
    assert not torch.equal(found["tiles"][0], found["tiles"][1])
    if image == "sample":
        assert torch.equal(found["known"][0], room.samples(settings, JOB)["tiles"][1])
    else:
        assert torch.equal(found["known"][0], room.models["tiny"]._pixels(load_data("digits").raw()[11:12])[0])
    assert torch.equal(room.models["tiny"]._pixels(run(found["python"])["raw"]), found["tiles"])


def test_exact_digits_can_be_painted_on(exact):
    found = exact.paint(Paint(count=2, num_steps=6, resamplings=1, image="digits", number=2), JOB)
    assert torch.equal(found["anew"][4:], torch.ones(4, 8, dtype=torch.uint8))
    assert torch.equal(exact.models[EXACT]._pixels(run(found["python"])["raw"]), found["tiles"])


def test_cells_of_large_images_have_several_pixels():
    cells, size = Paint(mask="8" + "0" * 124).cells((3, 80, 100))
    assert (tuple(cells.shape), size) == ((20, 25), 4)
    assert max(cells.shape) <= CELLS
    anew = Paint(mask="8" + "0" * 124).anew((3, 80, 100))
    assert anew.shape == (80, 100)
    assert anew[:4, :4].all()
    assert int(anew.sum()) == 16


@pytest.mark.parametrize(
    ("shape", "kind", "shown"),
    [
        ((2,), "points", (3, 2)),
        ((1, 1, 2), "points", (3, 2)),
        ((1, 4, 6, 8), "image", (3, 6, 8)),
        ((3, 4, 6, 8), "image", (3, 6, 8, 3)),
        ((5, 6, 8), "image", (3, 6, 8)),
        ((3, 6, 8), "image", (3, 6, 8, 3)),
        ((2, 16), "lines", (3, 2, 16)),
        ((1,), "lines", (3, 1, 1)),
    ],
)
def test_samples_of_every_shape_are_shown(shape, kind, shown):
    room = ModelRoom({"x": Offered.of(make_model(shape, Transform()), "x")})
    assert room.describe()[0]["kind"] == kind
    found = room.samples(Draw(count=3, num_steps=3), JOB)
    assert found["kind"] == kind
    assert tuple(found["tiles"].shape) == shown
    room.way(One(count=3, num_steps=3), JOB)
    if not room.describe()[0]["paintable"]:
        with pytest.raises(ValueError, match="no pictures to paint on"):
            room.paint(Paint(count=3, num_steps=3), JOB)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (Draw, {"guidance": 21}, "guidance: expected a number in [-5, 20], got 21"),
        (Draw, {"low": 0}, "low: expected a number in [0.001, 1000], got 0"),
        (Draw, {"low": 2.0, "high": 1.0}, "high: expected more than 2, where the guidance begins, got 1"),
        (Draw, {"num_steps": 201}, "num_steps: expected an integer from 1 to 200"),
        (Draw, {"num_steps": 10**9}, "num_steps: expected an integer from 1 to 200"),
        (Draw, {"seed": -1}, "seed: expected an integer from 0 to"),
        (Draw, {"seed": 2**32 - 15}, "seed: expected an integer from 0 to 4294967280"),
        (Draw, {"count": 1001}, "count: expected an integer from 1 to 1000"),
        (Draw, {"rho": 0}, "rho: expected"),
        (Draw, {"churn": -1}, "churn: expected"),
        (Draw, {"method": "adams"}, "method: 'adams' is unknown"),
        (Draw, {"method": "dpmpp2m:lower_final=false"}, "method: "),
        (One, {"chosen": 16}, "chosen: expected an integer from 0 to 15"),
        (Between, {"end": 2**32}, "end: expected an integer from 0 to"),
        (Paint, {"resamplings": 21}, "resamplings: expected an integer from 1 to 20"),
    ],
)
def test_settings_beyond_their_limits_are_refused(settings, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(settings, options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Draw(model="../tiny"), "model: '../tiny' is unknown; "),
        (Draw(count=37), "count: expected an integer from 1 to 36, got 37"),
        (Draw(label="3"), "label: expected one of in turn, none, 0, 1, 2, got '3'"),
        (Draw(label="9" * 5000), "label: expected one of"),
        (Draw(method="fitted ../six"), "method: the model has no sampler '../six'"),
        (Draw(method="dpmpp2m", churn=3.0), "churn: DPM-Solver++ 2M remembers earlier steps"),
    ],
)
def test_what_the_model_cannot_do_is_refused(room, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        room.samples(settings, JOB)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "0" * 16}, "mask: nothing is painted"),
        ({"mask": "f" * 16}, "mask: everything is painted"),
        ({"mask": "f" * 15}, "mask: expected 16 hexadecimal digits for 8×8 cells"),
        ({"mask": "g" * 16}, "mask: expected 16 hexadecimal digits"),
        ({"image": "/etc/passwd"}, "image: '/etc/passwd' is unknown"),
        ({"image": "digits", "number": 1797}, "number: expected at most 1796, got 1797"),
    ],
)
def test_wrong_masks_and_images_are_refused(exact, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        exact.paint(Paint(num_steps=2, **options), JOB)


def test_a_model_that_needs_more_than_a_class_says_so():
    network = random_network((1, 8, 8), conditioning={"angle": {"shape": [2]}})
    model = ds.Model(ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=0.5)), PIXELS)
    with pytest.raises(ValueError, match="model: it needs the condition 'angle'"):
        ModelRoom({"x": Offered.of(model, "x")}).samples(Draw(), JOB)


def test_a_class_without_null_is_not_guided():
    model = make_model((1, 8, 8), DIGITS, label_dim=3)
    offered = Offered.of(model, "x")
    assert not offered.describe("x")["guidance"]
    assert offered.guided(3.0, [0, 1]) is model
    with pytest.raises(ValueError, match="label: expected one of in turn, 0, 1, 2, got 'none'"):
        offered.labels("none", 2)


@pytest.mark.parametrize("picture", ["samples", "way", "solvers", "between", "paint"])
def test_a_superseded_job_ends_at_the_next_evaluation(room, picture):
    settings = {"samples": Draw, "way": One, "solvers": One, "between": Between, "paint": Paint}[picture]
    job = Job(600.0)
    offered = room.models["tiny"]
    count = 0

    def evaluate(x, sigma, cond=None):
        nonlocal count
        count += 1
        if count == 3:
            job.drop()
        return offered.denoiser(x, sigma, cond)

    evaluate.sample_shape = offered.shape
    alone = ModelRoom({"x": replace(offered, denoiser=evaluate, source="x", samplers={})})
    with pytest.raises(SupersededError):
        getattr(alone, picture)(settings(num_steps=20), job)
    assert count == 3
