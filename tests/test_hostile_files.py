"""Files whose entries are of other types or sizes than ours: every one is read, or refused in a line that names it."""

import copy
import json
import random

import pytest
import torch

import diffspace as ds
from diffspace.files import manifest_text
from diffspace.networks import MLP, DDPMpp
from diffspace.sampler_files import find_sampler, save_sampler
from diffspace.transform import Transform

ODD = [None, True, -1, 0, 0.5, 1e308, 10**400, 10**9, "", "x", "inf", "nan", [], [[]], [None], ["a", 1], {}, {"a": []}]
ODD += [{"kind": 3}, {"kind": "heun", "alpha": {}}, "heun:alpha=x", [1e9] * 3]


def places(value, path=()):
    """The paths of all values within a value."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def changed(value, count):
    """`count` copies of a value, each with one entry replaced by something odd, or without it."""
    choose = random.Random(0)
    everywhere = list(places(value))
    for _ in range(count):
        path, result = choose.choice(everywhere), copy.deepcopy(value)
        place = result
        for key in path[:-1]:
            place = place[key]
        if choose.random() < 0.1:
            del place[path[-1]]
        else:
            place[path[-1]] = copy.deepcopy(choose.choice(ODD))
        yield result


def read_all(path, whole, read, count=150, dump=lambda value: json.dumps(value).encode()):
    """How many of the changed files were refused."""
    messages = []
    for value in changed(whole, count):
        path.write_bytes(dump(value))
        try:
            read()
        except ValueError as error:
            messages.append(str(error))
    for message in messages:
        assert str(path.parent) in message
        assert len(message) > len(str(path)) + 10
    path.write_bytes(dump(whole))
    read()
    return len(messages)


def test_configs_of_models(tmp_path):
    network = MLP((2,), width=8, depth=2, label_dim=3, label_dropout=0.1)
    model = ds.Model(ds.Preconditioned(network, ds.EDMPreconditioning()), Transform(), ("a", "b", "c"), {"images": 3})
    model.save(tmp_path)
    path = tmp_path / "config.json"
    assert read_all(path, json.loads(path.read_text()), lambda: ds.load(tmp_path)) > 75


def test_configs_of_conditions(tmp_path):
    low, v = ds.Condition.of(torch.randn(8, 1, 4, 4)), ds.Condition.of(torch.randn(8, 2), ("a", "b"))
    network = DDPMpp((1, 8, 8), model_channels=4, channel_mult=(1,), num_blocks=1, conditioning={"low": low, "v": v})
    ds.Model(ds.Preconditioned(network, ds.EDMPreconditioning())).save(tmp_path)
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text())
    parts = whole["network"]["conditioning"]

    def dump(value):
        return json.dumps(whole | {"network": whole["network"] | {"conditioning": value}}).encode()

    assert read_all(path, parts, lambda: ds.load(tmp_path), dump=dump) > 75


@pytest.mark.parametrize(
    "sampler",
    [
        ds.Sampler(ds.VPSteps(5), ds.Heun(0.5), ds.Process(ds.VPSchedule()), ds.Churn(3.0)),
        ds.Sampler(ds.IDDPMSteps(5), ds.AdamsBashforth(3)),
    ],
)
def test_samplers(tmp_path, sampler):
    path = save_sampler(sampler, tmp_path, "a", notes={"nfe": 5})
    assert read_all(path, json.loads(path.read_text()), lambda: find_sampler(tmp_path, "a")) > 75


def test_manifests_of_latents(tmp_path):
    from image_files import as_the_reference, pixels, write_zip
    from races import Halves

    from diffspace.data import ImageZip, Latents, encode_dataset

    source = write_zip(tmp_path / "in.zip", as_the_reference(pixels(6, 4, 4, 3), [0, 1, 2] * 2))
    encode_dataset(ImageZip(source), Halves(), tmp_path / "out", name="halves")
    path = tmp_path / "out" / "manifest.json"
    whole = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
    assert read_all(path, whole, Latents(tmp_path / "out").load, dump=manifest_text) > 20


def test_indices_of_images(tmp_path):
    from image_files import png

    from diffspace.data import load_data

    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(torch.zeros(4, 4, dtype=torch.uint8).numpy()))
    path = tmp_path / "dataset.json"
    whole = {"labels": [["a.png", 0], ["b.png", [0, 1.0]]], "class_names": ["x", "y"]}
    whole["labels"][1][1] = 1
    assert read_all(path, whole, lambda: load_data(tmp_path)) > 50


def test_recipes(tmp_path):
    import yaml

    from diffspace.cli.runs import open_recipe, plan_run

    plan = plan_run("two-moons", ["data.n=200", "images=100", "network.width=8", "network.depth=1"], None)
    path = tmp_path / "recipe.yaml"
    whole = plan.recipe.as_dict()

    def dump(value):
        return yaml.safe_dump(value, sort_keys=False).encode()

    assert read_all(path, whole, lambda: open_recipe(tmp_path), count=60, dump=dump) > 20
