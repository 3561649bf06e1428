"""The U-Nets of the paper: DDPM++, NCSN++ and ADM (Appendix F.1), for signals, images and volumes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffspace._shapes import Float, Tensor
from diffspace.networks import styles
from diffspace.networks.blocks import UNetBlock
from diffspace.networks.conditioning import (
    ConditionedNetwork,
    config_of,
    require_int,
    require_ints,
    require_probability,
)
from diffspace.networks.layers import Conv, FourierEmbedding, PositionalEmbedding, group_norm
from diffspace.networks.styles import Style
from diffspace.protocols import Cond, check_cond

__all__ = ["ADM", "DDPMpp", "NCSNpp", "UNet"]

_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


class UNet(ConditionedNetwork):
    """What the U-Nets share: F(x; c_noise) for x of shape (B, C, *sides) with one, two or three sides.

    `shape` is (C, *sides). Level i of the U has channel_mult[i]·model_channels channels, 1/2^i of every side,
    `num_blocks` residual blocks on the way down and one more on the way up. `model_channels` is even. The embedding has
    channel_mult_emb·model_channels elements. `attn_resolutions` names levels by their longest side: there the blocks
    have self-attention. The bottom of the U has one block with attention in any case.

    Samples are padded with zeros at the end of every side, to multiples of 2^(levels − 1), and the output is cropped.
    The network takes samples of any size; `shape`, padded, settles which levels have attention and how the parameters
    are called. Their names are those of the authors' implementation.

    Conditions: "labels", class indices (B,) or vectors (B, label_dim), dropped in training with probability
    `label_dropout`; "augment" (B, augment_dim); "image" (B, image_channels, *sides), concatenated to x. A missing one
    is zeros.

    With `checkpointing`, what is inside of blocks is computed anew in the backward pass instead of being kept: less
    memory for one more forward pass.
    """

    style: ClassVar[Style]

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
        checkpointing: bool = False,
    ) -> None:
        require_ints("shape", shape)
        require_int("image_channels", image_channels, 0)
        require_int("model_channels", model_channels, 4)
        require_ints("channel_mult", channel_mult)
        require_int("channel_mult_emb", channel_mult_emb, 1)
        require_int("num_blocks", num_blocks, 1)
        require_probability("dropout", dropout)
        if len(shape) not in (2, 3, 4):
            raise ValueError(f"shape: {tuple(shape)}; want (channels, length), (channels, height, width) or one more")
        if model_channels % 2:
            raise ValueError(f"model_channels: {model_channels}; want an even number")
        style = self.style
        if style.fourier:
            map_noise: nn.Module = FourierEmbedding(noise_channels := 2 * model_channels)
        else:
            map_noise = PositionalEmbedding(noise_channels := model_channels, endpoint=style.endpoint)
        super().__init__(
            map_noise,
            noise_channels=noise_channels,
            emb_channels=model_channels * channel_mult_emb,
            label_dim=label_dim,
            augment_dim=augment_dim,
            label_dropout=label_dropout,
            init=style.init,
            late_labels=style.late_labels,
        )
        self.config = config_of(UNet, locals())
        self.checkpointing = checkpointing
        self.dims, self.channels, self.image_channels = len(shape) - 1, shape[0], image_channels
        if image_channels:
            self.conditions += ("image",)

        levels = range(len(channel_mult))
        self.multiple = 2 ** levels[-1]
        sides = [n + -n % self.multiple for n in shape[1:]]
        names = ["x".join(str(side >> i) for side in sides) for i in levels]
        attended = self._attended_levels([max(sides) >> i for i in levels], attn_resolutions)
        conv = functools.partial(Conv, self.dims)

        def block(
            n: int, out: int, *, resample: Literal["up", "down"] | None = None, attention: bool = False
        ) -> UNetBlock:
            heads = self._heads(out) if attention else 0
            return UNetBlock(
                self.dims, n, out, self.emb_channels, style, resample=resample, heads=heads, dropout=dropout
            )

        widths = [mult * model_channels for mult in channel_mult]
        n = widths[0] if style.wide_input else model_channels
        self.enc = nn.ModuleDict({f"{names[0]}_conv": style.init(conv(self.channels + image_channels, n, 3))})
        skips = [n]
        residual = self.channels + image_channels
        for i in levels:
            if i > 0:
                self.enc[f"{names[i]}_down"] = self._resampler("down", n) or block(n, n, resample="down")
                skips.append(n)
                if style.residual_input:
                    down = conv(residual, n, 3, resample="down", filter=style.filter, fused=True)
                    self.enc[f"{names[i]}_aux_residual"] = style.init(down)
                    residual = n
            for k in range(num_blocks):
                self.enc[f"{names[i]}_block{k}"] = block(n, widths[i], attention=i in attended)
                skips.append(n := widths[i])

        self.dec = nn.ModuleDict()
        for i in reversed(levels):
            if i == levels[-1]:
                self.dec[f"{names[i]}_in0"] = block(n, n, attention=True)
                self.dec[f"{names[i]}_in1"] = block(n, n)
            else:
                self.dec[f"{names[i]}_up"] = self._resampler("up", n) or block(n, n, resample="up")
            for k in range(num_blocks + 1):
                attention = i in attended and (k == num_blocks or not style.attend_last)
                self.dec[f"{names[i]}_block{k}"] = block(n + skips.pop(), widths[i], attention=attention)
                n = widths[i]
        norm, last = group_norm(n, style.eps), style.init_last(conv(n, self.channels, 3))
        if style.separate_output:
            self.out_norm, self.out_conv = norm, last
        else:
            self.dec[f"{names[0]}_aux_norm"], self.dec[f"{names[0]}_aux_conv"] = norm, last
        if self.dims in _CHANNELS_LAST:
            for parameter in self.parameters():
                if parameter.ndim == self.dims + 2:
                    parameter.data = parameter.data.contiguous(memory_format=_CHANNELS_LAST[self.dims])

    def _heads(self, channels: int) -> int:
        """The number of attention heads of a block with so many channels."""
        return 1

    def _resampler(self, resample: Literal["up", "down"], channels: int) -> nn.Module | None:
        """What stands between two levels, where it is no residual block."""
        return None

    def _attended_levels(self, longest: list[int], wanted: Sequence[int] | None) -> set[int]:
        """The indices of the levels with attention, of levels whose longest sides are these."""
        if wanted is None:
            small = [i for i, side in enumerate(longest) if side <= self.style.attended_side]
            return set(small[:1] if self.style.attend_last else small)
        unknown = sorted(set(wanted) - set(longest))
        if unknown:
            raise ValueError(f"attn_resolutions: {unknown} is no level of this network; its levels are {longest}")
        return {longest.index(side) for side in wanted}

    def forward(
        self, x: Float[Tensor, "batch channels *sides"], c_noise: Float[Tensor, "batch"], cond: Cond | None = None
    ) -> Float[Tensor, "batch channels *sides"]:
        """F(x; c_noise) for x that is already scaled by c_in."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.channels:
            raise ValueError(f"x: shape {tuple(x.shape)}; want (B, {self.channels}) and {self.dims} sides")
        cond = check_cond(cond, self.conditions, type(self).__name__)
        emb = self.embed(len(x), c_noise, cond)
        sides = x.shape[2:]
        if self.image_channels:
            x = torch.cat([x, self._image(x, cond)], dim=1)
        x = F.pad(x, [n for side in reversed(sides) for n in (0, -side % self.multiple)])
        if self.dims in _CHANNELS_LAST:
            x = x.contiguous(memory_format=_CHANNELS_LAST[self.dims])

        apply = self._apply_layer
        residual = x
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            if name.endswith("_aux_residual"):
                x = residual = skips[-1] = (x + layer(residual)) * self.style.skip_scale
            else:
                x = apply(layer, x, emb)
                skips.append(x)
        for name, layer in self.dec.items():
            if "_block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            x = F.silu(layer(x)) if name.endswith("_aux_norm") else apply(layer, x, emb)
        if self.style.separate_output:
            x = self.out_conv(F.silu(self.out_norm(x)))
        for axis, side in enumerate(sides, start=2):
            x = x.narrow(axis, 0, side)
        return x.contiguous()

    def _apply_layer(self, layer: Callable[..., Tensor], x: Tensor, emb: Tensor) -> Tensor:
        inputs = (x, emb) if isinstance(layer, UNetBlock) else (x,)
        if self.checkpointing and torch.is_grad_enabled():
            y: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
            return y
        return layer(*inputs)

    def _image(self, x: Tensor, cond: Cond) -> Tensor:
        """The spatial condition, in the dtype of x."""
        shape = (len(x), self.image_channels, *x.shape[2:])
        if "image" not in cond:
            return x.new_zeros(shape)
        image = cond["image"]
        if image.shape != shape:
            raise ValueError(f"image: shape {tuple(image.shape)}; want {shape}")
        return image.to(x.dtype)


class DDPMpp(UNet):
    """DDPM++ of Song et al. 2021, a `UNet` with the paper's CIFAR-10 settings as defaults.

    On the way up, the last block of an attended level has attention, with one head. Without `attn_resolutions` that is
    the finest level of at most 16.
    """

    style = styles.DDPMPP


class NCSNpp(UNet):
    """NCSN++ of Song et al. 2021, a `UNet` with the paper's CIFAR-10 settings as defaults.

    It is DDPM++ with random Fourier features of c_noise, the resampling filter [1, 3, 3, 1], and its input, resampled
    by convolutions, added to the features of every level on the way down.
    """

    style = styles.NCSNPP


class ADM(UNet):
    """ADM of Dhariwal and Nichol 2021, a `UNet` with the paper's ImageNet-64 settings as defaults.

    The embedding scales and shifts the features. Every block of an attended level has attention; without
    `attn_resolutions` those are the levels of at most 32. There are `num_heads` heads, or by default as many as leave
    each at least `channels_per_head` channels. With `conv_resample`, plain convolutions stand between the levels in
    place of residual blocks, as in Nichol and Dhariwal 2021.
    """

    style = styles.ADM

    def __init__(
        self,
        shape: Sequence[int],
        *,
        label_dim: int = 0,
        augment_dim: int = 0,
        image_channels: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] | None = None,
        channels_per_head: int = 64,
        num_heads: int | None = None,
        conv_resample: bool = False,
        dropout: float = 0.1,
        label_dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        require_int("channels_per_head", channels_per_head, 1)
        if num_heads is not None:
            require_int("num_heads", num_heads, 1)
        self.channels_per_head, self.num_heads, self.conv_resample = channels_per_head, num_heads, conv_resample
        super().__init__(
            shape,
            label_dim=label_dim,
            augment_dim=augment_dim,
            image_channels=image_channels,
            model_channels=model_channels,
            channel_mult=channel_mult,
            channel_mult_emb=channel_mult_emb,
            num_blocks=num_blocks,
            attn_resolutions=attn_resolutions,
            dropout=dropout,
            label_dropout=label_dropout,
            checkpointing=checkpointing,
        )
        self.config = config_of(ADM, locals())

    def _heads(self, channels: int) -> int:
        if self.num_heads is None:
            most = max(1, channels // self.channels_per_head)
            return next(n for n in range(most, 0, -1) if channels % n == 0)
        if channels % self.num_heads:
            raise ValueError(f"num_heads: {self.num_heads}; want a divisor of the {channels} channels of a level")
        return self.num_heads

    def _resampler(self, resample: Literal["up", "down"], channels: int) -> nn.Module | None:
        if not self.conv_resample:
            return None
        # [1] alone keeps every second element of the convolution
        filter = (1,) if resample == "down" else (1, 1)
        conv = Conv(self.dims, channels, channels, 3, resample=resample, filter=filter, fused=resample == "down")
        return self.style.init(conv)
