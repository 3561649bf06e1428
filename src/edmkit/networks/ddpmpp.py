"""DDPM++, the U-Net of the paper's VP and EDM experiments on small images."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from edmkit._shapes import Float, Tensor
from edmkit.networks.blocks import UNetBlock
from edmkit.networks.conditioning import ConditionedNetwork, require_int, require_ints, require_probability
from edmkit.networks.layers import Conv2d, group_norm
from edmkit.protocols import Cond, check_cond

__all__ = ["DDPMpp"]


class DDPMpp(ConditionedNetwork):
    """F(x; c_noise) for images: DDPM++ of Song et al. 2021, with the paper's CIFAR-10 settings as defaults.

    `shape` is (C, H, W). Level i of the U has channel_mult[i]·model_channels channels, 1/2^i of the height
    and width, `num_blocks` residual blocks on the way down and one more on the way up. `model_channels` is
    even. The embedding has channel_mult_emb·model_channels elements. `attn_resolutions` names levels by the
    longer of their height and width: there the blocks on the way down and the last one on the way up have
    self-attention. None is the finest level of at most 16. The bottom of the U has one block with attention
    in any case.

    Images are padded with zeros at the bottom and on the right, to multiples of 2^(levels − 1), and the
    output is cropped. The network takes images of any size; `shape`, padded, settles which levels have
    attention and how the parameters are called. Their names are those of `SongUNet` in the authors'
    implementation.

    Conditions: "labels", class indices (B,) or vectors (B, label_dim), dropped in training with probability
    `label_dropout`; "augment" (B, augment_dim); "image" (B, image_channels, H, W), concatenated to x. A
    missing one is zeros.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        label_dim: int = 0,
        augment_dim: int = 0,
        image_channels: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] | None = None,
        dropout: float = 0.1,
        label_dropout: float = 0.0,
    ) -> None:
        require_ints("shape", shape)
        require_int("image_channels", image_channels, 0)
        require_int("model_channels", model_channels, 4)
        require_ints("channel_mult", channel_mult)
        require_int("channel_mult_emb", channel_mult_emb, 1)
        require_int("num_blocks", num_blocks, 1)
        require_probability("dropout", dropout)
        if len(shape) != 3:
            raise ValueError(f"shape: {tuple(shape)}; want (channels, height, width)")
        if model_channels % 2:
            raise ValueError(f"model_channels: {model_channels}; want an even number")
        emb_channels = channel_mult_emb * model_channels
        super().__init__(
            noise_channels=model_channels,
            emb_channels=emb_channels,
            label_dim=label_dim,
            augment_dim=augment_dim,
            label_dropout=label_dropout,
        )
        self.config = {
            "shape": list(shape),
            "label_dim": label_dim,
            "augment_dim": augment_dim,
            "image_channels": image_channels,
            "model_channels": model_channels,
            "channel_mult": list(channel_mult),
            "channel_mult_emb": channel_mult_emb,
            "num_blocks": num_blocks,
            "attn_resolutions": None if attn_resolutions is None else list(attn_resolutions),
            "dropout": dropout,
            "label_dropout": label_dropout,
        }
        self.channels = shape[0]
        self.image_channels = image_channels
        if image_channels:
            self.conditions += ("image",)

        levels = range(len(channel_mult))
        self.multiple = 2 ** levels[-1]
        height, width = (n + -n % self.multiple for n in shape[1:])
        names = [f"{height >> i}x{width >> i}" for i in levels]
        attended = _attended_levels([max(height, width) >> i for i in levels], attn_resolutions)
        block = functools.partial(UNetBlock, emb_channels=emb_channels, dropout=dropout)

        n = model_channels
        self.enc = nn.ModuleDict({f"{names[0]}_conv": Conv2d(self.channels + image_channels, n, 3)})
        skips = [n]
        for i in levels:
            if i > 0:
                self.enc[f"{names[i]}_down"] = block(n, n, resample="down")
                skips.append(n)
            for k in range(num_blocks):
                out = channel_mult[i] * model_channels
                self.enc[f"{names[i]}_block{k}"] = block(n, out, attention=i in attended)
                skips.append(n := out)

        self.dec = nn.ModuleDict()
        for i in reversed(levels):
            if i == levels[-1]:
                self.dec[f"{names[i]}_in0"] = block(n, n, attention=True)
                self.dec[f"{names[i]}_in1"] = block(n, n)
            else:
                self.dec[f"{names[i]}_up"] = block(n, n, resample="up")
            for k in range(num_blocks + 1):
                out = channel_mult[i] * model_channels
                attention = i in attended and k == num_blocks
                self.dec[f"{names[i]}_block{k}"] = block(n + skips.pop(), out, attention=attention)
                n = out
        self.dec[f"{names[0]}_aux_norm"] = group_norm(n)
        self.dec[f"{names[0]}_aux_conv"] = Conv2d(n, self.channels, 3, gain=1e-5)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        c_noise: Float[Tensor, "batch"],
        cond: Cond | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """F(x; c_noise) for x that is already scaled by c_in."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x: shape {tuple(x.shape)}; want (B, {self.channels}, H, W)")
        cond = check_cond(cond, self.conditions, "DDPMpp")
        emb = self.embed(len(x), c_noise, cond)
        height, width = x.shape[2:]
        if self.image_channels:
            x = torch.cat([x, self._image(x, cond)], dim=1)
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))

        skips = []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        *blocks, (_, norm), (_, conv) = self.dec.items()
        for name, block in blocks:
            if "_block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, emb)
        x = conv(F.silu(norm(x)))
        return x[:, :, :height, :width]

    def _image(self, x: Tensor, cond: Cond) -> Tensor:
        """The spatial condition, in the dtype of x."""
        shape = (len(x), self.image_channels, *x.shape[2:])
        if "image" not in cond:
            return x.new_zeros(shape)
        image = cond["image"]
        if image.shape != shape:
            raise ValueError(f"image: shape {tuple(image.shape)}; want {shape}")
        return image.to(x.dtype)


def _attended_levels(resolutions: list[int], wanted: Sequence[int] | None) -> set[int]:
    """The indices of the levels with attention, of levels that have these resolutions."""
    if wanted is None:
        return {i for i, r in enumerate(resolutions) if r <= 16 and (i == 0 or resolutions[i - 1] > 16)}
    unknown = sorted(set(wanted) - set(resolutions))
    if unknown:
        raise ValueError(f"attn_resolutions: {unknown} is no level of this network; its levels are {resolutions}")
    return {resolutions.index(r) for r in wanted}
