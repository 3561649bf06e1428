import pytest
import yaml

from diffspace.train import apply_overrides, changes, make_recipe, parse_override, read_recipe

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
    assert recipe.noise == {"kind": "lognormal", "P_mean": -1.2, "P_std": 1.2}
    assert recipe.preconditioning["sigma_data"] == 0.7
    assert "shape" not in recipe.network
    assert "label_dim" not in recipe.network


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
    assert parse_override("data.size=64x48") == (["data", "size"], [64, 48])


def test_a_new_kind_drops_the_options_of_the_old_one():
    recipe = make_recipe(apply_overrides(MINIMAL, ["network.kind=mlp"]))
    assert recipe.network["kind"] == "mlp"
    assert "model_channels" not in recipe.network
    assert make_recipe(apply_overrides(MINIMAL, ["noise=vp"])).noise["kind"] == "vp"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batchsize=3", r"^batchsize: .*did you mean 'batch_size'"),
        ("network.model_chanels=3", r"^network: .*did you mean 'model_channels'"),
        ("network.kind=unet", r"^network: kind 'unet' is unknown"),
        ("noise.P_stdd=3", r"^noise: .*did you mean 'P_std'"),
        ("data.sise=3", r"sise"),
        ("data.source=digts", r"did you mean 'digits'"),
        ("images=0", r"^images: .*not 0"),
        ("batch_size=none", r"^batch_size: .*not 'none'"),
        ("network.label_dim=10", r"label_dim"),
        ("preconditioning.sigma_data=wide", r"^preconditioning\.sigma_data: .*not 'wide'"),
        ("reduction=median", r"^reduction: .*'sum' or 'mean'"),
    ],
)
def test_mistakes_are_named_on_one_line(override, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_recipe(apply_overrides(MINIMAL, [override]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["novalue", "=3", "a=[1"])
def test_malformed_overrides(text):
    with pytest.raises(ValueError, match="="):
        parse_override(text)


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        read_recipe(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ValueError, match="not valid YAML"):
        read_recipe(broken)
    broken.write_text("- 1")
    with pytest.raises(ValueError, match="no mapping"):
        read_recipe(broken)


@pytest.mark.parametrize("text", ["a: &a [1, 2]\nb: [*a, *a]", "a: &a [*a]", "a: " + "[" * 5000])
def test_yaml_that_could_take_all_memory_is_refused(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not valid YAML"):
        read_recipe(path)
    with pytest.raises(ValueError, match="the value is not valid YAML"):
        parse_override("a=" + "[" * 5000)


def test_strings_that_look_like_numbers_stay_strings(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("a: 1e-3\nb: '2024'\nc: 64x48\nd: '64x48'\ne: inf\nf: 7\ng: .5\nh: two\ni: -2.5E+3\nj: info\n")
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
    with pytest.raises(ValueError, match=r"^augment.*with which a run cannot go on"):
        changes(old.to_yaml(), make_recipe({**config, "augment": "edm"}))
    with pytest.raises(ValueError, match=r"^data.source: digits became swissroll, with which a run cannot go on"):
        changes(old.to_yaml(), make_recipe({**config, "data": {"source": "swissroll"}}))
    points = {**config, "data": {"source": "swissroll"}}
    with pytest.raises(ValueError, match=r"^data.n: None became 500"):
        changes(make_recipe(points).to_yaml(), make_recipe({**points, "data": {"source": "swissroll", "n": 500}}))
