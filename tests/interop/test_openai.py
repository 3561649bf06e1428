import pytest
import torch
from guided_diffusion import forward, random_state

import diffspace as ds
from diffspace.interop import convert


def saved(tmp_path, state):
    torch.save(state, tmp_path / "x.pt")
    return tmp_path / "x.pt"


@pytest.mark.parametrize("order", ["heads", "qkv"])
@pytest.mark.parametrize(
    ("options", "heads", "shape"),
    [
        ({"channels_per_head": 64}, lambda c: c // 64, {"classes": 5}),
        ({"num_heads": 4}, lambda c: 4, {"conv_resample": True, "outputs": 3}),
    ],
)
def test_outputs_are_those_of_a_plain_forward_pass(tmp_path, order, options, heads, shape):
    state = random_state(128, (1, 2), 1, {1}, **shape)
    model, report = convert(saved(tmp_path, state), size=8, qkv_order=order, **options)
    network = model.denoiser.network
    x, times = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    labels = torch.tensor([4, 1]) if "classes" in shape else None
    with torch.no_grad():
        ours = network(x, times, None if labels is None else {"labels": labels})
        theirs = forward(state, x, times, labels, heads=heads, order=order, conv_resample="conv_resample" in shape)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs[:, :3], rtol=1e-4, atol=1e-4)
    assert report.tensors == len(state)
    assert ("learned variance" in "\n".join(report.ignored)) == (len(state["out.2.bias"]) == 6)


def test_the_other_order_of_channels_is_another_network(tmp_path):
    path = saved(tmp_path, random_state(128, (1,), 1, {0}))
    x, times = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        a, b = (convert(path, size=8, qkv_order=order)[0].denoiser.network(x, times) for order in ("heads", "qkv"))
    assert (a - b).abs().max() > 0.01


def test_levels_are_those_of_the_betas(tmp_path):
    path = saved(tmp_path, random_state(128, (1,), 1, set()))
    assert convert(path, size=8, betas="cosine")[0].denoiser.preconditioning == ds.IDDPMPreconditioning()
    linear = convert(path, size=8, betas="linear")[0]
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    a = (1 - betas).cumprod(0)
    assert linear.sigma_min == pytest.approx(float(((1 - a[0]) / a[0]).sqrt()))
    assert linear.sigma_max == pytest.approx(float(((1 - a[-1]) / a[-1]).sqrt()))
    # of 4000 steps, every fourth: its time is a whole number
    many = convert(path, size=8, betas="cosine", num_steps=4000)[0]
    table = ds.IDDPMLevels(4000).table()
    assert many.sigma_min == float(table[0])
    assert float(many.denoiser.preconditioning.c_noise(table[400])) == 100.0


def test_what_is_assumed_is_said(tmp_path):
    path = saved(tmp_path, random_state(128, (1, 2), 1, {1}))
    _, report = convert(path)
    assert [line.split(",")[0] for line in report.assumed] == [
        *("size 64", "betas cosine", "num_steps 1000", "channels_per_head 64", "qkv_order qkv")
    ]
    _, report = convert(path, size=128)
    assert [line.split(",")[0] for line in report.assumed] == [
        *("betas linear", "num_steps 1000", "num_heads 4", "qkv_order heads")
    ]


def test_a_low_resolution_image_is_a_condition(tmp_path):
    model, _ = convert(saved(tmp_path, random_state(128, (1,), 1, set(), inputs=6)), size=8)
    assert model.denoiser.network.conditions == ("image",)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: s.pop("out.0.bias"), {}, "out_norm.bias"),
        (lambda s: s.update(extra=torch.ones(1)), {}, "extra"),
        (lambda s: s.update({"middle_block.7.norm.weight": torch.ones(1)}), {}, "middle_block.7"),
        (lambda s: s.update({"out.2.weight": torch.ones(5, 128, 3, 3)}), {}, "channels: 3"),
        (lambda s: None, {"size": 7}, "size: .*got 7"),
        (lambda s: None, {"betas": "quadratic"}, "betas"),
        (lambda s: None, {"num_steps": 1500}, "num_steps"),
        (lambda s: None, {"num_heads": 5}, "num_heads: .*got 5"),
        (lambda s: None, {"num_heads": 4, "channels_per_head": 32}, "are alternatives"),
        (lambda s: None, {"qkv_order": "vkq"}, "qkv_order"),
    ],
)
def test_mistakes_are_named(tmp_path, change, options, message):
    state = random_state(128, (1, 1), 1, {1})
    change(state)
    with pytest.raises(ValueError, match=message) as error:
        convert(saved(tmp_path, state), **({"size": 8} | options))
    assert "\n" not in str(error.value)


def test_channels_that_our_normalisation_groups_otherwise_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 128"):
        convert(saved(tmp_path, random_state(64, (1,), 1, set())), size=8)
