"""What sets the U-Nets of the paper apart (Appendix F.1, Table 7)."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

from diffspace.networks.layers import Init, uniform, xavier, zeros

__all__ = ["ADM", "DDPMPP", "NCSNPP", "Style"]


@dataclass(frozen=True)
class Style:
    """The choices of one architecture.

    - `init`, `init_attention`, `init_last`: how weights are drawn in most layers, in the projection to queries, keys
      and values, and in the last layer of each branch.
    - `eps`: ε of the group normalisations.
    - `skip_scale`: a sum of two branches is multiplied by it; √½ keeps the variance.
    - `adaptive_scale`: the embedding gives each channel a scale and a shift after a normalisation, rather than a shift
      before it.
    - `project_resampled`: a skip connection that resamples has a 1×1 convolution also where the channels do not change.
    - `filter`: the resampling filter.
    - `fourier`: c_noise is embedded by twice as many random frequencies, rather than by a geometric series of them.
    - `endpoint`: that series includes 1/10000.
    - `late_labels`: labels are added to the embedding after its layers, without a bias.
    - `wide_input`: the first convolution has as many channels as the first level.
    - `residual_input`: the input, resampled by convolutions, is added to the features of every level on the way down.
    - `attended_side`: unless told, levels of at most this longest side have attention.
    - `attend_last`: of them only the finest, and on the way up only its last block.
    - `separate_output`: the last normalisation and convolution stand outside of the decoder.
    """

    init: Init
    init_attention: Init
    init_last: Init
    eps: float
    skip_scale: float
    adaptive_scale: bool = False
    project_resampled: bool = True
    filter: tuple[int, ...] = (1, 1)
    fourier: bool = False
    endpoint: bool = True
    late_labels: bool = False
    wide_input: bool = False
    residual_input: bool = False
    attended_side: int = 16
    attend_last: bool = True
    separate_output: bool = False


DDPMPP = Style(
    init=xavier,
    init_attention=functools.partial(xavier, gain=math.sqrt(0.2)),
    init_last=functools.partial(xavier, gain=1e-5),
    eps=1e-6,
    skip_scale=math.sqrt(0.5),
)
"""Song et al. 2021, for VP."""

NCSNPP = dataclasses.replace(DDPMPP, filter=(1, 3, 3, 1), fourier=True, residual_input=True)
"""Song et al. 2021, for VE."""

ADM = Style(
    init=uniform,
    init_attention=uniform,
    init_last=zeros,
    eps=1e-5,
    skip_scale=1.0,
    adaptive_scale=True,
    project_resampled=False,
    endpoint=False,
    late_labels=True,
    wide_input=True,
    attended_side=32,
    attend_last=False,
    separate_output=True,
)
"""Dhariwal and Nichol 2021."""
