"""DINOv2 ViT-L/14 (Oquab et al. 2023) as dgm-eval uses it (Stein et al. 2023), through `transformers`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from diffspace._shapes import Shaped, Tensor
from diffspace.checks import first_line, require_package
from diffspace.files import missing_path
from diffspace.metrics.extractors.images import resize_like_pillow
from diffspace.metrics.extractors.weights import DOWNLOAD

REPOSITORY = "facebook/dinov2-large"
NAME = "dinov2-vit-l-14 pillow-bicubic-224"
_SIZE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DINOv2(nn.Module):
    """uint8 RGB of any size -> the class token after the last layer norm, of a `transformers.Dinov2Model`.

    Pictures are resized to 224×224 by Pillow's bicubic interpolation and standardised by ImageNet's mean and deviation.
    Position embeddings come to this size as in the original code, by a scale with 0.1 of a patch added, which gives
    other values than `transformers` does.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        for name, values in (("mean", _MEAN), ("std", _STD)):
            constant = torch.tensor(values, dtype=torch.float32, device="cpu").reshape(3, 1, 1)
            self.register_buffer(name, constant, persistent=False)
        embeddings = model.embeddings
        embeddings.position_embeddings = nn.Parameter(
            _resampled(embeddings.position_embeddings, _SIZE // model.config.patch_size), requires_grad=False
        )

    @property
    def dim(self) -> int:
        """1024 in the large model."""
        return int(self.model.config.hidden_size)

    def forward(self, pixels: Shaped[Tensor, "n 3 height width"]) -> Shaped[Tensor, "n dim"]:
        x = resize_like_pillow(pixels, _SIZE).to(torch.float32) / 255
        token: Tensor = self.model((x - self.mean) / self.std).last_hidden_state[:, 0]
        return token


def _resampled(embeddings: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + m·m, dim), of which the first is the class token's, for side·side patches."""
    own, patches = embeddings[:, :1], embeddings[:, 1:]
    stored = math.isqrt(patches.shape[1])
    if stored == side:
        return embeddings.detach()
    grid = patches.detach().reshape(1, stored, stored, -1).movedim(3, 1).to(torch.float32)
    scale = (side + 0.1) / stored
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([own.detach(), grid.flatten(2).mT.to(embeddings.dtype)], 1)


def load_dinov2(weights: str | Path | None = None) -> DINOv2:
    """From the folder `weights` of `transformers`' model, with safetensors; None: from the cache of the Hub.

    "download" gets it from the Hub if it is not there (1.2 GB). ValueError where it is missing.
    """
    transformers = require_package("transformers", 'features "dinov2"')
    local = weights not in (None, DOWNLOAD)
    if local and not Path(str(weights)).expanduser().is_dir():
        raise ValueError(f"weights: there is no folder {missing_path(str(weights))}")
    source = str(Path(str(weights)).expanduser()) if local else REPOSITORY
    try:
        model = transformers.Dinov2Model.from_pretrained(
            source, local_files_only=weights != DOWNLOAD, use_safetensors=True, attn_implementation="sdpa"
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if local:
            raise ValueError(f"weights: {source} has no Dinov2Model in safetensors: {first_line(error)}") from None
        raise ValueError(
            f'weights: {REPOSITORY} is not in the cache of the Hub; pass weights="download" (--weights download; '
            "1200 MB) or, without network, the path of a folder with its config.json and model.safetensors"
        ) from None
    return DINOv2(model)
