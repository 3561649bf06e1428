"""The U-Nets on samples of any size and dimension, with attention where it is asked for, with spatial conditions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffspace.networks import ADM, PAPER_NETWORKS, DDPMpp, NCSNpp, paper_network
from diffspace.networks.unet import UNet

NETWORKS = {"ddpmpp": DDPMpp, "ncsnpp": NCSNpp, "adm": ADM}
every_network = pytest.mark.parametrize("kind", NETWORKS.values(), ids=NETWORKS)


def random_network(shape: tuple[int, ...], kind: type[UNet] = DDPMpp, **options: object) -> UNet:
    torch.manual_seed(0)
    network = kind(shape, **{"model_channels": 8, "channel_mult": (1, 2, 1), "num_blocks": 1, **options})
    for p in network.parameters():
        nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3)
    return network.eval()


def inputs(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator), torch.linspace(-1.5, 1.0, shape[0])


@every_network
@pytest.mark.parametrize(("height", "width"), [(5, 7), (8, 9), (3, 3), (1, 12)])
def test_other_sizes_are_padded_with_zeros_and_cropped(kind: type[UNet], height: int, width: int) -> None:
    network = random_network((2, height, width), kind, image_channels=1)
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
    assert [name for name in network.enc if name.endswith(("conv", "down"))] == ["16x24_conv", "8x12_down", "4x6_down"]
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
    message = r"attn_resolutions: \[16\] is not among the longest sides of the levels, \[28, 14, 7\]"
    with pytest.raises(ValueError, match=message):
        random_network((1, 28, 28), attn_resolutions=(14, 16))


def test_an_image_has_an_effect_and_is_not_made_up_where_it_is_missing() -> None:
    network = random_network((2, 8, 8), image_channels=3)
    x, c_noise = inputs(2, 2, 8, 8)
    image = torch.randn(2, 3, 8, 8)
    null = network(x, c_noise, {"image": torch.zeros_like(image)})
    assert not torch.allclose(network(x, c_noise, {"image": image}), null, atol=0.1)
    for cond in (None, {}):
        with pytest.raises(ValueError, match=r"cond: DDPMpp requires 'image'; .*\(B, 3, \*sides\)"):
            network(x, c_noise, cond)
    with pytest.raises(ValueError, match=r"image: expected shape \(2, 3, 8, 8\), got \(2, 3, 4, 8\)"):
        network(x, c_noise, {"image": image[:, :, :4]})


@pytest.mark.parametrize("kind", [DDPMpp, ADM])
@pytest.mark.parametrize("shape", [(2, 16), (2, 4, 16)])
def test_every_number_of_dimensions_is_the_same_network(kind: type[UNet], shape: tuple[int, ...]) -> None:
    """A sample repeated along a new side, with kernels that do not look along it, stays repeated.

    Attention sees every pixel as often as it is repeated. (The filter of NCSN++ always looks along every side.)
    """
    wide = (shape[0], 4, *shape[1:])
    small, large = (random_network(s, kind, attn_resolutions=()) for s in (shape, wide))
    state = large.state_dict()
    for target, value in zip(state.values(), small.state_dict().values(), strict=True):
        if target.ndim == value.ndim:
            target.copy_(value)
        elif target.shape[0] > 1:  # not a filter, which is the same in both
            target.zero_()[:, :, target.shape[2] // 2] = value
    x, c_noise = inputs(3, *shape)
    output = large(x.unsqueeze(2).expand(3, *wide), c_noise)
    torch.testing.assert_close(output, small(x, c_noise).unsqueeze(2).expand_as(output), rtol=1e-4, atol=1e-4)


@every_network
@pytest.mark.parametrize("shape", [(2, 37), (1, 5, 7), (1, 3, 4, 6)])
def test_any_dimension_has_a_gradient_at_every_parameter(kind: type[UNet], shape: tuple[int, ...]) -> None:
    network = random_network(shape, kind, image_channels=1, label_dim=3)
    x, c_noise = inputs(2, *shape)
    cond = {"labels": torch.tensor([0, 2]), "image": torch.randn(2, 1, *shape[1:])}
    output = network(x, c_noise, cond)
    assert output.shape == x.shape
    assert output.is_contiguous()
    output.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


@every_network
def test_checkpointing_gives_the_same_with_less_kept(kind: type[UNet]) -> None:
    shape = (2, 16, 16)
    plain = random_network(shape, kind, dropout=0.3).train()
    saving = random_network(shape, kind, dropout=0.3, checkpointing=True).train()
    x, c_noise = inputs(2, *shape)
    kept, results = [], []
    for network in (plain, saving):
        held = 0

        def hold(tensor: Tensor) -> Tensor:
            nonlocal held
            held += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            loss = network(x, c_noise).square().sum()
        loss.backward()
        kept.append(held)
        results.append([loss.detach(), *(p.grad for p in network.parameters())])
    assert kept[1] < kept[0] / 2
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@every_network
def test_the_layout_of_memory_changes_nothing(kind: type[UNet]) -> None:
    network = random_network((2, 8, 8), kind)
    x, c_noise = inputs(3, 2, 8, 8)
    expected = network(x, c_noise)
    assert torch.equal(network(x.to(memory_format=torch.channels_last), c_noise), expected)
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in network.parameters() if p.ndim == 4)
    network = network.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(network(x, c_noise), expected, rtol=1e-4, atol=1e-4)


@every_network
def test_output_is_nearly_zero_at_first(kind: type[UNet]) -> None:
    torch.manual_seed(0)
    network = kind((3, 8, 8), model_channels=32, channel_mult=(1, 2), num_blocks=1).eval()
    x, c_noise = inputs(2, 3, 8, 8)
    largest = float(network(x, c_noise).detach().abs().max())
    assert largest == 0 if kind is ADM else 0 < largest < 1e-3


def test_adm_attends_in_every_block_of_its_levels() -> None:
    network = random_network((1, 64, 64), ADM, channel_mult=(1, 1, 1), num_blocks=2)
    attended = [name for part in (network.enc, network.dec) for name, b in part.items() if getattr(b, "heads", 0)]
    assert attended == [
        *("32x32_block0", "32x32_block1", "16x16_block0", "16x16_block1", "16x16_in0"),
        *("16x16_block0", "16x16_block1", "16x16_block2", "32x32_block0", "32x32_block1", "32x32_block2"),
    ]


@pytest.mark.parametrize(
    ("options", "heads"), [({}, 1), ({"channels_per_head": 4}, 4), ({"channels_per_head": 3}, 4), ({"num_heads": 2}, 2)]
)
def test_heads_of_adm(options: dict[str, int], heads: int) -> None:
    assert random_network((1, 8, 8), ADM, channel_mult=(2,), **options).dec["8x8_in0"].heads == heads


def test_conv_resample_stands_convolutions_between_the_levels() -> None:
    network = random_network((1, 8, 8), ADM, conv_resample=True)
    x = torch.randn(2, 8, 8, 8)
    down, up = network.enc["4x4_down"], network.dec["8x8_up"]
    torch.testing.assert_close(down(x), F.conv2d(x, down.weight, down.bias, stride=2, padding=1))
    x = torch.randn(2, 16, 4, 4)
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(up(x), F.conv2d(doubled, up.weight, up.bias, padding=1), rtol=1e-5, atol=1e-5)
    x, c_noise = inputs(2, 1, 8, 8)
    assert network(x, c_noise).shape == x.shape


def silenced(network: UNet) -> UNet:
    """The network with blocks that do nothing but keep as many channels as their output has."""
    for part in (network.enc, network.dec):
        for name in part:
            if name.endswith(("_down", "_up")) and "aux" not in name:
                part[name] = Scaled(name.endswith("_down"))
            elif "_block" in name or "_in" in name:
                part[name] = First(part[name].conv1.weight.shape[0])
    return network


class First(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.channels]


class Scaled(nn.Module):
    def __init__(self, down: bool) -> None:
        super().__init__()
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.down else x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_a_skip_encoder_adds_the_shrunk_input_to_every_level() -> None:
    """Without blocks, the bottom has pool²(conv(x)) + pool(skip₁(pool(x))) + skip₂(pool²(x)), nothing scaled by √½."""
    network = silenced(random_network((2, 8, 8), channel_mult=(1, 1, 1), encoder_type="skip"))
    x, _ = inputs(3, 2, 8, 8)
    pool = lambda y: F.avg_pool2d(y, 2)  # noqa: E731
    skips = [network.enc[f"{side}x{side}_aux_skip"] for side in (4, 2)]
    assert [tuple(skip.weight.shape) for skip in skips] == [(8, 2, 1, 1)] * 2
    first, second = (
        F.conv2d(y, skip.weight, skip.bias) for skip, y in zip(skips, (pool(x), pool(pool(x))), strict=True)
    )
    top = network.enc["8x8_conv"](x)
    bottom, kept = network._encode(x, torch.zeros(3, 32))
    torch.testing.assert_close(bottom, pool(pool(top) + first) + second, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kept[2], pool(top) + first, rtol=1e-5, atol=1e-5)  # what the way up gets of 4×4


def test_a_skip_decoder_sums_the_enlarged_outputs_of_all_levels() -> None:
    network = silenced(random_network((2, 8, 8), channel_mult=(1, 1, 1), decoder_type="skip"))
    x, _ = inputs(3, 8, 2, 2)
    skips = [torch.zeros(3, 8, side, side) for side in (8, 8, 4, 4, 2, 2)]
    double, expected = Scaled(down=False), torch.zeros(3, 2, 1, 1)
    for side in (2, 4, 8):
        norm, conv = (network.dec[f"{side}x{side}_aux_{name}"] for name in ("norm", "conv"))
        h = F.silu(F.group_norm(x, 2, norm.weight, norm.bias, 1e-6))
        expected = (double(expected) if side > 2 else expected) + F.conv2d(h, conv.weight, conv.bias, padding=1)
        x = double(x)
    torch.testing.assert_close(network._decode(inputs(3, 8, 2, 2)[0], skips, torch.zeros(3, 32)), expected)


@pytest.mark.parametrize("kind", [DDPMpp, NCSNpp])
@pytest.mark.parametrize("shape", [(2, 37), (1, 3, 4, 6)])
def test_skips_in_any_dimension_have_a_gradient_at_every_parameter(kind: type[UNet], shape: tuple[int, ...]) -> None:
    network = random_network(shape, kind, encoder_type="skip", decoder_type="skip", image_channels=1)
    x, c_noise = inputs(2, *shape)
    output = network(x, c_noise, {"image": torch.ones(2, 1, *shape[1:])})
    assert output.shape == x.shape
    output.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_every_architecture_has_its_encoder() -> None:
    """Which None in a config, as in the recipe that it was made from, stands for."""
    for kind, encoder in ((NCSNpp, "residual"), (DDPMpp, "standard")):
        network = random_network((1, 8, 8), kind)
        assert network.encoder_type == encoder
        assert network.config["encoder_type"] is None
    assert "encoder_type" not in random_network((1, 8, 8), ADM).config
    for name, words in (("encoder_type", "'standard', 'skip' or 'residual'"), ("decoder_type", "'standard' or 'skip'")):
        with pytest.raises(ValueError, match=f"{name}: expected {words}, got 'both'"):
            random_network((1, 8, 8), **{name: "both"})


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_the_networks_of_the_paper_are_made_by_name(name: str) -> None:
    small = {"model_channels": 8, "num_blocks": 1, "channel_mult": (1, 1)}
    network = paper_network(name, **small)
    x, c_noise = inputs(1, *network.config["shape"])
    assert network(x, c_noise).shape == x.shape
    assert network.config["label_dim"] == (1000 if name == "imagenet64-adm" else 10 if name.endswith("cond") else 0)


def test_a_network_that_is_not_in_the_paper_is_refused() -> None:
    with pytest.raises(ValueError, match=r"name: expected 'cifar10-ddpmpp', .* got 'cifar10'"):
        paper_network("cifar10")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (3,)}, r"shape: expected channels and one, two or three sides, got \(3,\)"),
        ({"shape": (3, 0, 8)}, "shape: expected an integer of at least 1, got 0"),
        ({"model_channels": 7}, "model_channels: expected an even number, got 7"),
        ({"model_channels": 2}, "model_channels: expected an integer of at least 4, got 2"),
        ({"channel_mult": ()}, "channel_mult: expected one or more positive integers, got none"),
        ({"channel_mult": (1, 0)}, "channel_mult: .* got 0"),
        ({"channel_mult_emb": 0}, "channel_mult_emb: .* got 0"),
        ({"num_blocks": 0}, "num_blocks: .* got 0"),
        ({"image_channels": -1}, "image_channels: .* got -1"),
        ({"channels_per_head": 0}, "channels_per_head: .* got 0"),
        ({"num_heads": 3}, "num_heads: expected a divisor of a level's 8 channels, got 3"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_network(**{"shape": (1, 8, 8), "kind": ADM, **options})
