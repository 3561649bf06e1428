"""The recipe of a training run: all options and their values, checked before any data are read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import yaml

from diffspace.averages.ema import PowerFunction
from diffspace.checks import check_choice, check_integer, check_number, check_range, check_seed
from diffspace.config import (
    build,
    complete,
    explanations,
    flatten,
    from_config,
    is_none,
    option_names,
    to_config,
    to_options,
)
from diffspace.data import DataSet, make_source
from diffspace.data.augmentation import Augmentation
from diffspace.model import former_range
from diffspace.networks import without_weights
from diffspace.objective import NoiseDistribution
from diffspace.parts import find
from diffspace.preconditioning import Preconditioning
from diffspace.train.accumulate import Precision
from diffspace.train.overrides import read_yaml
from diffspace.train.parallel import Strategy

# options that follow from the data, with example values with which the other options of a network are checked
FROM_DATA: Mapping[str, Any] = {
    "shape": (3, 64, 64),
    "label_dim": 10,
    "augment_dim": 9,
    "image_channels": 0,
    "conditioning": None,
}
# keys that determine the weights, the order of the data, and the random numbers
_FIXED = {"data", "network", "preconditioning", "conditional", "augment", "seed", "batch_size"}
_FIXED |= {"ema_widths", "uncertainty", "adaptive_noise"}
_OWN = ("source", "holdout", "split", "mirror")  # keys of the data that are not options of their source
# options that have an effect only with another one
_NEEDS = {"sigma_min": "sigma_max", "sigma_max": "sigma_min"}
_NEEDS |= {"score_samples": "score_images", "score_features": "score_images", "score": "score_images"}
_NEEDS |= {"ema_widths": "snapshot_images", "snapshot_images": "ema_widths", "patience_images": "held_out_images"}
_LEAST = {"images": 1, "micro_batch": 1, "max_skipped": 1, "keep_last": 1, "score_samples": 4}
_LEAST |= {f"{name}_images": 0 for name in ("ramp", "decay", "snapshot", "preview", "held_out", "score", "patience")}
_LEAST |= {"checkpoint_images": 0, "keep_every_images": 0}
_MOST_SAMPLES, _MOST_WIDTHS = 2**20, 64  # a batch is a list of places, and each width a copy of the weights
_WITHIN = {"learning_rate": "(0, inf)", "eps": "(0, inf)", "max_grad_norm": "(0, inf)"}
_WITHIN |= {"sigma_min": "(0, inf)", "sigma_max": "(0, inf)"}
_MAY_LACK = ("max_grad_norm", "ema_ramp_ratio", "sigma_min", "sigma_max")
_WITHIN |= {"ema_halflife_images": "[0, inf)", "ema_ramp_ratio": "[0, inf)"}
_WITHIN |= {"checkpoint_minutes": "[0, inf)", "preview_minutes": "[0, inf)"}


@dataclass(frozen=True)
class DataRecipe:
    """The data: a source with its options (`diffspace.data.make_source`), and the share or number to hold out.

    Args:
        source: a name, a folder, a file or an address.
        holdout: share or number of samples that are held out; null: a fifth, at most 10,000.
        split: how they are chosen: by hashes of names or content, or by position, as version 0.1 did.
        mirror: whether the mirror image of every image is added to the training part.
        options: of the source.
    """

    source: str
    holdout: float | int | None = None
    split: Literal["hash", "position"] = "hash"
    mirror: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("split", self.split, ("hash", "position"))
        make_source(self.source, **self.options)

    @property
    def config(self) -> dict[str, Any]:
        """The mapping in a recipe, with the options of the source at its top level."""
        own = {name: getattr(self, name) for name in _OWN}
        return own | dict(self.options)

    def load(self) -> tuple[DataSet, DataSet]:
        """(training part, held-out part)."""
        training, held_out = make_source(self.source, **self.options).load().split(self.holdout, by=self.split)
        return training.mirrored() if self.mirror else training, held_out


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run in full. Lengths are in images seen, as in the paper (Appendix F.2).

    `network` is a config without what follows from the data (`FROM_DATA`), with every default filled in. `sigma_min`
    and `sigma_max` are the noise levels between which the model will be sampled; None: the paper's, moved to σ_data.
    `measure` has the user's measurements as words, which are looked up when a `Run` is made.

    Args:
        data: the source, and what to hold out.
        network: the raw network F.
        preconditioning: the coefficients c of D = c_skip·x + c_out·F(c_in·x; c_noise).
        noise: the distribution of σ in training.
        sigma_min, sigma_max: noise levels between which the model is sampled; null: the paper's, moved to σ_data.
        reduction: of the squared error of a sample: its sum, as in the paper, or its mean.
        conditional: whether what the data say of each sample, such as its class, is a condition of the network.
        augment: transforms of the training samples, whose parameters are a condition of the network.
        precision: float32, tf32, bfloat16 or float16 for the network; weights, averages and loss are float32.
        compile: compile the network; the first steps take minutes.
        strategy: of several processes: ddp, or fsdp, which divides the weights among them.
        images: length of training, in samples seen.
        batch_size: samples of a step, on all processes together.
        micro_batch: samples of a pass; null: all, halved until a pass fits the memory.
        learning_rate: of Adam, after the rise and before the fall.
        betas: of Adam.
        eps: of Adam.
        ramp_images: the learning rate rises linearly over these samples.
        decay_images: it falls to 0 over the last of these samples.
        max_grad_norm: gradients are scaled down to this norm; null: they are not.
        max_skipped: the run ends after this number of consecutive steps whose gradient is not finite.
        uncertainty: learn the uncertainty of each noise level, and weight by it.
        adaptive_noise: draw the noise levels where the gradients are large.
        ema_halflife_images: half-life of the average of the weights, which is the model.
        ema_ramp_ratio: the half-life is at most this share of the samples seen; null: no bound.
        ema_widths: widths of power-function averages of which snapshots are kept, for `diffspace ema`.
        snapshot_images: samples between two snapshots of them; 0: none.
        seed: of everything that is random.
        preview_images: samples between two pictures of samples; 0: none.
        preview_minutes: minutes until the first picture of samples; the next ones after twice as many each; 0: none.
        held_out_images: samples between two measurements of the held-out loss; 0: none.
        score_images: samples between two scores, the best model by which is kept; 0: none.
        score: frechet or kid, against held-out data.
        score_features: inception, efficientnet, classifier, pca, …; null: what suits the data.
        score_samples: samples of a score; null: as many as held out, up to 1000.
        patience_images: training ends when the held-out loss has not fallen over this number of samples; 0: never.
        checkpoint_images: samples between two checkpoints; 0: by time alone.
        checkpoint_minutes: minutes between two checkpoints; 0: by samples alone.
        keep_last: the newest checkpoints that are kept.
        keep_every_images: checkpoints at multiples of this are kept too; 0: none.
        measure: measurements of your own, module:Class:every=N.
        tensorboard: log for TensorBoard too.
        wandb: a project of Weights & Biases to log to; null: it does not.
    """

    data: DataRecipe
    network: Mapping[str, Any]
    preconditioning: Preconditioning
    noise: NoiseDistribution
    sigma_min: float | None = None
    sigma_max: float | None = None
    reduction: Literal["sum", "mean"] = "sum"
    conditional: bool = True
    augment: Augmentation | None = None
    precision: Precision = "float32"
    compile: bool = False
    strategy: Strategy = "ddp"
    images: int
    batch_size: int = 256
    micro_batch: int | None = None
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    ramp_images: int = 10_000_000
    decay_images: int = 0
    max_grad_norm: float | None = None
    max_skipped: int = 20
    uncertainty: bool = False
    adaptive_noise: bool = False
    ema_halflife_images: float = 500_000
    ema_ramp_ratio: float | None = 0.05
    ema_widths: tuple[float, ...] = ()
    snapshot_images: int = 0
    seed: int = 0
    preview_images: int = 0
    preview_minutes: float = 0.0
    held_out_images: int = 0
    score_images: int = 0
    score: Literal["frechet", "kid"] = "frechet"
    score_features: str | None = None
    score_samples: int | None = None
    patience_images: int = 0
    checkpoint_images: int = 0
    checkpoint_minutes: float = 5.0
    keep_last: int = 2
    keep_every_images: int = 0
    measure: tuple[str, ...] = ()
    tensorboard: bool = False
    wandb: str | None = None

    def __post_init__(self) -> None:
        check_choice("score", self.score, ("frechet", "kid"))
        for name, minimum in _LEAST.items():
            if name not in ("micro_batch", "score_samples") or getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum)
        check_seed("seed", self.seed)
        check_integer("batch_size", self.batch_size, 1, _MOST_SAMPLES)
        if len(self.ema_widths) > _MOST_WIDTHS:
            raise ValueError(f"ema_widths: expected at most {_MOST_WIDTHS}, got {len(self.ema_widths)}")
        for name, interval in _WITHIN.items():
            if getattr(self, name) is not None or name not in _MAY_LACK:
                check_number(name, getattr(self, name), interval)
        if self.sampling_range is not None:
            span = self.preconditioning.sigma_range
            if not max(self.sampling_range[0], span[0]) < min(self.sampling_range[1], span[1]):
                got = f"{self.sigma_min:g}, {self.sigma_max:g}"
                raise ValueError(f"sigma_min, sigma_max: expected levels in the network's range {span}, got {got}")
        for beta in self.betas:
            check_number("betas", beta, "[0, 1)")
        for width in self.ema_widths:
            PowerFunction(width)
        if self.decay_images > self.images:
            raise ValueError(f"decay_images: expected at most images = {self.images}, got {self.decay_images}")
        for name, needs in _NEEDS.items():
            if (value := getattr(self, name)) != getattr(Recipe, name) and not getattr(self, needs):
                raise ValueError(f"{name}: {value!r} has no effect without {needs}")
        _check_network(self.network)

    @property
    def sampling_range(self) -> tuple[float, float] | None:
        """(σ_min, σ_max) of sampling, if the recipe says."""
        given = None if self.sigma_min is None or self.sigma_max is None else (self.sigma_min, self.sigma_max)
        return check_range("sigma_min, sigma_max", given)

    def as_dict(self) -> dict[str, Any]:
        """The mapping that `make_recipe` reads, in JSON types."""
        augment = None if self.augment is None else to_config("augmentation", self.augment)
        return to_options(self) | {"augment": augment}

    def to_yaml(self, *, comments: bool = False) -> str:
        """The recipe with every value, as YAML for `read_recipe`; with `comments`, what each key is."""
        config = self.as_dict()
        text: str = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        return _commented(text, config) if comments else text


def _commented(text: str, config: Mapping[str, Any]) -> str:
    """YAML of a recipe with a comment at each key that its part explains: the first sentence."""
    parts: dict[str, Any] = {"": Recipe, "data": DataRecipe}
    for key, family in (("network", "network"), ("preconditioning", "preconditioning"), ("noise", "noise")):
        parts[key] = find(family, config[key]["kind"], config[key].get("class", ""))
    if config["augment"]:
        parts["augment"] = Augmentation
    known = {key: explanations(part) for key, part in parts.items()}
    lines, section = [], ""
    for line in text.splitlines():
        said = None
        if found := re.match(r"( *)(\w+):", line):
            section = section if found[1] else found[2]
            said = known.get(section if found[1] else "", {}).get(found[2])
        lines.append(f"{line:<30} # {said.partition('. ')[0].rstrip('.')}" if said else line)
    return "\n".join(lines) + "\n"


def make_network(config: Mapping[str, Any], **from_data: Any) -> torch.nn.Module:
    """The network of a recipe for data with this `shape`, `label_dim`, `augment_dim` and `conditioning`.

    The network may lack an option whose value here is 0 or empty.
    """
    taken = option_names("network", config)
    for name, value in from_data.items():
        if value and name not in taken:
            remedies = dict.fromkeys(("label_dim", "conditioning"), "set conditional=false")
            remedy = (remedies | {"augment_dim": "set augment=none"}).get(name, "add it")
            raise ValueError(f"network: {config['kind']} has no option {name}; {remedy}")
    known = {name: value for name, value in from_data.items() if name in taken}
    network: torch.nn.Module = from_config("network", {**config, **known})
    return network


def _check_network(config: Mapping[str, Any]) -> None:
    """Make the network on the meta device for an example shape; ValueError for an option that is wrong for any data.

    Options whose default is None depend on the shape and are checked when it is known.
    """
    defaults = option_names("network", config)
    trial = {name: value for name, value in config.items() if defaults.get(name, 0) is not None}
    examples = {name: value for name, value in FROM_DATA.items() if name in defaults}
    try:
        with without_weights(), torch.random.fork_rng(devices=[]):
            from_config("network", {**trial, **examples})
    except ValueError as error:
        if re.split(r"[,:]", str(error).removeprefix("network."), maxsplit=1)[0] in trial:
            raise
    except Exception:
        pass  # of a network that does not support the example


def make_data_recipe(config: Mapping[str, Any]) -> DataRecipe:
    """The checked data part of a recipe; ValueError as for `make_recipe`."""
    own = {name: value for name, value in config.items() if name in _OWN}
    options = {name: value for name, value in config.items() if name not in own}
    made: DataRecipe = build(DataRecipe, {**own, "options": options}, "data")
    return made


def make_recipe(config: Mapping[str, Any]) -> Recipe:
    """A checked recipe; ValueError names the key, the value and what is expected, on one line."""
    given = dict(config)
    if isinstance(given.get("data"), Mapping):
        given["data"] = make_data_recipe(given["data"])
    if "network" in given:
        given["network"] = complete("network", given["network"], FROM_DATA)
    if not is_none(given.get("augment")):
        given["augment"] = from_config("augmentation", given["augment"], "augment")
    made: Recipe = build(Recipe, given)
    return made


def of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config that a run of any version wrote; version 0.1 split by position, had its σ range, and a key more."""
    full = {name: value for name, value in config.items() if name != "winograd"}
    if not full.get("score_images"):
        full.pop("score", None)  # which had no effect
    if isinstance(full.get("data"), Mapping):
        full["data"] = {"split": "position", **full["data"]}
    if isinstance(part := full.get("preconditioning"), Mapping) and "sigma_min" not in full:
        low, high = former_range(part.get("sigma_data")) or (None, None)
        full |= {"sigma_min": low, "sigma_max": high}
    return full


def changes(old: str, new: Recipe) -> list[str]:
    """The differences between the recipe of a checkpoint, in YAML, and the one to continue with, a line for each key.

    ValueError with both values for a key that cannot change within a run.
    """
    former = read_yaml(old)
    if not isinstance(former, dict):
        raise ValueError("recipe: that of the checkpoint is no mapping of keys to values")
    now, before = flatten(new.as_dict()), flatten(_in_full(former))
    fixed = _FIXED | ({"noise"} if new.adaptive_noise else set())
    lines = []
    for key in sorted(now.keys() | before.keys()):
        # the layout of an array may be named later: the fingerprint of the data tells whether it is the same
        matters = key.split(".")[0] in fixed and not (key == "data.layout" and before.get(key) in (None, "auto"))
        # a key on one side alone belongs to another version, unless it is an option of a fixed part
        if now.get(key) != before.get(key) and (matters or (key in now and key in before)):
            line = f"{key}: {before.get(key)} became {now.get(key)}"
            if matters:
                raise ValueError(f"{line}, which cannot change within a run; use --transfer for a new run")
            lines.append(line)
    return lines


def _in_full(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of any version, with every option of the parts that this version knows filled in."""
    full = of_run(config)
    for key, family in (("noise", "noise"), ("preconditioning", "preconditioning"), ("augment", "augmentation")):
        with contextlib.suppress(ValueError):
            full[key] = to_config(family, from_config(family, full.get(key)))
    with contextlib.suppress(ValueError):
        full["network"] = complete("network", full.get("network"), FROM_DATA)
    return full
