"""The U-Nets of the paper, DDPM++, NCSN++ and ADM (Appendix F.1), and its networks by name (Table 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_choice, check_integer, check_number
from diffspace.conditions import divisors
from diffspace.networks import blocks
from diffspace.networks.blocks import Style, UNetBlock
from diffspace.networks.embedding import ConditionedNetwork, check_shape, check_sizes, config_of
from diffspace.networks.layers import Conv, FourierEmbedding, PositionalEmbedding, Resample, group_norm, largest_divisor
from diffspace.protocols import Cond
from diffspace.tensors import is_transformed

_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
EncoderType = Literal["standard", "skip", "residual"]
DecoderType = Literal["standard", "skip"]


@dataclass(frozen=True)
class _Level:
    """One resolution of a U-Net; `name` is its sides, with which the names of its parameters begin."""

    name: str
    channels: int
    attended: bool


class UNet(ConditionedNetwork):
    """The base of the U-Nets: F(x; c_noise) for x of shape (B, C, *sides) with one, two or three sides.

    Level i has 1/2^i of every side, `num_blocks` residual blocks on the way down and one more on the way up. The bottom
    of the U always has one block with attention. Samples may have any size: they are padded with zeros at the end of
    every side to multiples of 2^(levels − 1), and the output is cropped. `shape`, padded, determines only which levels
    have attention and the names of the parameters, which are those of the authors' implementation.

    Args:
        shape: (C, *sides) of one sample.
        model_channels: the unit of the channels, an even number.
        channel_mult: channels of each level, in units of `model_channels`.
        channel_mult_emb: length of the embedding, in units of `model_channels`.
        num_blocks: residual blocks of each level.
        attn_resolutions: longest sides of the levels whose blocks have self-attention; None for the paper's choice.
        dropout: probability in the blocks.
        label_dim: number of classes; the condition "labels" is class indices (B,) or vectors (B, label_dim).
        label_dropout: probability that a condition is dropped in training.
        augment_dim: length of the condition "augment", (B, augment_dim).
        image_channels: channels of the condition "image", (B, image_channels, *sides), which is required and
            concatenated to x.
        encoder_type: what lower levels receive of the input: "standard" nothing, "skip" itself, "residual" features.
            "skip" resamples it, for a 1×1 convolution; "residual" are those of the level above, by a resampling
            convolution. None for that of the architecture: "residual" for NCSN++, else "standard".
        decoder_type: "standard" for an output of the finest level; "skip" for the sum of those of all, resampled.
        conditioning: further conditions by name, each a `Condition`. Images are concatenated to x, enlarged to its
            size by repetition.
        checkpointing: compute the activations within blocks again in the backward pass, to save memory.
    """

    style: ClassVar[Style]

    def __init__(
        self,
        shape: Sequence[int],
        *,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] | None = None,
        dropout: float = 0.1,
        label_dim: int = 0,
        label_dropout: float = 0.0,
        augment_dim: int = 0,
        image_channels: int = 0,
        encoder_type: EncoderType | None = None,
        decoder_type: DecoderType = "standard",
        conditioning: Mapping[str, Any] | None = None,
        checkpointing: bool = False,
    ) -> None:
        style = self.style
        encoder = style.encoder_type if encoder_type is None else encoder_type
        check_choice("encoder_type", encoder, EncoderType)
        check_choice("decoder_type", decoder_type, DecoderType)
        check_sizes("shape", shape)
        check_integer("model_channels", model_channels, 4)
        check_sizes("channel_mult", channel_mult)
        check_integer("channel_mult_emb", channel_mult_emb, 1)
        check_integer("num_blocks", num_blocks, 1)
        check_number("dropout", dropout, "[0, 1)")
        check_integer("image_channels", image_channels, 0)
        if len(shape) not in (2, 3, 4):
            raise ValueError(f"shape: expected channels and one, two or three sides, got {tuple(shape)}")
        if model_channels % 2:
            raise ValueError(f"model_channels: expected an even number, got {model_channels}")
        noise_channels = model_channels * (2 if style.fourier else 1)
        super().__init__(
            FourierEmbedding(noise_channels) if style.fourier else PositionalEmbedding(noise_channels, style.endpoint),
            noise_channels=noise_channels,
            emb_channels=model_channels * channel_mult_emb,
            label_dim=label_dim,
            augment_dim=augment_dim,
            label_dropout=label_dropout,
            conditioning=conditioning,
            init=style.init,
            late_labels=style.late_labels,
        )
        self.config = config_of(UNet, locals())
        self._factors = {name: divisors(name, each.shape, shape) for name, each in self._of_kind(image=True)}
        if image_channels:
            if "image" in self.conditioning:
                raise ValueError(f"conditioning: 'image' is that of image_channels = {image_channels}; use one of them")
            self.conditions += ("image",)
            self.required["image"] = f'pass cond={{"image": (B, {image_channels}, *sides)}}, zeros where there is none'
        self.dims, self.channels, self.image_channels = len(shape) - 1, shape[0], image_channels
        self.dropout, self.checkpointing = dropout, checkpointing
        self.encoder_type, self.decoder_type = encoder, decoder_type
        self.multiple = 2 ** (len(channel_mult) - 1)

        sides = [side + -side % self.multiple for side in shape[1:]]
        attended = self._attended_levels([max(sides) >> i for i in range(len(channel_mult))], attn_resolutions)
        levels = [
            _Level("x".join(str(side >> i) for side in sides), mult * model_channels, i in attended)
            for i, mult in enumerate(channel_mult)
        ]
        first_channels = levels[0].channels if style.wide_input else model_channels
        self.enc, skips = self._make_encoder(levels, first_channels, num_blocks)
        self.dec = self._make_decoder(levels, skips, num_blocks)
        if style.separate_output:
            self.out_norm, self.out_conv = self._output(levels[0])
        if self.dims in _CHANNELS_LAST:
            for parameter in self.parameters():
                if parameter.ndim == self.dims + 2:
                    parameter.data = parameter.data.contiguous(memory_format=_CHANNELS_LAST[self.dims])

    def value_shape(self, name: str, x: Tensor) -> tuple[int, ...]:
        """The shape of one value of a condition for samples x; an image has the sides of x over its factors."""
        if name not in self._factors:
            return super().value_shape(name, x)
        sides = (side // factor for side, factor in zip(x.shape[2:], self._factors[name], strict=True))
        return (self.conditioning[name].channels, *sides)

    def _attended_levels(self, longest: list[int], resolutions: Sequence[int] | None) -> set[int]:
        """The indices of the levels with attention, given the longest side of every level."""
        if resolutions is None:
            small = [i for i, side in enumerate(longest) if side <= self.style.attended_side]
            return set(small[:1] if self.style.attend_last else small)
        unknown = sorted(set(resolutions) - set(longest))
        if unknown:
            raise ValueError(f"attn_resolutions: {unknown} is not among the longest sides of the levels, {longest}")
        return {longest.index(side) for side in resolutions}

    def _make_encoder(self, levels: list[_Level], n: int, num_blocks: int) -> tuple[nn.ModuleDict, list[int]]:
        """The way down, which begins with n channels, and the channels of each output that the way up uses."""
        style, inputs = self.style, self.channels + self.image_channels + self.image_inputs
        enc = nn.ModuleDict({f"{levels[0].name}_conv": style.init(Conv(self.dims, inputs, n, 3))})
        skips = [n]
        for level in levels:
            if level is not levels[0]:
                enc[f"{level.name}_down"] = self._resampler("down", n)
                skips.append(n)
                if self.encoder_type == "skip":
                    enc[f"{level.name}_aux_down"] = Resample(self.dims, "down", style.filter)
                    enc[f"{level.name}_aux_skip"] = style.init(Conv(self.dims, inputs, n, 1))
                elif self.encoder_type == "residual":
                    down = Conv(self.dims, inputs, n, 3, resample="down", filter=style.filter, fused=True)
                    enc[f"{level.name}_aux_residual"] = style.init(down)
                    inputs = n
            for k in range(num_blocks):
                enc[f"{level.name}_block{k}"] = self._block(n, level.channels, attention=level.attended)
                n = level.channels
                skips.append(n)
        return enc, skips

    def _make_decoder(self, levels: list[_Level], skips: list[int], num_blocks: int) -> nn.ModuleDict:
        """The bottom of the U and the way up, whose blocks take the outputs of the way down in reverse order."""
        bottom, n = levels[-1], skips[-1]
        dec = nn.ModuleDict(
            {f"{bottom.name}_in0": self._block(n, n, attention=True), f"{bottom.name}_in1": self._block(n, n)}
        )
        for level in reversed(levels):
            if level is not bottom:
                dec[f"{level.name}_up"] = self._resampler("up", n)
            for k in range(num_blocks + 1):
                attention = level.attended and (k == num_blocks or not self.style.attend_last)
                dec[f"{level.name}_block{k}"] = self._block(n + skips.pop(), level.channels, attention=attention)
                n = level.channels
            if self.decoder_type == "skip" and level is not bottom:
                dec[f"{level.name}_aux_up"] = Resample(self.dims, "up", self.style.filter)
            if self.decoder_type == "skip" or (level is levels[0] and not self.style.separate_output):
                dec[f"{level.name}_aux_norm"], dec[f"{level.name}_aux_conv"] = self._output(level)
        return dec

    def _output(self, level: _Level) -> tuple[nn.Module, nn.Module]:
        """The last normalisation and convolution of a level."""
        conv = Conv(self.dims, level.channels, self.channels, 3)
        return group_norm(level.channels, self.style.eps), self.style.init_last(conv)

    def _block(
        self, n: int, out: int, *, resample: Literal["up", "down"] | None = None, attention: bool = False
    ) -> UNetBlock:
        return UNetBlock(
            self.dims,
            n,
            out,
            self.emb_channels,
            self.style,
            resample=resample,
            heads=self._num_heads(out) if attention else 0,
            dropout=self.dropout,
        )

    def _num_heads(self, channels: int) -> int:
        return 1

    def _resampler(self, resample: Literal["up", "down"], n: int) -> nn.Module:
        return self._block(n, n, resample=resample)

    def forward(
        self, x: Float[Tensor, "batch channels *sides"], c_noise: Float[Tensor, "batch"], cond: Cond | None = None
    ) -> Float[Tensor, "batch channels *sides"]:
        """F(x; c_noise) for x scaled by c_in."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.channels:
            raise ValueError(f"x: expected shape (B, {self.channels}) and {self.dims} sides, got {tuple(x.shape)}")
        sides, given = x.shape[2:], self.receive(x, cond)
        emb = self.embed(x.shape[0], c_noise, given)
        if self.image_channels:
            x = torch.cat([x, self._image(x, given)], dim=1)
        for values, present in self.images(x, given):
            beside = [values] if present is None else [values, present.expand(-1, 1, *values.shape[2:])]
            x = torch.cat([x, *(F.interpolate(part, size=sides, mode="nearest") for part in beside)], dim=1)
        x = F.pad(x, [n for side in reversed(sides) for n in (0, -side % self.multiple)])
        if self.dims in _CHANNELS_LAST:  # the layout of `torch.channels_last`, by operations that torch.func transforms
            x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        y = self._decode(*self._encode(x, emb), emb)
        for axis, side in enumerate(sides, start=2):
            y = y.narrow(axis, 0, side)
        return y.contiguous()

    def _encode(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The features at the end of the way down, and those on it that the way up uses."""
        aux = x
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            if name.endswith("_aux_down"):
                aux = layer(aux)
            elif name.endswith("_aux_skip"):
                x = skips[-1] = x + layer(aux)
            elif name.endswith("_aux_residual"):
                x = aux = skips[-1] = (x + layer(aux)) * self.style.skip_scale
            else:
                x = self._apply_layer(layer, x, emb)
                skips.append(x)
        return x, skips

    def _decode(self, x: Tensor, skips: list[Tensor], emb: Tensor) -> Tensor:
        """The output from the features at the bottom of the U."""
        h, y = x, None
        for name, layer in self.dec.items():
            if name.endswith("_aux_up"):
                y = layer(y)
            elif name.endswith("_aux_norm"):
                h = F.silu(layer(x))
            elif name.endswith("_aux_conv"):
                y = layer(h) if y is None else y + layer(h)
            else:
                x = self._apply_layer(layer, torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb)
        output: Tensor = self.out_conv(F.silu(self.out_norm(x))) if y is None else y
        return output

    def _apply_layer(self, layer: Callable[..., Tensor], x: Tensor, emb: Tensor) -> Tensor:
        inputs = (x, emb) if isinstance(layer, UNetBlock) else (x,)
        if self.checkpointing and torch.is_grad_enabled() and not is_transformed(x):
            y: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
            return y
        return layer(*inputs)

    def _image(self, x: Tensor, cond: Cond) -> Tensor:
        """The spatial condition in the dtype of x."""
        check_shape("image", cond["image"], (x.shape[0], self.image_channels, *x.shape[2:]))
        return cond["image"].to(x.dtype)


class DDPMpp(UNet):
    """DDPM++ of Song et al. 2021, a `UNet` with the paper's CIFAR-10 settings as defaults.

    On the way up, only the last block of an attended level has attention. There is one head. By default the finest
    level whose longest side is at most 16 is attended.
    """

    style = blocks.DDPMPP


class NCSNpp(UNet):
    """NCSN++ of Song et al. 2021, a `UNet` with the paper's CIFAR-10 settings as defaults.

    It is DDPM++ with random Fourier features of c_noise, the resampling filter [1, 3, 3, 1], and its input, resampled
    by convolutions, added to the features of every level on the way down (`encoder_type` "residual").
    """

    style = blocks.NCSNPP


class ADM(UNet):
    """ADM of Dhariwal and Nichol 2021, a `UNet` with the paper's ImageNet-64 settings as defaults.

    The embedding scales and shifts the features. Every block of an attended level has attention; by default the levels
    whose longest side is at most 32 are attended.

    Args:
        channels_per_head: lower bound of the channels of a head, from which the number of heads follows.
        num_heads: number of heads instead.
        conv_resample: plain convolutions between the levels instead of residual blocks, as in Nichol and Dhariwal 2021.
    """

    style = blocks.ADM

    def __init__(
        self,
        shape: Sequence[int],
        *,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] | None = None,
        channels_per_head: int = 64,
        num_heads: int | None = None,
        dropout: float = 0.1,
        label_dim: int = 0,
        label_dropout: float = 0.0,
        augment_dim: int = 0,
        image_channels: int = 0,
        conditioning: Mapping[str, Any] | None = None,
        conv_resample: bool = False,
        checkpointing: bool = False,
    ) -> None:
        config = config_of(ADM, locals())
        check_integer("channels_per_head", channels_per_head, 1)
        if num_heads is not None:
            check_integer("num_heads", num_heads, 1)
        self.channels_per_head, self.num_heads, self.conv_resample = channels_per_head, num_heads, conv_resample
        own = ("channels_per_head", "num_heads", "conv_resample")
        super().__init__(**{name: value for name, value in config.items() if name not in own})
        self.config = config

    def _num_heads(self, channels: int) -> int:
        if self.num_heads is None:
            return largest_divisor(channels, channels // self.channels_per_head)
        if channels % self.num_heads:
            raise ValueError(f"num_heads: expected a divisor of a level's {channels} channels, got {self.num_heads}")
        return self.num_heads

    def _resampler(self, resample: Literal["up", "down"], n: int) -> nn.Module:
        if not self.conv_resample:
            return super()._resampler(resample, n)
        # with the filter [1], "down" keeps every second element of the convolution
        filter = (1,) if resample == "down" else (1, 1)
        return self.style.init(Conv(self.dims, n, n, 3, resample=resample, filter=filter, fused=resample == "down"))


_CIFAR10: dict[str, Any] = {"shape": (3, 32, 32), "augment_dim": 9, "dropout": 0.13}
_WIDE_64: dict[str, Any] = {"shape": (3, 64, 64), "augment_dim": 9, "channel_mult": (1, 2, 2, 2)}
_FFHQ: dict[str, Any] = {**_WIDE_64, "dropout": 0.05}
_AFHQ: dict[str, Any] = {**_WIDE_64, "dropout": 0.25}

PAPER_NETWORKS: Mapping[str, tuple[type[UNet], Mapping[str, Any]]] = {
    "cifar10-ddpmpp": (DDPMpp, _CIFAR10),
    "cifar10-ddpmpp-cond": (DDPMpp, {**_CIFAR10, "label_dim": 10}),
    "cifar10-ncsnpp": (NCSNpp, _CIFAR10),
    "cifar10-ncsnpp-cond": (NCSNpp, {**_CIFAR10, "label_dim": 10}),
    "ffhq64-ddpmpp": (DDPMpp, _FFHQ),
    "ffhq64-ncsnpp": (NCSNpp, _FFHQ),
    "afhqv2-64-ddpmpp": (DDPMpp, _AFHQ),
    "afhqv2-64-ncsnpp": (NCSNpp, _AFHQ),
    "imagenet64-adm": (ADM, {"shape": (3, 64, 64), "label_dim": 1000, "dropout": 0.1}),
}
"""The class of each network and the options that differ from its defaults."""


def paper_network(name: str, **options: Any) -> UNet:
    """A key of `PAPER_NETWORKS` as a network with new weights; `options` replace those of the paper."""
    check_choice("name", name, PAPER_NETWORKS)
    network, paper_options = PAPER_NETWORKS[name]
    return network(**{**paper_options, **options})
