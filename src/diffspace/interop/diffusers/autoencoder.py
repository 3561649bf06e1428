"""Autoencoders of diffusers as encoders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import require_package
from diffspace.files import missing_path, on_hub
from diffspace.transform import Transform, channel_moments, standardising


class Autoencoder(torch.nn.Module):
    """`AutoencoderKL` of diffusers as an `Encoder`: z = (raw latent − shift)/scale for each channel.

    `statistics` holds shift and scale. None takes those of the config with which the models on these latents were
    trained: z = (raw − shift_factor)·scaling_factor, or (raw − latents_mean)·scaling_factor/latents_std. The
    autoencoder computes in the dtype of its parameters, latents are float32.
    """

    def __init__(self, vae: torch.nn.Module, statistics: Transform | None = None) -> None:
        super().__init__()
        config: Mapping[str, Any] | None = getattr(vae, "config", None)
        if config is None or "latent_channels" not in config or not hasattr(vae, "encode"):
            raise ValueError(f"vae: expected an AutoencoderKL of diffusers, got {type(vae).__name__}")
        self.vae = vae
        self.statistics = _trained_statistics(config) if statistics is None else statistics

    @classmethod
    def load(cls, source: str | Path) -> Autoencoder:
        """The autoencoder of diffusers in a folder or in a repository of the Hub, with the statistics of its config.

        "hf:owner/name:vae" and "folder:vae" are the sub-folder vae, where a pipeline keeps it. Only safetensors are
        read. ValueError for what cannot be read.
        """
        diffusers = require_package("diffusers", "encoder:")
        name = on_hub(source)
        place, _, folder = (str(source) if name is None else name).partition(":")
        if name is None:
            if not Path(place).expanduser().is_dir():
                raise ValueError(f"encoder: there is no folder {missing_path(place)}")
            place = str(Path(place).expanduser())
        try:
            vae = diffusers.AutoencoderKL.from_pretrained(place, subfolder=folder or None, use_safetensors=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"encoder: {source} cannot be read: {' '.join(str(error).split())}") from None
        return cls(vae.eval())

    def encode(
        self, x: Float[Tensor, "batch *dims"], noise: Float[Tensor, "batch *latent"] | None = None
    ) -> Float[Tensor, "batch *latent"]:
        """Latents of x: the mean of the posterior, or with unit `noise` the draw mean + std·noise."""
        posterior = self.vae.encode(self._inner(x)).latent_dist  # type: ignore[operator]
        raw = posterior.mean
        if noise is not None:
            if noise.shape != raw.shape:
                raise ValueError(
                    f"noise: expected the shape of the latents, {tuple(raw.shape)}, got {tuple(noise.shape)}"
                )
            raw = raw + posterior.std * noise.to(raw)
        return self.statistics.forward(raw)

    def decode(self, z: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch *dims"]:
        """The data of latents z."""
        x: Tensor = self.vae.decode(self._inner(self.statistics.inverse(z))).sample  # type: ignore[operator]
        return x

    def _inner(self, x: Tensor) -> Tensor:
        parameter = next(self.vae.parameters())
        return x.to(parameter.device, parameter.dtype)

    @torch.no_grad()
    def standardised(self, batches: Iterable[Float[Tensor, "batch *dims"]], std: float = 0.5) -> Autoencoder:
        """The same autoencoder with statistics measured on batches of data, in one pass.

        Each channel of the latents, of which the mean of the posterior is taken, gets mean 0 and this standard
        deviation: the σ_data of a model that is trained on them.
        """
        raw = Autoencoder(self.vae, Transform())
        shift, scale = standardising(channel_moments(raw.encode(x) for x in batches), std)
        return Autoencoder(self.vae, Transform(shift, scale))


def _trained_statistics(config: Mapping[str, Any]) -> Transform:
    scale = 1 / (config.get("scaling_factor") or 1.0)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return Transform((float(config.get("shift_factor") or 0.0),), (scale,))
    return Transform(tuple(float(m) for m in mean), tuple(float(s) * scale for s in std))
