"""Loads models from a folder, the Hugging Face Hub or the checkpoint of another code base."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.checks import first_line
from diffspace.config import build, from_config
from diffspace.files import check_entries, has_format, missing_path, on_hub, read_json, reading
from diffspace.interop import SUFFIXES, convert
from diffspace.interop.conversion import fit_network
from diffspace.model import CONFIG, FORMAT, WEIGHTS, Model, former_range
from diffspace.parts import Part, allow_parts
from diffspace.preconditioning import Preconditioned
from diffspace.tensors import check_device
from diffspace.transform import Transform


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the weights in a model's folder; ValueError names the file that is missing or damaged."""
    from safetensors.torch import load_file

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"source: {folder} is not a model: it has no {name}")
    config = read_json(folder / CONFIG, format=str)
    if not has_format(config["format"], FORMAT):
        raise ValueError(f"source: {folder / CONFIG} is not of the format {FORMAT!r}")
    with reading(folder / CONFIG):
        check_entries(config, transform=dict, class_names=list, notes=dict, network=object, preconditioning=object)
    with reading(folder / WEIGHTS, "weights"):
        return config, load_file(folder / WEIGHTS)


def _locate(source: str | Path) -> Path:
    """The folder of a model: a path, or the snapshot of a Hugging Face Hub repository, which only hf: asks for."""
    name = on_hub(source)
    if name is None:
        path = Path(source)
        if path.is_dir():
            return path
        if path.exists():
            raise ValueError(f"source: {path} is neither a model's folder nor a checkpoint ({', '.join(SUFFIXES)})")
        raise ValueError(f"source: there is no folder {missing_path(source)}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"source: {source} cannot be had from the Hub: {first_line(error)}") from None


def load(source: str | Path, *, device: torch.device | str | None = None, parts: Iterable[Part] = ()) -> Model:
    """A model in evaluation mode, from a folder, a Hugging Face Hub repository or the checkpoint of another code base.

    A .pkl, .pt, .pth or .safetensors file is converted as by `diffspace.interop.convert` without options. ValueError
    if the source is missing or damaged, or if weights and config do not match. Loading imports and executes no code of
    the source: a network of another package must be registered (`diffspace.register`, or an entry point) or in `parts`.

    Args:
        source: a path, or "hf:owner/name" for a repository of the Hub.
        device: the device of the model; by default the CPU.
        parts: classes used by the folder that are not registered, such as `[MyNet]`.
    """
    path = Path(source)
    if on_hub(source) is None and path.suffix in SUFFIXES and not path.is_dir():
        model, _ = convert(path)
    else:
        with allow_parts(parts):
            model = _load_folder(_locate(source))
    return model.to(check_device(device)).eval() if device is not None else model.eval()


def _load_folder(folder: Path) -> Model:
    config, state = _read(folder)
    try:
        network = fit_network(config["network"], state)
        preconditioning = from_config("preconditioning", config["preconditioning"])
        former = former_range(getattr(preconditioning, "sigma_data", None))
        stated = config.get("sampling_range", former)
        denoiser = Preconditioned(network, preconditioning, None if stated is None else tuple(stated))
        counts = tuple(config.get("class_counts", ()))  # which version 0.1 did not write
        transform: Transform = build(Transform, config["transform"], "transform")
        names = tuple(config["class_names"])
        if not all(isinstance(name, str) for name in names) or not all(type(count) is int for count in counts):
            raise ValueError("class_names, class_counts: expected texts and integers")
        return Model(denoiser, transform, names, config["notes"], counts, config.get("shape"))
    except Exception as error:  # the constructors of networks, also those of other packages, take what the file says
        raise ValueError(f"source: {folder / CONFIG} and {WEIGHTS} make no model: {first_line(error)}") from None
