"""Layers and the U-Net block against their formulas."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffspace.networks import blocks
from diffspace.networks.blocks import Style, UNetBlock
from diffspace.networks.layers import (
    Conv,
    FourierEmbedding,
    PositionalEmbedding,
    Resample,
    group_norm,
    uniform,
    xavier,
    zeros,
)

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
SIDES = {1: (8,), 2: (6, 8), 3: (4, 6, 2)}


def resampled(x: Tensor, resample: str, taps: tuple[int, ...]) -> Tensor:
    """Filtering as a dense convolution by an outer product, in float64."""
    dims, channels, padding = x.ndim - 2, x.shape[1], (len(taps) - 1) // 2
    line = torch.tensor(taps, dtype=torch.float64) / sum(taps)
    kernel = line
    for _ in range(dims - 1):
        kernel = kernel[..., None] * line
    weight = torch.zeros(channels, channels, *kernel.shape, dtype=torch.float64)
    weight[range(channels), range(channels)] = kernel
    if resample == "down":
        return CONV[dims](x, weight, stride=2, padding=padding)
    return CONV_TRANSPOSE[dims](x, 2**dims * weight, stride=2, padding=padding)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
@pytest.mark.parametrize("resample", ["up", "down"])
def test_resampling_is_a_convolution_with_the_filter(
    resample: Literal["up", "down"], taps: tuple[int, ...], kernel: int, dims: int
) -> None:
    torch.manual_seed(0)
    conv = Conv(dims, 3, 4, kernel, resample=resample, filter=taps).double()
    x = torch.randn(2, 3, *SIDES[dims], dtype=torch.float64)
    half_or_double = resampled(x, resample, taps)
    assert list(half_or_double.shape[2:]) == [n // 2 if resample == "down" else 2 * n for n in SIDES[dims]]
    expected = CONV[dims](half_or_double, conv.weight, conv.bias, padding=kernel // 2)
    torch.testing.assert_close(conv(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(Resample(dims, resample, taps).double()(x), half_or_double, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 1), (1,)])
def test_fused_resampling_convolves_first_with_the_padding_of_both(taps: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = Conv(2, 3, 4, 3, resample="down", filter=taps, fused=True).double()
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    more = (len(taps) - 1) // 2
    wide = F.conv2d(x, conv.weight, conv.bias, padding=1 + more)
    expected = F.conv2d(wide, conv.resample_filter.double().tile(4, 1, 1, 1), stride=2, groups=4)
    assert conv(x).shape == (2, 4, 3, 4)
    torch.testing.assert_close(conv(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (3, 1), (4, 1), (16, 4), (48, 12), (128, 32), (384, 32), (10, 2), (144, 24), (7, 1)],
)
def test_group_norm_has_the_most_equal_groups(channels: int, groups: int) -> None:
    norm = group_norm(channels)
    assert (norm.num_groups, norm.eps) == (groups, 1e-6)
    assert norm(torch.randn(2, channels, 3)).shape == (2, channels, 3)


@pytest.mark.parametrize("channels", [4, 32])
@pytest.mark.parametrize("endpoint", [True, False])
def test_positional_embedding_is_its_formula(channels: int, endpoint: bool) -> None:
    c_noise = torch.tensor([-1.55, 0.0, 0.7, 999.0], dtype=torch.float64)
    n = channels // 2
    phase = [[c * 10000 ** (-k / (n - 1 if endpoint else n)) for k in range(n)] for c in c_noise.tolist()]
    first, second = (math.sin, math.cos) if endpoint else (math.cos, math.sin)
    expected = [[first(p) for p in row] + [second(p) for p in row] for row in phase]
    wanted = torch.tensor(expected, dtype=torch.float64)
    embed = PositionalEmbedding(channels, endpoint=endpoint)
    torch.testing.assert_close(embed(c_noise), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(embed(c_noise.float()), wanted.float(), rtol=0, atol=1e-4)


def test_positional_embedding_of_half_precision_is_computed_in_float32() -> None:
    c_noise = torch.tensor([999.0, 501.5], dtype=torch.float16)
    embedding = PositionalEmbedding(16)(c_noise)
    assert embedding.dtype == torch.float32
    assert torch.equal(embedding, PositionalEmbedding(16)(c_noise.float()))


def test_fourier_embedding_is_its_formula() -> None:
    embed = FourierEmbedding(8)
    c_noise = torch.tensor([-1.55, 0.0, 0.7], dtype=torch.float64)
    phase = [[2 * math.pi * f * c for f in embed.freqs.tolist()] for c in c_noise.tolist()]
    expected = [[math.sin(p) for p in row] + [math.cos(p) for p in row] for row in phase]
    torch.testing.assert_close(embed(c_noise), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_fourier_frequencies_are_drawn_with_their_deviation_and_stored() -> None:
    torch.manual_seed(0)
    freqs = FourierEmbedding(20_000).state_dict()["freqs"]
    assert abs(freqs.mean().item()) < 4 * 16 / 100
    assert freqs.std().item() == pytest.approx(16, rel=0.03)


def test_fourier_frequencies_keep_their_precision_in_half_networks() -> None:
    embed = FourierEmbedding(8)
    exact = embed.freqs.clone()
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(embed.to(dtype).freqs, exact)
    assert embed.double().freqs.dtype == torch.float64


def test_initial_weights_are_uniform_within_the_bound() -> None:
    torch.manual_seed(0)
    cases: list[tuple[Conv | nn.Linear, float]] = [
        (xavier(nn.Linear(200, 300)), math.sqrt(6 / 500)),
        (xavier(Conv(2, 30, 50, 3)), math.sqrt(6 / (80 * 9))),
        (xavier(Conv(1, 100, 300, 1), gain=math.sqrt(0.2)), math.sqrt(0.2 * 6 / 400)),
        (uniform(Conv(3, 20, 40, 3)), math.sqrt(1 / (20 * 27))),
        (uniform(nn.Linear(200, 300)), math.sqrt(1 / 200)),
    ]
    for i, (layer, bound) in enumerate(cases):
        largest = layer.weight.abs().max().item()
        assert 0.999 * bound < largest <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert bool(layer.bias.any()) == (i > 2)
    for parameter in zeros(Conv(2, 3, 4, 3)).parameters():
        assert not parameter.any()


STYLES = {"ddpmpp": blocks.DDPMPP, "ncsnpp": blocks.NCSNPP, "adm": blocks.ADM}


@pytest.mark.parametrize("resample", [None, "up", "down"])
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(("channels", "out"), [(8, 12), (12, 12)])
def test_block_is_its_formula(
    style: Style, resample: Literal["up", "down"] | None, heads: int, channels: int, out: int
) -> None:
    torch.manual_seed(0)
    block = UNetBlock(2, channels, out, 5, style, resample=resample, heads=heads, dropout=0.5).double().eval()
    for p in block.parameters():
        nn.init.normal_(p, std=0.5)
    x, emb = torch.randn(2, channels, 4, 6, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)

    def normed(y: Tensor, norm: nn.GroupNorm) -> Tensor:
        return F.group_norm(y, y.shape[1] // 4, norm.weight, norm.bias, style.eps)

    told = (emb @ block.affine.weight.T + block.affine.bias)[:, :, None, None]
    h = block.conv0(F.silu(normed(x, block.norm0)))
    if style is blocks.ADM:
        h = normed(h, block.norm1) * (told[:, :out] + 1) + told[:, out:]
    else:
        h = normed(h + told, block.norm1)
    h = block.conv1(F.silu(h))
    skip = x if resample is None else resampled(x, resample, style.filter)
    if hasattr(block.skip, "weight"):
        skip = F.conv2d(skip, block.skip.weight, block.skip.bias)
    assert hasattr(block.skip, "weight") == (channels != out or (resample is not None and style is not blocks.ADM))
    scale = 1.0 if style is blocks.ADM else math.sqrt(0.5)
    y = (h + skip) * scale
    qkv = block.qkv(normed(y, block.norm2))
    q, k, v = qkv.reshape(2 * heads, out // heads, 3, -1).unbind(2)
    weights = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(out // heads)).softmax(2)
    attended = torch.einsum("nqk,nck->ncq", weights, v).reshape(y.shape)
    expected = (y + block.proj(attended)) * scale
    torch.testing.assert_close(block(x, emb), expected, rtol=1e-6, atol=1e-6)


def test_block_starts_as_a_scaled_identity() -> None:
    torch.manual_seed(0)
    x, emb = torch.randn(2, 16, 8, 8), torch.randn(2, 8)
    torch.testing.assert_close(UNetBlock(2, 16, 16, 8, blocks.DDPMPP, heads=1)(x, emb), x / 2, rtol=0, atol=1e-3)
    assert torch.equal(UNetBlock(2, 16, 16, 8, blocks.ADM, heads=1)(x, emb), x)
