"""Pickles with the layout of the reference's network snapshots, made of networks of ours.

The classes named in such a file belong to the reference; stand-ins under their names exist only while it is written.
"""

import collections
import contextlib
import copyreg
import io
import math
import pickle
import sys
import types

import numpy as np
import torch

PRECONDITIONERS = {"edm": "EDMPrecond", "vp": "VPPrecond", "ve": "VEPrecond", "iddpm": "iDDPMPrecond"}
STYLES = {
    "DDPMpp": {"embedding_type": "positional", "channel_mult_noise": 1, "encoder_type": "standard"}
    | {"decoder_type": "standard", "resample_filter": [1, 1]},
    "NCSNpp": {"embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual"}
    | {"decoder_type": "standard", "resample_filter": [1, 3, 3, 1]},
    "ADM": {},
}
SHARED = (
    *("label_dim", "augment_dim", "model_channels", "channel_mult", "channel_mult_emb"),
    *("num_blocks", "attn_resolutions", "dropout", "label_dropout"),
)
SOURCE = "raise SystemExit('the source of a class was executed')\n"
TABLES = ("_parameters", "_buffers", "_modules", "_backward_hooks", "_forward_hooks", "_forward_pre_hooks")


class Persistent(torch.nn.Module):
    """A module that is pickled as the reference's persistent classes are."""

    def __init__(self, class_name, **attributes):
        super().__init__()
        self.__dict__ |= {"_class_name": class_name, "_init_args": (), "_init_kwargs": {}} | attributes

    def __reduce__(self):
        state = ordered(self.__dict__)
        class_name = state.pop("_class_name")
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": class_name, "state": state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,), None


class Plain:
    """An object that is no module, pickled likewise."""

    def __init__(self, class_name, **attributes):
        self.class_name, self.attributes = class_name, attributes

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.class_name}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta | {"state": self.attributes},)


def ordered(state):
    """The state of a module with the ordered tables that torch had then."""
    return {name: collections.OrderedDict(value) if name in TABLES else value for name, value in state.items()}


class Pickler(pickle.Pickler):
    def reducer_override(self, thing):
        if type(thing) is torch.nn.ModuleDict:
            return copyreg.__newobj__, (torch.nn.ModuleDict,), ordered(thing.__dict__)
        return NotImplemented


@contextlib.contextmanager
def reference_modules():
    """`torch_utils.persistence` and `dnnlib.util`, as far as a pickle names them."""
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")
    persistence._reconstruct_persistent_obj = lambda meta: meta
    persistence._reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    persistence._reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    util.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    names = {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": persistence}
    names |= {"dnnlib": types.ModuleType("dnnlib"), "dnnlib.util": util}
    sys.modules.update(names)
    try:
        yield util.EasyDict
    finally:
        for name in names:
            del sys.modules[name]


def as_modules(state, init_kwargs, class_name):
    """A tree of modules for a flat state; `enc` and `dec` are containers of torch."""
    root = Persistent(class_name, _init_kwargs=init_kwargs)
    for name, value in state.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                inner = {"in_channels": 8, "skip_scale": np.sqrt(0.5), "resample_proj": True}
                init = {"init": {"init_mode": "xavier_uniform", "init_weight": np.float32(0.25)}}
                child = Persistent("UNetBlock", _init_kwargs=init, **inner)
                module._modules[part] = torch.nn.ModuleDict() if part in ("enc", "dec") else child
            module = module._modules[part]
        if leaf in ("resample_filter", "freqs"):
            module.register_buffer(leaf, value)
        else:
            module.register_parameter(leaf, torch.nn.Parameter(value))
    return root


def snapshot(denoiser, *, options=None, buffers=None):
    """The objects of a snapshot of a `Preconditioned` network; `options` change the network's arguments."""
    network, choice = denoiser.network, denoiser.preconditioning
    kind = type(choice).__name__.removesuffix("Preconditioning").lower()
    channels, size, _ = network.config["shape"]
    state = dict(network.state_dict())
    outputs = channels
    if kind == "iddpm":
        outputs = 2 * channels
        for name in [name for name in state if "out_conv" in name or "aux_conv" in name]:
            state[name] = torch.cat([state[name], torch.full_like(state[name], math.pi)])
    arguments = {name: network.config[name] for name in SHARED}
    arguments |= {"img_resolution": size, "in_channels": channels, "out_channels": outputs}
    arguments |= STYLES[type(network).__name__] | (options or {})
    arguments = {name: value for name, value in arguments.items() if value is not None}
    unet = as_modules(state, arguments, "DhariwalUNet" if type(network).__name__ == "ADM" else "SongUNet")
    fields = {"img_resolution": size, "img_channels": channels, "label_dim": network.config["label_dim"]}
    fields |= {name: value for name, value in vars(choice).items() if name != "times"}
    whole = Persistent(PRECONDITIONERS[kind], use_fp16=True, **fields)
    whole._modules["model"] = unet
    if buffers:
        for name, value in buffers.items():
            whole.register_buffer(name, value)
    elif kind == "iddpm":
        # as the reference computes them, in float32
        whole.register_buffer("u", torch.cat([choice.times.levels.table().flip(0), torch.zeros(1)]).float())
    loss = Plain("EDMLoss", P_mean=-1.2, P_std=np.float64(1.2), sigma_data=0.5)
    augment = Plain(
        "AugmentPipe", p=0.12, names={"xflip", "yflip"}, table=np.arange(6.0).reshape(2, 3), raw=b"\x00\xff"
    )
    return {"ema": whole, "loss_fn": loss, "augment_pipe": augment}


def write_snapshot(path, denoiser, protocol=4, **changes):
    """Write a snapshot of a `Preconditioned` network."""
    with reference_modules() as easy_dict:
        content = snapshot(denoiser, **changes)
        content["dataset_kwargs"] = easy_dict(class_name="training.dataset.ImageFolderDataset", path="cifar10.zip")
        stream = io.BytesIO()
        Pickler(stream, protocol).dump(content)
    path.write_bytes(stream.getvalue())
    return path
