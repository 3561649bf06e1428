import dataclasses
import re
import typing

import numpy as np
import pytest
import yaml

import diffspace as ds
from diffspace.config import from_config
from diffspace.data import Augmentation, load_data, sources
from diffspace.inspection import inspect
from diffspace.networks import without_weights
from diffspace.train import apply_overrides, changes, default_config, make_data_recipe, make_recipe, read_recipe
from diffspace.train.defaults import _network

MINIMAL = {
    "data": {"source": "digits"},
    "network": {"kind": "ddpmpp", "model_channels": 16},
    "preconditioning": {"kind": "edm", "sigma_data": 0.7},
    "noise": {"kind": "lognormal"},
    "images": 1000,
}


def test_defaults_are_filled_in_from_the_library():
    recipe = make_recipe(MINIMAL)
    assert recipe.network["model_channels"] == 16
    assert recipe.network["dropout"] == 0.1
    assert recipe.noise == ds.LogNormal(-1.2, 1.2)
    assert recipe.preconditioning == ds.EDMPreconditioning(0.7)
    assert "shape" not in recipe.network
    assert "label_dim" not in recipe.network


@pytest.mark.parametrize(
    ("images", "apart", "patience"),
    [
        (1, 1, 3),
        (1280, 1280, 3840),
        (3499, 3499, 10497),
        (5000, 2500, 7500),
        (17_500, 1750, 5250),
        (220_000, 22_000, 66_000),
    ],
)
def test_the_proposed_held_out_loss_takes_a_fifth_of_the_time_at_most(images, apart, patience):
    """A measurement costs as much as training on some 350 images; the last is at the end."""
    data = load_data("two-moons", n=100)
    config = default_config(data, make_data_recipe({"source": "two-moons"}), inspect(data), images=images)
    assert config["held_out_images"] == apart
    assert config["patience_images"] == patience
    assert images - images // apart * apart < 10


def test_round_trip_through_yaml():
    recipe = make_recipe(MINIMAL)
    assert make_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


def test_overrides_reach_in_and_read_numbers():
    config = apply_overrides(MINIMAL, ["network.dropout=0.2", "learning_rate=1e-4", "network.channel_mult=[1, 2, 2]"])
    recipe = make_recipe(config)
    assert recipe.network["dropout"] == 0.2
    assert recipe.network["channel_mult"] == [1, 2, 2]
    assert recipe.learning_rate == 1e-4
    assert "dropout" not in MINIMAL["network"]


def test_sizes_may_be_written_as_people_do():
    assert apply_overrides({}, ["data.size=64x48"]) == {"data": {"size": [64, 48]}}


def _fields_with_the_word_none():
    for kind in (sources.ArrayFile, sources.ImageFolder, sources.HuggingFaceImages):
        hints = typing.get_type_hints(kind)
        yield from (f.name for f in dataclasses.fields(kind) if "none" in typing.get_args(hints[f.name]))


@pytest.mark.parametrize("name", sorted(set(_fields_with_the_word_none())))
def test_the_word_none_of_a_source_is_a_value_of_its_own(name):
    assert apply_overrides({"data": {"source": "x.npz"}}, [f"data.{name}=none"])["data"][name] == "none"


def test_none_reaches_the_data(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.arange(9 * 64, dtype=np.uint8).reshape(9, 8, 8), labels=np.arange(9) % 3)
    config = MINIMAL | {"data": {"source": str(tmp_path / "x.npz")}}
    with_classes, without = (make_recipe(apply_overrides(config, words)) for words in ([], ["data.classes=none"]))
    assert len(with_classes.data.load()[0].class_counts) == 3
    assert len(without.data.load()[0].class_counts) == 0
    assert make_recipe(apply_overrides(MINIMAL, ["augment=none"])).augment is None


def test_a_new_kind_drops_the_options_of_the_old_one():
    recipe = make_recipe(apply_overrides(MINIMAL, ["network.kind=mlp"]))
    assert recipe.network["kind"] == "mlp"
    assert "model_channels" not in recipe.network
    assert make_recipe(apply_overrides(MINIMAL, ["noise=vp"])).noise == ds.VPUniform()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batchsize=3", r"^batchsize: there is no such key; did you mean 'batch_size'"),
        ("network.model_chanels=3", r"^network.model_chanels: .*did you mean 'model_channels'"),
        ("network.kind=unet", r"^network.kind: 'unet' is unknown"),
        ("network=unet", r"^network.kind: 'unet' is unknown"),
        ("noise.P_stdd=3", r"^noise.P_stdd: .*did you mean 'P_std'"),
        ("data.sise=3", r"^data.sise: digits has no such option"),
        ("data.source=digts", r"did you mean 'digits'"),
        ("network.label_dim=10", r"^network.label_dim: follows from the data"),
        ("preconditioning.sigma_data=wide", r"^preconditioning.sigma_data: expected a number, got 'wide'"),
        ("preconditioning.sigma_data=-1", r"^preconditioning.sigma_data: "),
        ("reduction=median", r"^reduction: expected 'sum' or 'mean', got 'median'"),
        ("noise=[1]", r"^noise: expected a noise, got \[1\]"),
        ("noise.P_std=nan", r"^noise.P_std: "),
        ("network.model_channels=0", r"^network.model_channels: "),
        ("network.dropout=2", r"^network.dropout: "),
        ("network.label_dropout=1.5", r"^network.label_dropout: "),
        ("network.num_blocks=2.5", r"^network.num_blocks: expected an integer, got 2.5"),
        ("images=0", r"^images: expected an integer of at least 1, got 0"),
        ("batch_size=none", r"^batch_size: expected an integer, got 'none'"),
        ("batch_size=null", r"^batch_size: expected an integer, got None"),
        ("learning_rate=inf", r"^learning_rate: "),
        ("betas=[2, 3]", r"^betas: "),
        ("betas=[0.9]", r"^betas: expected a list of 2 \(a number each\), got \[0.9\]"),
        ("decay_images=2000", r"^decay_images: expected at most images = 1000, got 2000"),
        ("patience_images=4", r"^patience_images: 4 has no effect without held_out_images"),
        ("score=fid", r"^score: expected 'frechet' or 'kid', got 'fid'"),
        ("score_samples=100", r"^score_samples: 100 has no effect without score_images"),
        ("score=kid", r"^score: 'kid' has no effect without score_images"),
        ("score_samples=3", r"^score_samples: expected an integer of at least 4, got 3"),
        ("learning_rate.rate=1", r"^learning_rate: expected a number, got {'rate': 1}"),
        ("seed=010", r"^seed: '010' cannot be read: 010 means different things"),
        ("seed=1:30", r"^seed: .*1:30 means different things"),
        ("compile=yes", r"^compile: .*yes means different things"),
        ("network.kind=mypackage.nets:Mine", r"^network.kind: .*not registered, and a file never imports code"),
    ],
)
def test_mistakes_are_named_on_one_line(override, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_recipe(apply_overrides(MINIMAL, [override]))
    assert "\n" not in str(caught.value)


def test_the_order_of_overrides_does_not_matter():
    words = ["network.label_dropout=0.1", "network.kind=mlp", "augment.probability=0.5", "augment=edm", "noise=vp"]
    words += ["preconditioning.times.levels.M=10", "preconditioning.times.levels=iddpm", "preconditioning.times=levels"]
    words += ["preconditioning=epsilon", "noise.epsilon_t=1e-4"]
    recipe = make_recipe(apply_overrides(MINIMAL, words))
    assert make_recipe(apply_overrides(MINIMAL, words[::-1])) == recipe
    assert (recipe.network["kind"], recipe.network["label_dropout"]) == ("mlp", 0.1)
    assert recipe.augment == Augmentation.edm(0.5)
    assert recipe.noise == ds.VPUniform(epsilon_t=1e-4)
    assert recipe.preconditioning == ds.EpsilonPrediction(ds.LevelIndex(ds.IDDPMLevels(10)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=1", "seed=2"], "^seed: is given twice"),
        (["noise=vp", "noise.kind=lognormal"], "^noise: is given twice"),
        (["augment.probability=0.5", "augment=none"], "^augment.probability: has no effect where augment is none"),
        (["network.model_channels=8", "network.kind=mlp"], "^network.model_channels: 'mlp' has no such option"),
        (["noise.P_mean=0", "noise=vp"], "^noise.P_mean: 'vp' has no such option"),
    ],
)
def test_a_key_without_effect_is_an_error(words, message):
    for given in (words, words[::-1]):
        with pytest.raises(ValueError, match=message):
            make_recipe(apply_overrides(MINIMAL, given))


def test_none_and_null_are_the_same():
    for word in ("none", "null", "None"):
        recipe = make_recipe(apply_overrides(MINIMAL | {"augment": "edm"}, [f"augment={word}", f"wandb={word}"]))
        assert (recipe.augment, recipe.wandb) == (None, None)
    assert make_recipe(MINIMAL | {"augment": "none", "micro_batch": "none"}).micro_batch is None


def test_the_same_kind_keeps_its_options():
    assert make_recipe(apply_overrides(MINIMAL, ["preconditioning=edm"])).preconditioning == ds.EDMPreconditioning(0.7)


@pytest.mark.parametrize("text", ["novalue", "=3", "a=[1", "a..b=1"])
def test_malformed_overrides(text):
    with pytest.raises(ValueError, match=r"expected key=value|cannot be read: it is not valid YAML"):
        apply_overrides({}, [text])


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        read_recipe(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ValueError, match="cannot be read: it is not valid YAML"):
        read_recipe(broken)
    broken.write_text("- 1")
    with pytest.raises(ValueError, match="no mapping"):
        read_recipe(broken)


@pytest.mark.parametrize("text", ["a: &a [1, 2]\nb: [*a, *a]", "a: 1\na: 2", "a: &a [*a]", "a: " + "[" * 5000])
def test_yaml_that_could_take_all_memory_is_refused(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="cannot be read: "):
        read_recipe(path)
    with pytest.raises(ValueError, match="it is not valid YAML: nested too deeply"):
        apply_overrides({}, ["a=" + "[" * 5000])


def test_strings_that_look_like_numbers_stay_strings(tmp_path):
    path = tmp_path / "recipe.yaml"
    lines = ["a: 1e-3", "b: '2024'", "c: 64x48", "d: '64x48'", "e: inf", "f: 7", "g: .5", "h: two", "i: -2.5E+3"]
    path.write_text("\n".join([*lines, "j: info", "k: 1_000", "l: 2001-01-01"]))
    assert read_recipe(path) == {
        "a": 1e-3,
        "b": "2024",
        "c": [64, 48],
        "d": "64x48",
        "e": float("inf"),
        "f": 7,
        "g": 0.5,
        "h": "two",
        "i": -2500.0,
        "j": "info",
        "k": 1000,
        "l": "2001-01-01",
    }


def test_an_option_that_came_or_went_is_a_change():
    config = {
        "data": {"source": "digits"},
        "network": {"kind": "mlp"},
        "preconditioning": {"kind": "edm"},
        "noise": {"kind": "lognormal"},
        "images": 10,
    }
    old = make_recipe(config)
    assert changes(old.to_yaml(), old) == []
    assert changes(old.to_yaml(), make_recipe({**config, "images": 20})) == ["images: 10 became 20"]
    with pytest.raises(ValueError, match=r"^augment.*which cannot change within a run"):
        changes(old.to_yaml(), make_recipe({**config, "augment": "edm"}))
    with pytest.raises(ValueError, match=r"^data.source: digits became swissroll, which cannot change within a run"):
        changes(old.to_yaml(), make_recipe({**config, "data": {"source": "swissroll"}}))
    points = {**config, "data": {"source": "swissroll"}}
    with pytest.raises(ValueError, match=r"^data.n: None became 500"):
        changes(make_recipe(points).to_yaml(), make_recipe({**points, "data": {"source": "swissroll", "n": 500}}))


def test_a_recipe_that_left_options_at_their_defaults_is_not_a_change():
    """As version 0.1 wrote them, which left out the times of a prediction, and as a later one may."""
    new = make_recipe(apply_overrides(MINIMAL, ["preconditioning=epsilon", "noise=vp"]))
    old = yaml.safe_load(new.to_yaml())
    old["preconditioning"], old["network"] = {"kind": "epsilon"}, {"kind": "ddpmpp", "model_channels": 16}
    assert changes(yaml.safe_dump(old), new) == []


def test_every_key_of_a_proposed_recipe_is_explained():
    config = {"data": {"source": "digits"}, "network": {"kind": "ddpmpp"}, "preconditioning": "edm"}
    text = make_recipe({**config, "noise": "lognormal", "images": 10}).to_yaml(comments=True)
    assert make_recipe(yaml.safe_load(text)) == make_recipe({**config, "noise": "lognormal", "images": 10})
    unexplained = [line for line in text.splitlines() if re.match(r" *\w+:", line) and "  # " not in line]
    assert {line.split(":")[0].strip() for line in unexplained} == {"kind"}
    assert "dropout: 0.1" in text
    assert next(line for line in text.splitlines() if "P_mean" in line).endswith("# the mean of ln σ")


@pytest.mark.parametrize(
    ("shape", "kind", "mults", "attended"),
    [
        ((2,), "mlp", None, None),
        ((100,), "mlp", None, None),
        ((1, 1, 2), "mlp", None, None),
        ((3, 5), "mlp", None, None),
        ((1, 64), "ddpmpp", [1, 2, 2, 2], [32]),
        ((2, 1000), "ddpmpp", [1, 2, 2, 2], [250]),
        ((1, 8, 8, 8), "ddpmpp", [1, 2], [4]),
        ((1, 16, 16, 16), "ddpmpp", [1, 2], []),
        ((1, 32, 32, 32), "ddpmpp", [1, 2, 2], []),
        ((1, 8, 8), "ddpmpp", [1, 2], [4]),
    ],
)
def test_the_network_follows_the_kind_of_data(shape, kind, mults, attended):
    """Attention only where a level has at most as many positions as the paper's 16×16; every proposal can be made."""
    proposed, _ = _network(shape, 2000)
    assert proposed["kind"] == kind
    assert proposed.get("channel_mult") == mults
    assert proposed.get("attn_resolutions") == attended
    with without_weights():
        from_config("network", {**proposed, "shape": list(shape)})
