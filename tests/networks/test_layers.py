"""Layers and the U-Net block against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edmkit.networks.blocks import UNetBlock
from edmkit.networks.layers import Conv2d, PositionalEmbedding, group_norm, linear


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resample", ["up", "down"])
def test_resampling_is_the_grouped_convolution_with_the_filter(resample: str, kernel: int) -> None:
    torch.manual_seed(0)
    conv = Conv2d(3, 4, kernel, resample=resample).double()
    nn.init.normal_(conv.bias)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    if resample == "down":
        resampled = F.conv2d(x, conv.resample_filter.tile(3, 1, 1, 1), groups=3, stride=2)
    else:
        resampled = F.conv_transpose2d(x, 4 * conv.resample_filter.tile(3, 1, 1, 1), groups=3, stride=2)
    expected = F.conv2d(resampled, conv.weight, conv.bias, padding=kernel // 2)
    torch.testing.assert_close(conv(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (3, 1), (4, 1), (16, 4), (48, 12), (128, 32), (384, 32), (10, 2), (144, 24), (7, 1)],
)
def test_group_norm_has_the_most_equal_groups(channels: int, groups: int) -> None:
    norm = group_norm(channels)
    assert (norm.num_groups, norm.eps) == (groups, 1e-6)
    assert norm(torch.randn(2, channels, 3)).shape == (2, channels, 3)


@pytest.mark.parametrize("channels", [4, 32])
def test_positional_embedding_is_its_formula(channels: int) -> None:
    c_noise = torch.tensor([-1.55, 0.0, 0.7, 999.0], dtype=torch.float64)
    n = channels // 2
    phase = [[c * 10000 ** (-k / (n - 1)) for k in range(n)] for c in c_noise.tolist()]
    expected = [[math.sin(p) for p in row] + [math.cos(p) for p in row] for row in phase]
    wanted = torch.tensor(expected, dtype=torch.float64)
    embed = PositionalEmbedding(channels)
    torch.testing.assert_close(embed(c_noise), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(embed(c_noise.float()), wanted.float(), rtol=0, atol=1e-4)


def test_positional_embedding_of_half_precision_is_computed_in_float32() -> None:
    c_noise = torch.tensor([999.0, 501.5], dtype=torch.float16)
    embedding = PositionalEmbedding(16)(c_noise)
    assert embedding.dtype == torch.float32
    assert torch.equal(embedding, PositionalEmbedding(16)(c_noise.float()))


def test_initial_weights_are_uniform_within_the_bound() -> None:
    torch.manual_seed(0)
    cases = [
        (linear(200, 300), math.sqrt(6 / 500)),
        (Conv2d(30, 50, 3), math.sqrt(6 / (80 * 9))),
        (Conv2d(100, 300, 1, gain=math.sqrt(0.2)), math.sqrt(0.2 * 6 / 400)),
    ]
    for layer, bound in cases:
        largest = layer.weight.abs().max().item()
        assert 0.999 * bound < largest <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert not layer.bias.any()


@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_block_is_its_formula(resample: str | None) -> None:
    torch.manual_seed(0)
    block = UNetBlock(8, 12, 5, resample=resample, attention=True, dropout=0.5).double().eval()
    for p in block.parameters():
        nn.init.normal_(p, std=0.5)
    x, emb = torch.randn(2, 8, 4, 6, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)

    h = block.conv0(F.silu(F.group_norm(x, 2, block.norm0.weight, block.norm0.bias, 1e-6)))
    h = h + (emb @ block.affine.weight.T + block.affine.bias)[:, :, None, None]
    h = block.conv1(F.silu(F.group_norm(h, 3, block.norm1.weight, block.norm1.bias, 1e-6)))
    y = (h + block.skip(x)) / math.sqrt(2)
    qkv = block.qkv(F.group_norm(y, 3, block.norm2.weight, block.norm2.bias, 1e-6))
    q, k, v = qkv.reshape(2, 12, 3, -1).unbind(2)
    weights = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(12)).softmax(2)
    attended = torch.einsum("nqk,nck->ncq", weights, v).reshape(y.shape)
    expected = (y + block.proj(attended)) / math.sqrt(2)
    torch.testing.assert_close(block(x, emb), expected, rtol=1e-11, atol=1e-11)


def test_block_starts_as_a_scaled_identity() -> None:
    torch.manual_seed(0)
    block = UNetBlock(16, 16, 8, attention=True)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x, torch.randn(2, 8)), x / 2, rtol=0, atol=1e-3)
