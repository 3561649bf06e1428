import dataclasses
import math

import pytest
import torch

from diffspace.data.augmentation import Augmentation

MULTIPLIERS = (
    "xflip",
    "yflip",
    "rotate_int",
    "translate_int",
    "scale",
    "rotate_frac",
    "aniso",
    "translate_frac",
    "brightness",
    "contrast",
    "lumaflip",
    "hue",
    "saturation",
)
EVERYTHING = Augmentation(0.4, **dict.fromkeys(MULTIPLIERS, 1.0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, channels=3, height=12, width=12):
    return torch.randn(n, channels, height, width, generator=generator(1))


def test_identity_parameters_return_the_input_bit_for_bit():
    x = images()
    before = x.clone()
    for parameters in ({}, {name: torch.zeros_like(w) for name, w in EVERYTHING.draw(6).items()}):
        y, labels = EVERYTHING.apply(x, parameters)
        assert torch.equal(y, x)
        assert labels.shape == (6, 19)
        assert not labels.any()
    assert torch.equal(x, before)


def test_images_that_nothing_happens_to_are_not_touched():
    x = images(200)
    before = x.clone()
    y, labels = Augmentation.edm(0.3)(x, generator())
    untouched = ~labels.any(1)
    assert 10 < int(untouched.sum()) < 190
    assert torch.equal(y[untouched], x[untouched])
    assert (y[~untouched] != x[~untouched]).flatten(1).any(1).all()
    assert torch.equal(x, before)


@pytest.mark.parametrize(("height", "width"), [(12, 12), (9, 14)])
def test_flips_are_exact(height, width):
    x = images(2, 4, height, width)
    augmentation = Augmentation(xflip=1, yflip=1)
    y, labels = augmentation.apply(x, {"xflip": torch.tensor([1, 1]), "yflip": torch.tensor([0, 1])})
    assert torch.equal(y, torch.stack([x[0].flip(2), x[1].flip(1, 2)]))
    assert labels.tolist() == [[1, 0], [1, 1]]


def test_quarter_turns_are_exact():
    x = images(4)
    y, labels = Augmentation(rotate_int=1).apply(x, {"rotate_int": torch.arange(4)})
    assert torch.equal(y, torch.stack([image.rot90(k, (1, 2)) for k, image in enumerate(x)]))
    assert labels.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_whole_pixels_go_right_and_up_and_labels_are_what_was_done():
    x = images(1, 1, 8, 16)
    y, labels = Augmentation(translate_int=1, translate_int_max=0.25).apply(
        x, {"translate_int": torch.tensor([[0.8, 0.6]])}
    )
    # 0.8·4 = 3.2 of 4 columns to the right, 0.6·2 = 1.2 of 2 rows up
    assert torch.equal(y[0, 0, :-1, 3:], x[0, 0, 1:, :-3])
    assert labels.tolist() == [[0.75, 0.5]]


def test_a_sample_alone_is_the_sample_in_a_batch():
    x = images(8)
    parameters = EVERYTHING.draw(8, generator())
    y, labels = EVERYTHING.apply(x, parameters)
    for i in range(8):
        alone, label = EVERYTHING.apply(x[i : i + 1], {name: w[i : i + 1] for name, w in parameters.items()})
        torch.testing.assert_close(alone[0], y[i], rtol=0, atol=1e-5)
        assert torch.equal(label[0], labels[i])


def test_the_generator_decides():
    x = images()
    first, second, other = (EVERYTHING(x, generator(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_without_a_generator_the_global_one_draws():
    torch.manual_seed(0)
    first = EVERYTHING(images())[1]
    torch.manual_seed(0)
    assert torch.equal(first, EVERYTHING(images())[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    x = images().to(dtype)
    y, labels = EVERYTHING(x, generator())
    assert y.dtype == dtype
    assert labels.dtype == torch.float32
    exact, _ = EVERYTHING(x.double(), generator())
    assert float((y.double() - exact).abs().max()) < 40 * torch.finfo(dtype).eps * float(exact.abs().max())


def test_an_empty_batch():
    y, labels = EVERYTHING(images(0))
    assert y.shape == (0, 3, 12, 12)
    assert labels.shape == (0, 19)


N = 40_000


def z_of_share(hits, share):
    return (float(hits.double().mean()) - share) / math.sqrt(share * (1 - share) / len(hits))


def z_of_mean(values, mean, std):
    return (float(values.double().mean()) - mean) / (std / math.sqrt(len(values)))


@pytest.mark.parametrize(
    ("name", "moves"),
    [*((name, 0.5) for name in ("xflip", "yflip", "lumaflip")), ("rotate_int", 0.75)]
    + [(name, 1.0) for name in MULTIPLIERS if "flip" not in name and name != "rotate_int"],
)
def test_each_is_applied_with_its_probability(name, moves):
    w = Augmentation(0.3, **{name: 0.5}).draw(N, generator())[name]
    moved = w != 0 if w.ndim == 1 else w.any(1)
    assert abs(z_of_share(moved, 0.15 * moves)) < 4


@pytest.mark.parametrize("name", ["scale", "translate_frac", "brightness", "contrast", "saturation"])
def test_normal_parameters(name):
    w = Augmentation(**{name: 1}).draw(N, generator())[name].flatten()
    assert abs(z_of_mean(w, 0, 1)) < 4
    assert abs(z_of_mean(w.square(), 1, math.sqrt(2))) < 4
    assert abs(z_of_share(w < 1, 0.841345)) < 4


@pytest.mark.parametrize(("name", "most"), [("rotate_frac", "rotate_frac_max"), ("hue", "hue_max")])
def test_angles_are_uniform_within_their_range(name, most):
    angle = Augmentation(**{name: 1, most: 0.5}).draw(N, generator())[name]
    assert float(angle.abs().max()) <= math.pi / 2
    assert abs(z_of_mean(angle, 0, math.pi / math.sqrt(12))) < 4
    assert abs(z_of_share(angle.abs() < math.pi / 8, 0.25)) < 4


def test_whole_pixels_are_uniform():
    w = Augmentation(translate_int=1).draw(N, generator())["translate_int"].flatten()
    assert float(w.abs().max()) <= 1
    assert abs(z_of_mean(w, 0, 1 / math.sqrt(3))) < 4
    assert abs(z_of_share(w.abs() < 0.25, 0.25)) < 4


def test_quarter_turns_are_equally_likely():
    w = Augmentation(rotate_int=1).draw(N, generator())["rotate_int"]
    for turns in range(4):
        assert abs(z_of_share(w == turns, 0.25)) < 4


def test_axes_of_stretch_are_turned_with_their_probability():
    w, angle = Augmentation(aniso=1, aniso_rotate_prob=0.3).draw(N, generator())["aniso"].unbind(1)
    assert abs(z_of_mean(w.square(), 1, math.sqrt(2))) < 4
    assert abs(z_of_share(angle != 0, 0.3)) < 4
    turned = angle[angle != 0]
    assert abs(z_of_mean(turned, 0, math.pi / math.sqrt(3))) < 4
    assert abs(z_of_share(turned.abs() < math.pi / 2, 0.5)) < 4


@pytest.mark.parametrize("probability", [0.0, 0.12, 0.5])
def test_share_of_images_that_nothing_happens_to(probability):
    """Half of them by the coin of the x-flip, 1 − p/2 of those by the y-flip's, (1 − p)⁴ by the other four."""
    _, labels = Augmentation.edm(probability)(torch.zeros(N, 1, 1, 1), generator())
    share = 0.5 * (1 - probability / 2) * (1 - probability) ** 4
    assert abs(z_of_share(~labels.any(1), share)) < 4


def test_transforms_are_independent():
    w = Augmentation.edm(0.5).draw(N, generator())
    happened = torch.stack([v != 0 if v.ndim == 1 else v.any(1) for v in w.values()]).double()
    correlation = torch.corrcoef(happened).fill_diagonal_(0)
    assert float(correlation.abs().max()) * math.sqrt(N) < 4.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"expected at least one transform"),
        ({"probability": 1.2, "xflip": 1}, r"^probability: expected a number in \[0, 1\], got 1.2"),
        ({"probability": math.nan, "xflip": 1}, r"^probability: .* got nan"),
        ({"xflip": -1}, r"^xflip: expected a number in \[0, inf\], got -1"),
        ({"yflip": math.nan}, r"^yflip: .* got nan"),
        ({"scale": 1, "scale_std": 0}, r"^scale_std: expected a number in \(0, inf\), got 0"),
        ({"hue": 1, "hue_max": math.inf}, r"^hue_max: .* got inf"),
        ({"aniso": 1, "aniso_rotate_prob": 2}, r"^aniso_rotate_prob: expected a number in \[0, 1\], got 2"),
        ({"xflip": 1, "scale_std": 0.3}, r"^scale_std: 0.3 has no effect: scale is 0"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"xflip": 1}, (2,), r"^augment: expected images .* got samples of shape \(2,\)"),
        ({"hue": 1}, (1, 8, 8), r"^hue: requires images of 3 channels, got 1"),
        ({"saturation": 1}, (4, 8, 8), r"^saturation: requires images of 3 channels, got 4"),
        ({"rotate_int": 1}, (3, 8, 9), r"^rotate_int: requires square images, got 8×9"),
    ],
)
def test_samples_that_a_transform_is_not_for(options, shape, message):
    augmentation = Augmentation(**options)
    with pytest.raises(ValueError, match=message):
        augmentation.check_shape(shape)
    if len(shape) == 3:
        with pytest.raises(ValueError, match=message):
            augmentation(torch.zeros(2, *shape))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hue": torch.zeros(6)}, r"'hue' is not enabled; enabled are xflip, aniso"),
        ({"hu": torch.zeros(6)}, r"'hu' is not enabled"),
        ({"xflip": torch.zeros(5)}, r"xflip: expected shape \(6,\), got \(5,\)"),
        ({"aniso": torch.zeros(6)}, r"aniso: expected shape \(6, 2\), got \(6,\)"),
    ],
)
def test_parameters_that_do_not_fit(parameters, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(xflip=1, aniso=1).apply(images(), parameters)


def test_every_field_is_a_number_that_can_be_written():
    assert all(isinstance(value, float) for value in dataclasses.asdict(Augmentation(0.5, xflip=1.0)).values())
