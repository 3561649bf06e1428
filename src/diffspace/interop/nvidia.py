"""The networks that NVIDIA published with the paper: pickles of EDM, and of the VP, VE and iDDPM baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import torch

from diffspace._shapes import Tensor
from diffspace.config import from_config
from diffspace.interop.model_parts import ModelParts
from diffspace.networks.unet import DecoderType, EncoderType
from diffspace.pickles import Record, short_repr
from diffspace.preconditioning import EpsilonPrediction, LevelIndex, Preconditioning
from diffspace.process import DiscreteLevels

_PRECONDITIONING: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "EDMPrecond": ("edm", ("sigma_data", "sigma_min", "sigma_max")),
    "VPPrecond": ("vp", ("beta_d", "beta_min", "epsilon_t", "M")),
    "VEPrecond": ("ve", ("sigma_min", "sigma_max")),
    "iDDPMPrecond": ("iddpm", ("M", "C_1", "C_2")),
}
"""The kind of each preconditioning, and its settings, whose names are the same."""
_COMMON = {"label_dim": 0, "augment_dim": 0, "channel_mult_emb": 4, "dropout": 0.1, "label_dropout": 0.0}
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "SongUNet": _COMMON
    | {"model_channels": 128, "channel_mult": (1, 2, 2, 2), "num_blocks": 4, "attn_resolutions": (16,)}
    | {"encoder_type": "standard", "decoder_type": "standard"},
    "DhariwalUNet": _COMMON
    | {"model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3, "attn_resolutions": (32, 16, 8)},
}
"""The options that the networks share with ours, with their defaults for a file without them."""
_WORDS = {"encoder_type": get_args(EncoderType), "decoder_type": get_args(DecoderType)}
_SHAPE = ("img_resolution", "in_channels", "out_channels")
_FIXED: Mapping[str, Mapping[str, Any]] = {
    "ddpmpp": {"embedding_type": "positional", "channel_mult_noise": 1, "resample_filter": (1, 1)},
    "ncsnpp": {"embedding_type": "fourier", "channel_mult_noise": 2, "resample_filter": (1, 3, 3, 1)},
    "adm": {},
}
"""The other options, fixed in each of our networks; the defaults of a SongUNet are those of ddpmpp."""


def recognise(content: Mapping[str, Any]) -> bool:
    """Whether this is a training snapshot."""
    return isinstance(content.get("ema"), Record)


def read(content: Mapping[str, Any]) -> ModelParts:
    """The averaged network, "ema", of a snapshot."""
    whole = content["ema"]
    if whole.class_name not in _PRECONDITIONING:
        raise ValueError(f"ema: expected one of {', '.join(_PRECONDITIONING)}, got {short_repr(whole.class_name)}")
    kind, names = _PRECONDITIONING[whole.class_name]
    settings = {name: _number(name, whole.state.get(name), int if name == "M" else float) for name in names}
    unet = _part(whole.state, "_modules").get("model")
    if not isinstance(unet, Record) or unet.class_name not in _OPTIONS:
        name = unet.class_name if isinstance(unet, Record) else unet
        raise ValueError(f"model: expected one of {', '.join(_OPTIONS)}, got {short_repr(name)}")

    config, state = _config(unet), dict(_tensors(unet))
    ignored = [f"{short_repr(name)} of the snapshot" for name in content if name != "ema"]
    ignored += [f"{short_repr(name)} of {whole.class_name}" for name in _part(whole.state, "_buffers") if name != "u"]
    ignored.append("the source code of the classes, which is not executed")
    if whole.state.get("use_fp16"):
        ignored.append("use_fp16: the weights are float32; set the precision of the network as needed")
    channels = config["shape"][0]
    for name in state:
        if name.rpartition(".")[0].endswith(("out_conv", "_aux_conv")) and len(state[name]) == 2 * channels:
            state[name] = state[name][:channels]
            ignored.append(f"the second half of {name}: a learned variance")
    return ModelParts(
        format=f"NVIDIA pickle, {whole.class_name} of {unet.class_name}",
        network=config,
        state=state,
        preconditioning=_preconditioning(kind, settings, _part(whole.state, "_buffers").get("u")),
        ignored=tuple(ignored),
    )


def _preconditioning(kind: str, settings: Mapping[str, Any], u: object) -> Preconditioning:
    """The preconditioning of these settings, but of iDDPM with the levels u_0 > … > u_M = 0 that the file holds."""
    if kind != "iddpm":
        made: Preconditioning = from_config("preconditioning", {"kind": kind, **settings})
        return made
    if not isinstance(u, Tensor) or u.shape != (settings["M"] + 1,) or u[-1] != 0:
        raise ValueError(f"u: expected a tensor of the M + 1 = {settings['M'] + 1} levels, the last 0")
    return EpsilonPrediction(LevelIndex(DiscreteLevels(tuple(u[:-1].flip(0).to(torch.float64).tolist()))))


def _config(unet: Record) -> dict[str, Any]:
    """The config of our network from the constructor arguments of theirs."""
    if unet.state.get("_init_args"):
        raise ValueError(f"_init_args: expected arguments by name, got {short_repr(unet.state['_init_args'])}")
    given = _part(unet.state, "_init_kwargs")
    size = _number("img_resolution", given.get("img_resolution"), int)
    channels = _number("in_channels", given.get("in_channels"), int)
    if given.get("out_channels") not in (channels, 2 * channels):
        got = short_repr(given.get("out_channels"))
        raise ValueError(f"out_channels: expected {channels} or {2 * channels}, got {got}")
    defaults = _OPTIONS[unet.class_name]
    options = {name: _option(name, given.get(name, default), default) for name, default in defaults.items()}
    options["attn_resolutions"] = tuple(
        side for side in options["attn_resolutions"] if side in [size >> i for i in range(len(options["channel_mult"]))]
    )
    if not options["label_dim"]:
        options["label_dropout"] = 0.0
    kind = _kind(unet.class_name, {name: given[name] for name in given if name not in (*defaults, *_SHAPE)})
    return {"kind": kind, "shape": (channels, size, size), **options}


def _kind(class_name: str, given: Mapping[str, Any]) -> str:
    """The kind of our network with these options; ValueError for an option without a counterpart."""
    song = class_name == "SongUNet"
    kind = "adm" if not song else "ncsnpp" if given.get("embedding_type") == "fourier" else "ddpmpp"
    for name, value in {**(_FIXED["ddpmpp"] if song else {}), **given}.items():
        if name not in _FIXED[kind]:
            raise ValueError(f"{short_repr(name)}: is not an option of a {class_name}")
        expected = _FIXED[kind][name]
        if (tuple(value) if isinstance(value, list) else value) != expected:
            raise ValueError(f"{name}: expected {expected!r} as in {kind}, got {short_repr(value)}")
    return kind


def _tensors(module: Record) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers under their full names; ValueError for a module that occurs twice, perhaps in itself."""
    seen: set[int] = set()
    waiting = [("", module)]
    while waiting:
        prefix, module = waiting.pop()
        if id(module) in seen:
            raise ValueError(f"{short_repr(prefix[:-1])}: is a module that occurs elsewhere too")
        seen.add(id(module))
        for name, value in {**_part(module.state, "_parameters"), **_part(module.state, "_buffers")}.items():
            if isinstance(value, Tensor):
                yield prefix + name, value
            elif value is not None:
                raise ValueError(f"{short_repr(prefix + name)}: is not a tensor")
        for name, child in _part(module.state, "_modules").items():
            if isinstance(child, Record):
                waiting.append((f"{prefix}{name}.", child))
            elif child is not None:
                raise ValueError(f"{short_repr(prefix + name)}: is not a module")


def _part(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = state.get(name)
    if type(part) is not dict:
        raise ValueError(f"{name}: is missing in an object of the file")
    return part


def _option(name: str, value: Any, default: Any) -> Any:
    """A value of the kind of the default."""
    if name in _WORDS:
        if type(value) is not str or value not in _WORDS[name]:
            raise ValueError(f"{name}: expected {' or '.join(_WORDS[name])}, got {short_repr(value)}")
        return value
    return _integers(name, value) if isinstance(default, tuple) else _number(name, value, type(default))


def _number(name: str, value: Any, kind: type) -> Any:
    if type(value) is not int and (kind is int or type(value) is not float):
        raise ValueError(f"{name}: expected {'an integer' if kind is int else 'a number'}, got {short_repr(value)}")
    return kind(value)


def _integers(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(type(n) is int for n in value):
        raise ValueError(f"{name}: expected a list of integers, got {short_repr(value)}")
    return tuple(value)
