"""The networks that NVIDIA published with the paper: pickles of EDM, and of the VP, VE and iDDPM baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from diffspace._shapes import Tensor
from diffspace.config import from_config
from diffspace.interop.checkpoint import Checkpoint
from diffspace.pickles import PickleError, Record, short_repr

__all__ = ["read", "recognise"]

_PRECONDITIONING: Mapping[str, tuple[str, Mapping[str, Callable[[Any], Any]]]] = {
    "EDMPrecond": ("edm", {"sigma_data": float, "sigma_min": float, "sigma_max": float}),
    "VPPrecond": ("vp", {"beta_d": float, "beta_min": float, "epsilon_t": float, "M": int}),
    "VEPrecond": ("ve", {"sigma_min": float, "sigma_max": float}),
    "iDDPMPrecond": ("iddpm", {"M": int, "C_1": float, "C_2": float}),
}
_COMMON = {"label_dim": 0, "augment_dim": 0, "channel_mult_emb": 4, "dropout": 0.1, "label_dropout": 0.0}
_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "SongUNet": _COMMON
    | {"model_channels": 128, "channel_mult": (1, 2, 2, 2), "num_blocks": 4, "attn_resolutions": (16,)},
    "DhariwalUNet": _COMMON
    | {"model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3, "attn_resolutions": (32, 16, 8)},
}
"""The options that the networks share with ours, and what they are where a file does not say."""
_SONG_STYLES: Mapping[str, dict[str, Any]] = {
    "ddpmpp": {
        "embedding_type": "positional",
        "channel_mult_noise": 1,
        "encoder_type": "standard",
        "decoder_type": "standard",
        "resample_filter": (1, 1),
    },
    "ncsnpp": {
        "embedding_type": "fourier",
        "channel_mult_noise": 2,
        "encoder_type": "residual",
        "decoder_type": "standard",
        "resample_filter": (1, 3, 3, 1),
    },
}


def recognise(content: Mapping[str, Any]) -> bool:
    """Whether this is a snapshot of a training."""
    return isinstance(content.get("ema"), Record)


def read(content: Mapping[str, Any]) -> Checkpoint:
    """The averaged network ("ema") of a snapshot."""
    whole = content["ema"]
    if whole.class_name not in _PRECONDITIONING:
        raise ValueError(f"class {short_repr(whole.class_name)} is unknown; want one of {', '.join(_PRECONDITIONING)}")
    kind, wanted = _PRECONDITIONING[whole.class_name]
    settings = {name: _number(whole.state, name, type_) for name, type_ in wanted.items()}
    preconditioning = from_config("preconditioning", {"kind": kind, **settings})

    unet = _part(whole.state, "_modules").get("model")
    if not isinstance(unet, Record) or unet.class_name not in _NETWORKS:
        name = unet.class_name if isinstance(unet, Record) else unet
        raise ValueError(f"model: {short_repr(name)} is unknown; want one of {', '.join(_NETWORKS)}")
    ignored = [f"{name!r} of the snapshot" for name in content if name != "ema"]
    ignored += [f"{name!r} of {whole.class_name}" for name in _part(whole.state, "_buffers")]
    ignored.append("the source code of the classes, which is not executed")
    if whole.state.get("use_fp16"):
        ignored.append("use_fp16: the weights are float32, and the precision of the network is the user's choice")
    state = dict(_tensors(unet))
    config = _config(unet)
    channels = config["shape"][0]
    last = (
        "out_conv" if unet.class_name == "DhariwalUNet" else f"dec.{'x'.join(map(str, config['shape'][1:]))}_aux_conv"
    )
    for name in (f"{last}.weight", f"{last}.bias"):
        if name in state and len(state[name]) == 2 * channels:
            state[name] = state[name][:channels]
            ignored.append(f"the second half of {name}: a learned variance")
    return Checkpoint(
        f"NVIDIA pickle, {whole.class_name} of {unet.class_name}", config, state, preconditioning, tuple(ignored)
    )


def _config(unet: Record) -> dict[str, Any]:
    """The config of our network for the arguments with which theirs was made."""
    if unet.state.get("_init_args"):
        raise ValueError(f"_init_args: {short_repr(unet.state['_init_args'])}; want arguments by name")
    given = dict(_part(unet.state, "_init_kwargs"))
    size = _number(given, "img_resolution", int)
    channels = _number(given, "in_channels", int)
    if given.get("out_channels") not in (channels, 2 * channels):
        raise ValueError(f"out_channels: {short_repr(given.get('out_channels'))}; want {channels} or {2 * channels}")
    defaults = _NETWORKS[unet.class_name]
    options = {name: _like(name, given.get(name, default), default) for name, default in defaults.items()}
    style = {name: value for name, value in given.items() if name not in {*options, *_SHAPE}}
    if unet.class_name == "DhariwalUNet":
        kind = "adm"
        if style:
            raise ValueError(f"{short_repr(next(iter(style)))}: is no option of a DhariwalUNet")
    else:
        kind = _song_kind(style)
    sides = [size >> i for i in range(len(options["channel_mult"]))]
    options["attn_resolutions"] = tuple(r for r in options["attn_resolutions"] if r in sides)
    if not options["label_dim"]:
        options["label_dropout"] = 0.0
    return {"kind": kind, "shape": (channels, size, size), **options}


_SHAPE = {"img_resolution", "in_channels", "out_channels"}


def _song_kind(given: Mapping[str, Any]) -> str:
    """Which of our networks has the options of a SongUNet; ValueError names one that none has."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    kind = "ncsnpp" if plain.get("embedding_type") == "fourier" else "ddpmpp"
    style = _SONG_STYLES[kind]
    # what is not given is as in DDPM++
    for name, value in (_SONG_STYLES["ddpmpp"] | plain).items():
        if name not in style:
            raise ValueError(f"{short_repr(name)}: is no option of a SongUNet")
        if value != style[name]:
            raise ValueError(f"{name}: {short_repr(value)}; want {style[name]!r}, as {kind} has it")
    return kind


def _tensors(module: Record) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers under their full names. No module may occur twice, or there would be no end to some."""
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
                raise ValueError(f"{short_repr(prefix + name)}: is no tensor")
        for name, child in _part(module.state, "_modules").items():
            if isinstance(child, Record):
                waiting.append((f"{prefix}{name}.", child))
            elif child is not None:
                raise ValueError(f"{short_repr(prefix + name)}: is no module")


def _part(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = state.get(name)
    if type(part) is not dict:
        raise PickleError(f"has an object without {name}")
    return part


def _number(state: Mapping[str, Any], name: str, type_: Callable[[Any], Any]) -> Any:
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, int if type_ is int else int | float):
        raise ValueError(f"{name}: {short_repr(value)}; want a number")
    return type_(value)


def _like(name: str, value: Any, default: Any) -> Any:
    """A value of the type of its default: a whole number, a number, or whole numbers."""
    if not isinstance(default, tuple):
        return _number({name: value}, name, type(default))
    if not isinstance(value, list | tuple) or not all(type(n) is int for n in value):
        raise ValueError(f"{name}: {short_repr(value)}; want whole numbers")
    return tuple(value)
