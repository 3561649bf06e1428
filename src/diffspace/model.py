"""A trained model: a denoiser with everything needed to use it, saved as a folder.

The folder holds `config.json` (network, preconditioning, transform, classes, σ range of sampling) and
`model.safetensors`. Loading executes nothing in it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Batch, Float, Int, Shaped, Sigma, Tensor
from diffspace.checks import check_integer, check_type, first_line, nearest
from diffspace.conditions import Condition, as_conditions
from diffspace.config import build, to_config
from diffspace.files import atomic_paths, save_tensors, write_text, writing
from diffspace.networks import skeleton
from diffspace.notebook import Shown
from diffspace.parts import allow_parts
from diffspace.preconditioning import Preconditioned
from diffspace.process import NoiseLevels
from diffspace.protocols import PAPER_RANGE, PAPER_SIGMA_DATA, Cond
from diffspace.sampling.streams import random_labels
from diffspace.tensors import are_values_hidden
from diffspace.transform import Transform

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = "diffspace model 1"


class Model(Shown, torch.nn.Module):
    """A denoiser with the transform of its data, the names of its classes and notes.

    It is a `Denoiser` in the model's space; `decode` converts samples to raw values.

    Args:
        denoiser: with any network; to save it, its `config` holds the arguments of its constructor.
        transform: from raw values to the model's space. Default: they are the same.
        class_names: a name for each class of the network.
        notes: any JSON-able mapping to save with the model, such as its data set and the length of training.
        class_counts: the training samples of each class; () if they are not known. A class without any is not sampled.
        shape: of one sample, where the config of the network does not state it.
    """

    def __init__(
        self,
        denoiser: Preconditioned,
        transform: Transform | None = None,
        class_names: tuple[str, ...] = (),
        notes: Mapping[str, Any] | None = None,
        class_counts: tuple[int, ...] = (),
        shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_type("denoiser", denoiser, Preconditioned)
        self.denoiser = denoiser
        self.transform = Transform() if transform is None else transform
        check_type("transform", self.transform, Transform)
        self.class_names, self.class_counts = tuple(class_names), tuple(class_counts)
        given: object = class_names
        if isinstance(given, str) or not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(f"class_names: expected texts such as ('cat', 'dog'), got {class_names!r}")
        known = getattr(getattr(denoiser.network, "_orig_mod", denoiser.network), "label_dim", None)
        if self.class_names and known is not None and known != len(self.class_names):
            raise ValueError(f"class_names: expected {known}, one for each class of the network, got {class_names!r}")
        for count in self.class_counts:
            check_integer("class_counts", count, 0)
        if self.class_counts and (len(self.class_counts) != len(self.class_names) or not any(self.class_counts)):
            expected = f"{len(self.class_names)}, one for each class, not all 0"
            raise ValueError(f"class_counts: expected {expected}, got {self.class_counts}")
        self.notes: dict[str, Any] = dict(notes or {})
        self.sample_shape: tuple[int, ...] = _sample_shape(denoiser, shape)
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max
        self.sigma_data, self.sampling_range = denoiser.sigma_data, denoiser.sampling_range

    def forward(self, x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        """D(x; σ) in the model's space; ValueError for the label of a class of which there were no data."""
        if cond is not None and "labels" in cond and 0 in self.class_counts and not are_values_hidden():
            self.check_labels(cond["labels"])
        denoised: Tensor = self.denoiser(x, sigma, cond)
        return denoised

    @property
    def levels(self) -> NoiseLevels | None:
        """The table of the noise levels that the network knows, where it knows one."""
        return self.denoiser.levels

    def round_sigma(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The nearest σ that the network knows."""
        return self.denoiser.round_sigma(sigma)

    def weight(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The training weight λ(σ)."""
        return self.denoiser.weight(sigma)

    @property
    def conditioning(self) -> dict[str, Condition]:
        """The conditions of the network other than the class, by name, with their shapes and statistics."""
        stated = getattr(self.denoiser.network, "conditioning", None)
        return as_conditions(stated) if isinstance(stated, Mapping) else {}

    @property
    def condition_names(self) -> tuple[str, ...]:
        """The names of all conditions; "labels" is the class."""
        return (*(("labels",) if self.class_names else ()), *self.conditioning)

    @property
    def sampled_classes(self) -> tuple[int, ...]:
        """The numbers of the classes that can be sampled: of all, or of those that had data where that is known."""
        return tuple(k for k in range(len(self.class_names)) if not self.class_counts or self.class_counts[k])

    def random_labels(self, seeds: Sequence[int], proportional: bool = False) -> Int[Tensor, "batch"]:
        """A class for each seed (`diffspace.random_labels`), each of those that can be sampled equally likely.

        `proportional`: in the proportions of the training data instead.
        """
        if not self.class_names:
            raise ValueError("labels: the model has no class_names")
        if proportional:
            if not self.class_counts:
                raise ValueError("proportional: how many samples of each class there were is not known")
            return random_labels(seeds, self.sample_shape, len(self.class_names), self.class_counts)
        chosen = torch.tensor(self.sampled_classes, dtype=torch.int64, device="cpu")
        return chosen[random_labels(seeds, self.sample_shape, len(chosen))]

    def check_labels(self, labels: Shaped[Tensor, "batch *classes"]) -> None:
        """ValueError for labels, class numbers (B,) or vectors (B, classes), of a class of which there were no data."""
        used = labels if labels.ndim == 1 else labels.nonzero()[:, 1]
        empty = [k for k, count in enumerate(self.class_counts) if not count]
        if len(wrong := used[torch.isin(used, torch.tensor(empty, dtype=torch.int64, device=used.device))]):
            name, known = self.class_names[int(wrong[0])], [self.class_names[k] for k in self.sampled_classes]
            raise ValueError(f"labels: the training had no data of the class {name!r}; {nearest(name, known)}")

    def decode(self, x: Batch) -> Shaped[Tensor, "batch *dims"]:
        """Samples as raw values, clipped and rounded as the data require."""
        return self.transform.inverse(x)

    def push(self, repo_id: str, *, private: bool | None = None) -> str:
        """Upload the model to the Hugging Face Hub as "owner/name", with a card; returns the address.

        The repository is created if it does not exist. ValueError if the upload fails.
        """
        import tempfile

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            write_text(Path(folder) / "README.md", _card(self, repo_id))
            try:
                HfApi().create_repo(repo_id, private=private, exist_ok=True)
                address = HfApi().upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload model")
            except (HfHubHTTPError, HFValidationError, OSError) as error:
                raise ValueError(f"repo_id: the upload to {repo_id} failed: {first_line(error)}") from None
        return str(address)

    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, both or neither, to a folder that is created if missing.

        ValueError, before anything is written, where the folder would not load: where the config of the network does
        not make it again, or where a value has no place in JSON.
        """
        folder = Path(folder)
        network = getattr(self.denoiser.network, "_orig_mod", self.denoiser.network)  # which torch.compile wraps
        state = _state(network)
        config: dict[str, Any] = {
            "format": FORMAT,
            "network": to_config("network", network),
            "preconditioning": to_config("preconditioning", self.denoiser.preconditioning),
            "transform": dataclasses.asdict(self.transform),
            "class_names": list(self.class_names),
            "class_counts": list(self.class_counts),
            "sampling_range": self.sampling_range,
            "notes": self.notes,
        }
        if self.denoiser.sample_shape is None:
            config["shape"] = self.sample_shape
        _check_config(network, config["network"], state)
        try:
            text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:  # all but the notes was made above
            raise ValueError(f"notes: cannot be saved: {first_line(error)}") from None
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with atomic_paths(folder / CONFIG, folder / WEIGHTS) as (config_file, weights):
            config_file.write_text(text, encoding="utf-8")
            save_tensors(weights, state)


def _sample_shape(denoiser: Preconditioned, shape: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of a sample, as the config of the network or else `shape` states it."""
    stated = denoiser.sample_shape
    if shape is None and stated is None:
        example = "ds.Model(denoiser, shape=(3, 32, 32))"
        raise ValueError(f"shape: the config of the network states no shape of a sample; pass it, such as {example}")
    if not isinstance(shape, Sequence | None):
        raise ValueError(f"shape: expected integers such as (3, 32, 32), got {shape!r}")
    for side in shape or ():
        check_integer("shape", side, 1)
    if shape is not None and stated is not None and tuple(shape) != stated:
        raise ValueError(f"shape: the config of the network states {stated}, got {tuple(shape)}")
    return tuple(shape) if stated is None and shape is not None else stated or ()


def _state(network: torch.nn.Module) -> dict[str, Tensor]:
    """The tensors of a network, on the CPU."""
    state = {}
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(f"network: its state has a {type(value).__name__}, {name!r}; only tensors can be saved")
        state[name] = value.detach().cpu().contiguous()
    return state


def _check_config(network: torch.nn.Module, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """ValueError unless the constructor makes a network with tensors of these names and shapes from the config."""
    options = {name: value for name, value in config.items() if name not in ("kind", "class")}
    name = type(network).__name__
    try:
        with allow_parts({type(module) for module in network.modules()}):
            again = skeleton(lambda: build(type(network), options, "network"), len(state)).state_dict()
    except Exception as error:  # whatever a constructor raises
        raise ValueError(
            f"network: {name} could not be loaded, because its config does not make it: {first_line(error)}; "
            "config is the mapping of the arguments of the constructor"
        ) from None
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    others = {key: tuple(value.shape) for key, value in again.items()}
    if wrong := next((key for key in (*shapes, *others) if shapes.get(key) != others.get(key)), None):
        raise ValueError(
            f"network: {name} could not be loaded, because with the arguments in its config {wrong!r} has shape "
            f"{others.get(wrong)}, but shape {shapes.get(wrong)} in the network"
        )


def former_range(sigma_data: object) -> tuple[float, float] | None:
    """The range over which version 0.1 sampled, for files of it; None where that is more than twice off its σ_data."""
    near = isinstance(sigma_data, int | float) and 0.5 <= sigma_data / PAPER_SIGMA_DATA <= 2
    return PAPER_RANGE if near else None


def _card(model: Model, repo_id: str) -> str:
    """The model card for the Hub."""
    network, choice = (type(part).__name__ for part in (model.denoiser.network, model.denoiser.preconditioning))
    facts = [f"network: {network}", f"preconditioning: {choice}", f"shape of a sample: {model.sample_shape}"]
    low, high = model.sampling_range or (model.sigma_min, model.sigma_max)
    facts += [f"σ range: {low:g} to {high:g}", f"classes: {len(model.class_names) or 'none'}"]
    facts += [f"condition {name!r}: {condition}" for name, condition in model.conditioning.items()]
    listed = "\n".join(f"- {fact}" for fact in facts)
    return f"""---
library_name: diffspace
tags: [diffusion, edm]
---
# {repo_id.split("/")[-1]}

{listed}

```bash
diffspace sample hf:{repo_id}
```
"""
