"""The forward pass of OpenAI's U-Net as a function of its state dict, and state dicts at random."""

import math

import torch
from torch.nn import functional as F


def forward(state, x, times, labels=None, *, heads, order, conv_resample=False):
    """ε (and the learned variance) for x; `heads` maps channels to heads, `order` is "heads" or "qkv"."""

    def layer(name, h):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if weight.ndim == 1:
            return F.group_norm(h, 32, weight, bias, 1e-5)
        if weight.ndim == 2:
            return F.linear(h, weight, bias)
        if weight.ndim == 3:
            return F.conv1d(h, weight, bias)
        return F.conv2d(h, weight, bias, padding=weight.shape[-1] // 2)

    def residual(name, h, resample=lambda h: h):
        y = layer(f"{name}.in_layers.2", resample(F.silu(layer(f"{name}.in_layers.0", h))))
        scale, shift = layer(f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None].chunk(2, dim=1)
        y = layer(f"{name}.out_layers.0", y) * (1 + scale) + shift
        y = layer(f"{name}.out_layers.3", F.silu(y))
        h = resample(h)
        return y + (layer(f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in state else h)

    def attention(name, h):
        channels = h.shape[1]
        n = heads(channels)
        qkv = layer(f"{name}.qkv", layer(f"{name}.norm", h).flatten(2))
        mixed = []
        for head in range(n):
            width = channels // n
            starts = [(head * 3 + j) * width if order == "heads" else j * channels + head * width for j in range(3)]
            q, k, v = (qkv[:, start : start + width] for start in starts)
            mixed.append(v @ (q.mT @ k / math.sqrt(width)).softmax(-1).mT)
        return h + layer(f"{name}.proj_out", torch.cat(mixed, dim=1)).reshape(h.shape)

    half = len(state["time_embed.0.weight"].T) // 2
    angles = times[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
    emb = layer("time_embed.2", F.silu(layer("time_embed.0", torch.cat([angles.cos(), angles.sin()], dim=1))))
    if labels is not None:
        emb = emb + state["label_emb.weight"][labels]

    def down(h):
        return F.avg_pool2d(h, 2)

    def up(h):
        return h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    count = len({name.split(".")[1] for name in state if name.startswith("input_blocks")})
    ups = [m for m in range(count) if is_up(state, m)]
    step = ups[0] + 1 if ups else count
    h, kept = x, []
    for n in range(count):
        name = f"input_blocks.{n}"
        if f"{name}.0.op.weight" in state:
            h = F.conv2d(h, state[f"{name}.0.op.weight"], state[f"{name}.0.op.bias"], stride=2, padding=1)
        elif n == 0:
            h = layer(f"{name}.0", h)
        else:
            h = residual(f"{name}.0", h, down if n % step == 0 else lambda h: h)
        if f"{name}.1.qkv.weight" in state:
            h = attention(f"{name}.1", h)
        kept.append(h)
    h = residual("middle_block.2", attention("middle_block.1", residual("middle_block.0", h)))
    for m in range(count):
        name = f"output_blocks.{m}"
        h = residual(f"{name}.0", torch.cat([h, kept.pop()], dim=1))
        last = 1
        if f"{name}.1.qkv.weight" in state:
            h = attention(f"{name}.1", h)
            last = 2
        if m in ups:
            h = layer(f"{name}.{last}.conv", up(h)) if conv_resample else residual(f"{name}.{last}", h, up)
    return layer("out.2", F.silu(layer("out.0", h)))


def is_up(state, m):
    return any(f"output_blocks.{m}.{i}.{inner}.weight" in state for i in (1, 2) for inner in ("in_layers.0", "conv"))


def random_state(n, mult, blocks, attended, *, inputs=3, outputs=6, classes=0, conv_resample=False, seed=0):
    """A state dict with `n` channels, for levels with these multipliers, the indices in `attended` with attention."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def add(name, *shape):
        fan = math.prod(shape[1:]) or 1
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan) + (len(shape) == 1)
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)

    def residual(name, a, b):
        add(f"{name}.in_layers.0", a)
        add(f"{name}.in_layers.2", b, a, 3, 3)
        add(f"{name}.emb_layers.1", 2 * b, 4 * n)
        add(f"{name}.out_layers.0", b)
        add(f"{name}.out_layers.3", b, b, 3, 3)
        if a != b:
            add(f"{name}.skip_connection", b, a, 1, 1)

    def attention(name, c):
        add(f"{name}.norm", c)
        add(f"{name}.qkv", 3 * c, c, 1)
        add(f"{name}.proj_out", c, c, 1)

    add("time_embed.0", 4 * n, n)
    add("time_embed.2", 4 * n, 4 * n)
    if classes:
        state["label_emb.weight"] = torch.randn(classes, 4 * n, generator=generator)
    c = n * mult[0]
    add("input_blocks.0.0", c, inputs, 3, 3)
    widths, index = [c], 1
    for i, factor in enumerate(mult):
        for _ in range(blocks):
            residual(f"input_blocks.{index}.0", c, n * factor)
            c = n * factor
            if i in attended:
                attention(f"input_blocks.{index}.1", c)
            widths.append(c)
            index += 1
        if i < len(mult) - 1:
            if conv_resample:
                add(f"input_blocks.{index}.0.op", c, c, 3, 3)
            else:
                residual(f"input_blocks.{index}.0", c, c)
            widths.append(c)
            index += 1
    residual("middle_block.0", c, c)
    attention("middle_block.1", c)
    residual("middle_block.2", c, c)
    index = 0
    for i, factor in reversed(list(enumerate(mult))):
        for k in range(blocks + 1):
            residual(f"output_blocks.{index}.0", c + widths.pop(), n * factor)
            c, layer = n * factor, 1
            if i in attended:
                attention(f"output_blocks.{index}.1", c)
                layer = 2
            if i and k == blocks:
                if conv_resample:
                    add(f"output_blocks.{index}.{layer}.conv", c, c, 3, 3)
                else:
                    residual(f"output_blocks.{index}.{layer}", c, c)
            index += 1
    add("out.0", c)
    add("out.2", outputs, c, 3, 3)
    return state
