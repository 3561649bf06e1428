"""DDPM++ on images of any size, with attention where it is asked for and with spatial conditions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edmkit.networks import DDPMpp


def random_network(shape: tuple[int, ...], **options: object) -> DDPMpp:
    torch.manual_seed(0)
    network = DDPMpp(shape, **{"model_channels": 8, "channel_mult": (1, 2, 1), "num_blocks": 1, **options})
    for p in network.parameters():
        nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3)
    return network.eval()


def inputs(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator), torch.linspace(-1.5, 1.0, shape[0])


@pytest.mark.parametrize(("height", "width"), [(5, 7), (8, 9), (3, 3), (1, 12)])
def test_other_sizes_are_padded_with_zeros_and_cropped(height: int, width: int) -> None:
    network = random_network((2, height, width), image_channels=1)
    x, c_noise = inputs(3, 3, height, width)
    padded = F.pad(x, (0, math.ceil(width / 4) * 4 - width, 0, math.ceil(height / 4) * 4 - height))
    expected = network(padded[:, :2], c_noise, {"image": padded[:, 2:]})[:, :, :height, :width]
    assert torch.equal(network(x[:, :2], c_noise, {"image": x[:, 2:]}), expected)


def test_one_network_takes_images_of_any_size() -> None:
    """The size at construction changes the names of parameters and nothing else."""
    small = random_network((2, 8, 8), attn_resolutions=(4,))
    large = random_network((2, 12, 20), attn_resolutions=(10,))
    large.load_state_dict(dict(zip(large.state_dict(), small.state_dict().values(), strict=True)))
    for size in ((8, 8), (12, 20), (9, 30)):
        x, c_noise = inputs(2, 2, *size)
        assert torch.equal(small(x, c_noise), large(x, c_noise))


def test_levels_are_named_by_their_padded_size() -> None:
    network = random_network((1, 14, 24))
    assert [name for name in network.enc if name.endswith(("conv", "down"))] == [
        "16x24_conv",
        "8x12_down",
        "4x6_down",
    ]
    assert list(network.dec)[-2:] == ["16x24_aux_norm", "16x24_aux_conv"]


@pytest.mark.parametrize(
    ("shape", "wanted", "attended"),
    [
        ((1, 14, 24), None, "8x12"),
        ((1, 32, 20), None, "16x10"),
        ((1, 8, 8), None, "8x8"),
        ((1, 128, 128), None, ""),
        ((1, 14, 24), (12,), "8x12"),
        ((1, 14, 24), [24, 6], "16x24 4x6"),
        ((1, 14, 24), (), ""),
    ],
)
def test_attention_is_where_it_is_asked_for(shape: tuple[int, ...], wanted: tuple[int, ...], attended: str) -> None:
    network = random_network(shape, attn_resolutions=wanted)
    down, up = ([name for name, block in part.items() if hasattr(block, "qkv")] for part in (network.enc, network.dec))
    assert down == [f"{size}_block0" for size in attended.split()]
    assert up == [next(iter(network.dec))] + [f"{size}_block1" for size in reversed(attended.split())]


def test_attention_at_no_level_is_refused() -> None:
    message = r"attn_resolutions: \[16\] is no level of this network; its levels are \[28, 14, 7\]"
    with pytest.raises(ValueError, match=message):
        random_network((1, 28, 28), attn_resolutions=(14, 16))


def test_a_missing_image_is_zeros_and_a_given_one_has_an_effect() -> None:
    network = random_network((2, 8, 8), image_channels=3)
    x, c_noise = inputs(2, 2, 8, 8)
    image = torch.randn(2, 3, 8, 8)
    null = network(x, c_noise, {"image": torch.zeros_like(image)})
    assert torch.equal(network(x, c_noise), null)
    assert not torch.allclose(network(x, c_noise, {"image": image}), null, atol=0.1)
    with pytest.raises(ValueError, match=r"image: shape \(2, 3, 4, 8\); want \(2, 3, 8, 8\)"):
        network(x, c_noise, {"image": image[:, :, :4]})


def test_channels_last_gives_the_same() -> None:
    network = random_network((2, 8, 8))
    x, c_noise = inputs(3, 2, 8, 8)
    expected = network(x, c_noise)
    network = network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        network(x.to(memory_format=torch.channels_last), c_noise), expected, rtol=1e-5, atol=1e-5
    )


def test_output_is_nearly_zero_at_first() -> None:
    torch.manual_seed(0)
    network = DDPMpp((3, 8, 8), model_channels=32, channel_mult=(1, 2), num_blocks=1).eval()
    x, c_noise = inputs(2, 3, 8, 8)
    assert 0 < network(x, c_noise).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (3, 8)}, r"shape: \(3, 8\); want \(channels, height, width\)"),
        ({"shape": (3, 0, 8)}, r"shape: \(3, 0, 8\); want one or more positive integers"),
        ({"model_channels": 7}, "model_channels: 7; want an even number"),
        ({"model_channels": 2}, "model_channels: 2; want an integer of at least 4"),
        ({"channel_mult": ()}, r"channel_mult: \(\)"),
        ({"channel_mult": (1, 0)}, r"channel_mult: \(1, 0\)"),
        ({"channel_mult_emb": 0}, "channel_mult_emb: 0"),
        ({"num_blocks": 0}, "num_blocks: 0"),
        ({"image_channels": -1}, "image_channels: -1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_network(**{"shape": (1, 8, 8), **options})
