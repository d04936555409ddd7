"""Network pickles as the public StyleGAN2-ADA writes them, made without its code or our reader."""

from __future__ import annotations

import io
import pickle
import re
import sys
import types
from collections.abc import Mapping
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

SOURCE = "raise SystemExit('the source code in the file was run')"
BUFFERS = ("w_avg", "noise_const", "resample_filter")
LINEAR = ("affine", "embed", "out", "skip")


def _reconstruct_persistent_obj(meta):
    raise AssertionError("only its name is wanted")


class EasyDict(dict):
    """The public project's dictionary."""


persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")
_reconstruct_persistent_obj.__module__ = persistence.__name__
persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
EasyDict.__module__, util.EasyDict = util.__name__, EasyDict
PUBLIC_MODULES = {
    module.__name__: module
    for module in (persistence, util, types.ModuleType("torch_utils"), types.ModuleType("dnnlib"))
}


class PublicModule:
    """Is pickled as a persistent module of that state is."""

    def __init__(self, state: dict):
        self.state = state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "Network"}
        return _reconstruct_persistent_obj, (meta | {"state": self.state},)


class ZipPickler(pickle.Pickler):
    """Stores tensors' numbers in the zip format of torch.save instead of the old one."""

    def reducer_override(self, obj):
        if not isinstance(obj, torch.storage.TypedStorage):
            return NotImplemented
        stream = io.BytesIO()
        torch.save(obj, stream)
        return torch.storage._load_from_bytes, (stream.getvalue(),)


def dump(content: object, *, protocol: int = 4, zip_storages: bool = False) -> bytes:
    """Pickles with the names of the public modules."""
    stream = io.BytesIO()
    with mock.patch.dict(sys.modules, PUBLIC_MODULES):
        (ZipPickler if zip_storages else pickle.Pickler)(stream, protocol).dump(content)
    return stream.getvalue()


def public_networks(
    generator: nn.Module,
    discriminator: nn.Module | None = None,
    *,
    changes: Mapping[str, Mapping[str, object]] | None = None,
) -> dict[str, object]:
    """What a training snapshot holds: the generator as G_ema and, at half its weights, as G.

    `changes`: attributes of layers by path, such as ``{"D.b4.mbstd": {"group_size": 8}}``.
    """
    ema = generator.state_dict()
    states = {"G": {key: value / 2 for key, value in ema.items()}, "G_ema": ema}
    for key in ema:
        if "resample_filter" in key:
            states["G"][key] = ema[key]
    if discriminator is not None:
        states["D"] = discriminator.state_dict()
    architecture = generator.architecture
    modules = {
        name: _module(name, state, architecture, changes or {}) for name, state in states.items()
    }
    return {"training_set_kwargs": EasyDict(path="images.zip")} | modules | {"augment_pipe": None}


def _module(path: str, tensors: Mapping[str, Tensor], architecture, changes) -> PublicModule:
    own = {name: tensor for name, tensor in tensors.items() if "." not in name}
    below: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        child, _, rest = name.partition(".")
        if rest:
            below.setdefault(child, {})[rest] = tensor
    children = {k: _module(f"{path}.{k}", v, architecture, changes) for k, v in below.items()}
    if path == "D.b4":
        children["mbstd"] = _module(f"{path}.mbstd", {}, architecture, changes)
    settings = _settings(path, own, architecture) | changes.get(path, {})
    for name, value in list(settings.items()):
        if isinstance(value, (Tensor, PublicModule)):
            (own if isinstance(value, Tensor) else children)[name] = settings.pop(name)
    parameters = {k: nn.Parameter(v, False) for k, v in own.items() if k not in BUFFERS}
    state = {
        "training": False,
        "_parameters": parameters,
        "_buffers": {k: v for k, v in own.items() if k in BUFFERS},
        "_non_persistent_buffers_set": set(),
        "_modules": children,
        "_init_args": (),
        "_init_kwargs": EasyDict(synthesis_kwargs=EasyDict(channel_base=32768)),
    }
    return PublicModule(state | settings)


def _settings(path: str, own: Mapping[str, Tensor], architecture) -> dict[str, object]:
    """The attributes that layers have beside their weights."""
    name, clamp = path.split(".")[-1], architecture.conv_clamp
    dimensions = own["weight"].ndim if "weight" in own else 0
    activation = "linear" if name in LINEAR else "lrelu"
    fir = torch.tensor([1.0, 3.0, 3.0, 1.0])
    filters = {"resample_filter": torch.outer(fir, fir) / 64}
    if dimensions == 2:
        rate = 0.01 if re.search(r"mapping\.fc", path) else 1
        return {"activation": activation, "bias_gain": rate, "weight_gain": np.float64(rate)}
    if "noise_const" in own:
        return filters | {"activation": activation, "use_noise": True, "conv_clamp": clamp}
    if name == "torgb":
        return {"conv_clamp": clamp}
    if dimensions == 4:
        return filters | {"activation": activation, "conv_clamp": None if name == "skip" else clamp}
    if name == "mbstd":
        return {"group_size": architecture.mbstd_group_size, "num_channels": 1}
    if re.fullmatch(r"b\d+", name):
        kind = "resnet" if path.startswith("D.") else "skip"
        return (filters if name != "b4" or kind == "skip" else {}) | {"architecture": kind}
    return {}
