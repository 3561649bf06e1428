"""The forward pass of Song's NCSN++ and DDPM++ as a function of its modules, and modules at random."""

import math

import torch
from torch.nn import functional as F


def random_modules(nf, mult, blocks, attended, *, fourier, seed=0):
    """The parameters of each module in order: dictionaries from names to tensors."""
    generator = torch.Generator().manual_seed(seed)
    modules = []

    def normal(*shape, fan=1.0):
        return torch.randn(shape, generator=generator) / math.sqrt(fan)

    def weights(prefix, *shape):
        fan = math.prod(shape[1:]) or 1
        return {f"{prefix}weight": normal(*shape, fan=fan) + (len(shape) == 1), f"{prefix}bias": 0.1 * normal(shape[0])}

    def block(a, b, resample=False):
        module = weights("GroupNorm_0.", a) | weights("Conv_0.", b, a, 3, 3) | weights("Dense_0.", b, 4 * nf)
        module |= weights("GroupNorm_1.", b) | weights("Conv_1.", b, b, 3, 3)
        modules.append(module | (weights("Conv_2.", b, a, 1, 1) if a != b or resample else {}))

    def attention(c):
        module = weights("GroupNorm_0.", c)
        for j in range(4):
            module |= {f"NIN_{j}.W": normal(c, c, fan=c), f"NIN_{j}.b": 0.1 * normal(c)}
        modules.append(module)

    if fourier:
        modules.append({"W": 16 * normal(nf)})
    modules += [weights("", 4 * nf, nf * (2 if fourier else 1)), weights("", 4 * nf, 4 * nf), weights("", nf, 3, 3, 3)]
    widths, c, pyramid = [nf], nf, 3
    for i, factor in enumerate(mult):
        for _ in range(blocks):
            block(c, c := nf * factor)
            if i in attended:
                attention(c)
            widths.append(c)
        if i < len(mult) - 1:
            block(c, c, resample=True)
            if fourier:
                modules.append(weights("Conv2d_0.", c, pyramid, 3, 3))
                pyramid = c
            widths.append(c)
    block(c, c)
    attention(c)
    block(c, c)
    for i, factor in reversed(list(enumerate(mult))):
        for _ in range(blocks + 1):
            block(c + widths.pop(), c := nf * factor)
        if i in attended:
            attention(c)
        if i:
            block(c, c, resample=True)
    return [*modules, weights("", c), weights("", 3, c, 3, 3)]


def resampled(h, *, up, fir):
    """Halved or doubled: by averages and repetition, or by the filter [1, 3, 3, 1] one element at a time."""
    if not fir:
        return h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) if up else F.avg_pool2d(h, 2)
    for axis in (2, 3):
        h = h.movedim(axis, -1)
        h = F.pad(h, (1, 1))
        if up:
            even, odd = (h[..., :-2] + 3 * h[..., 1:-1]) / 4, (3 * h[..., 1:-1] + h[..., 2:]) / 4
            h = torch.stack([even, odd], dim=-1).flatten(-2)
        else:
            h = (h[..., :-2:2] + 3 * h[..., 1:-1:2] + 3 * h[..., 2::2] + h[..., 3::2]) / 8
        h = h.movedim(-1, axis)
    return h


def strided(module, h):
    """The filter [1, 3, 3, 1] in full resolution, then a convolution that takes every second element."""
    for axis in (2, 3):
        h = F.pad(h.movedim(axis, -1), (2, 2))
        h = ((h[..., :-3] + 3 * h[..., 1:-2] + 3 * h[..., 2:-1] + h[..., 3:]) / 8).movedim(-1, axis)
    return F.conv2d(h, module["Conv2d_0.weight"], module["Conv2d_0.bias"], stride=2)


def forward(modules, x, embedded, mult, blocks, attended, *, fourier):
    """The network before its division by σ; `embedded` is c_noise: ln(σ) with σ for data in [0, 1], or 999·t."""
    waiting = iter(modules)

    def norm(m, prefix, h):
        weight = m[f"{prefix}weight"]
        return F.group_norm(h, min(len(weight) // 4, 32), weight, m[f"{prefix}bias"], 1e-6)

    def conv(m, prefix, h):
        weight = m[f"{prefix}weight"]
        return F.conv2d(h, weight, m[f"{prefix}bias"], padding=weight.shape[-1] // 2)

    def block(h, up=None):
        m = next(waiting)
        y = F.silu(norm(m, "GroupNorm_0.", h))
        if up is not None:
            y, h = resampled(y, up=up, fir=fourier), resampled(h, up=up, fir=fourier)
        y = conv(m, "Conv_0.", y) + F.linear(F.silu(temb), m["Dense_0.weight"], m["Dense_0.bias"])[:, :, None, None]
        y = conv(m, "Conv_1.", F.silu(norm(m, "GroupNorm_1.", y)))
        return ((conv(m, "Conv_2.", h) if "Conv_2.weight" in m else h) + y) / math.sqrt(2)

    def attention(h):
        m = next(waiting)
        rows = norm(m, "GroupNorm_0.", h).flatten(2).mT
        q, k, v = (rows @ m[f"NIN_{j}.W"] + m[f"NIN_{j}.b"] for j in range(3))
        mixed = (q @ k.mT / math.sqrt(h.shape[1])).softmax(-1) @ v
        return (h + (mixed @ m["NIN_3.W"] + m["NIN_3.b"]).mT.reshape(h.shape)) / math.sqrt(2)

    if fourier:
        angles = 2 * math.pi * embedded[:, None] * next(waiting)["W"]
    else:
        half = len(modules[0]["weight"]) // 8
        angles = embedded[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
    temb = torch.cat([angles.sin(), angles.cos()], dim=1)
    for activation in (lambda t: t, F.silu):
        m = next(waiting)
        temb = F.linear(activation(temb), m["weight"], m["bias"])
    pyramid, kept = x, [conv(next(waiting), "", x)]
    for i in range(len(mult)):
        for _ in range(blocks):
            h = block(kept[-1])
            kept.append(attention(h) if i in attended else h)
        if i < len(mult) - 1:
            h = block(kept[-1], up=False)
            if fourier:
                h = pyramid = (strided(next(waiting), pyramid) + h) / math.sqrt(2)
            kept.append(h)
    h = block(attention(block(kept[-1])))
    for i in reversed(range(len(mult))):
        for _ in range(blocks + 1):
            h = block(torch.cat([h, kept.pop()], dim=1))
        if i in attended:
            h = attention(h)
        if i:
            h = block(h, up=True)
    h = F.silu(norm(next(waiting), "", h))
    return conv(next(waiting), "", h)
