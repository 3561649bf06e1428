"""The differences between the U-Nets of the paper (Appendix F.1, Table 7)."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

from diffspace.networks.layers import Init, uniform, xavier, zeros


@dataclass(frozen=True)
class Style:
    """The choices of one architecture."""

    # how weights are initialised: in most layers, in the projection to q, k and v, in the last layer of each branch
    init: Init
    init_attention: Init
    init_last: Init
    eps: float  # of the group normalisations
    skip_scale: float  # the factor of a sum of two branches; √½ keeps the variance
    adaptive_scale: bool = False  # the embedding scales and shifts after a normalisation, not only shifts before it
    project_resampled: bool = True  # a skip connection that resamples always has a 1×1 convolution
    filter: tuple[int, ...] = (1, 1)  # of the resampling
    fourier: bool = False  # c_noise is embedded by twice the number of random frequencies, not by a geometric series
    endpoint: bool = True  # the geometric series includes 1/10000
    late_labels: bool = False  # labels are added after the layers of the embedding, without a bias
    wide_input: bool = False  # the first convolution has as many channels as the first level
    residual_input: bool = False  # the input, resampled by convolutions, is added to every level on the way down
    attended_side: int = 16  # by default levels whose longest side is at most this have attention
    attend_last: bool = True  # of these levels only the finest, and on the way up only its last block
    separate_output: bool = False  # the last normalisation and convolution are not part of `dec`


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
