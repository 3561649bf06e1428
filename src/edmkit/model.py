"""A trained model: a denoiser with all that is needed to use it, as one folder.

The folder holds `config.json` (network, preconditioning, transform, class names) and `model.safetensors`. Nothing of it
is executed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edmkit._shapes import Float, Shaped, Tensor
from edmkit.files import atomic_path, write_text
from edmkit.preconditioning import Preconditioned
from edmkit.protocols import Cond
from edmkit.registry import from_config, to_config
from edmkit.transform import Transform

__all__ = ["Model", "load"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_FORMAT = "edmkit model 1"


class Model(torch.nn.Module):
    """A denoiser with the transform of its data, the names of its classes and notes on where it comes from.

    It is a `Denoiser` in the model's space; `decode` leads back to raw values. `notes` is any JSON-able mapping that is
    kept with the model (data set, training length, …) and changes nothing.
    """

    def __init__(
        self,
        denoiser: Preconditioned,
        transform: Transform,
        class_names: tuple[str, ...] = (),
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.transform = transform
        self.class_names = tuple(class_names)
        self.notes: dict[str, Any] = dict(notes or {})
        if denoiser.sample_shape is None:
            raise ValueError("denoiser: its network has no config that states the shape of a sample")
        self.sample_shape: tuple[int, ...] = denoiser.sample_shape
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max

    def forward(
        self,
        x: Float[Tensor, "batch *dims"],
        sigma: Float[Tensor, ""] | Float[Tensor, "batch"],
        cond: Cond | None = None,
    ) -> Float[Tensor, "batch *dims"]:
        """D(x; σ) in the model's space."""
        denoised: Tensor = self.denoiser(x, sigma, cond)
        return denoised

    def round_sigma(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The nearest σ that the network knows."""
        return self.denoiser.round_sigma(sigma)

    def weight(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The training weight λ(σ)."""
        return self.denoiser.weight(sigma)

    def decode(self, x: Float[Tensor, "batch *dims"]) -> Shaped[Tensor, "batch *dims"]:
        """Samples as raw values: clipped and rounded where the data are."""
        return self.transform.inverse(x)

    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, each atomically; the folder is made if it is missing."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "format": _FORMAT,
            "network": to_config("network", self.denoiser.network),
            "preconditioning": to_config("preconditioning", self.denoiser.preconditioning),
            "transform": dataclasses.asdict(self.transform),
            "class_names": list(self.class_names),
            "notes": self.notes,
        }
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        state = {name: value.detach().cpu().contiguous() for name, value in self.denoiser.network.state_dict().items()}
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(state, temporary)
        write_text(folder / CONFIG, text)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"source: {folder} is not a model: it has no {CONFIG}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"source: {path} is not valid JSON: {error}") from None
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        raise ValueError(f"source: {path} is not of the format {_FORMAT!r}")
    missing = {"network", "preconditioning", "transform", "class_names", "notes"} - set(config)
    if missing:
        raise ValueError(f"source: {path} lacks {', '.join(sorted(missing))}")
    return config


def _read_weights(path: Path, network: torch.nn.Module) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except FileNotFoundError:
        raise ValueError(f"source: {path.parent} is not a model: it has no {WEIGHTS}") from None
    except SafetensorError as error:
        raise ValueError(f"source: {path} is damaged: {error}") from None
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"source: {path} does not fit the network of {CONFIG}: {error}") from None


def _locate(source: str | Path) -> Path:
    """The folder of a model: a path as it is, or the snapshot of a Hugging Face Hub repository."""
    path = Path(source)
    if path.exists():
        return path
    if isinstance(source, Path) or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise ValueError(f"source: there is no folder {source}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"source: {source} is neither a folder nor a repository that the Hub gives: {reason}"
        ) from None


def load(source: str | Path, *, device: torch.device | str | None = None) -> Model:
    """The model in a folder, or in a Hugging Face Hub repository "owner/name", in evaluation mode.

    ValueError where there is none, where a file is damaged, or where weights and config do not fit.
    """
    folder = _locate(source)
    config = _read_config(folder)
    network = from_config("network", config["network"])
    _read_weights(folder / WEIGHTS, network)
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["transform"].items()}
    try:
        transform = Transform(**settings)
    except TypeError as error:
        raise ValueError(f"source: the transform of {folder / CONFIG} is not understood: {error}") from None
    denoiser = Preconditioned(network, from_config("preconditioning", config["preconditioning"]))
    model = Model(denoiser, transform, tuple(config["class_names"]), config["notes"])
    return model.to(device).eval() if device is not None else model.eval()
