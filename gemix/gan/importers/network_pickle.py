"""Reads the network pickles of the public StyleGAN2-ADA without running anything in them.

Unpickling calls whatever function a file names. Here a name finds one of the functions below or is
refused (:mod:`gemix.gan.importers.pickle_machine`). Modules come out as trees of tensors and plain
settings; the source code that the files carry along is dropped unread.

What a file may make this process allocate is bounded by its own size: storages together never hold
more bytes than the file has, tensors never claim more, and each is in one place only.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Iterator

from torch import Tensor

from gemix.core.errors import CheckpointError
from gemix.gan.importers.pickle_machine import Ignored, Named, follow
from gemix.gan.importers.torch_storage import read_storage

NETWORKS = ("G", "D", "G_ema")
MAX_DEPTH = 20  # of modules in modules; public networks have 4
MAX_DIMENSIONS = 8  # of a tensor; public networks have 4
_NAME = re.compile(r"[A-Za-z0-9_]{1,80}")  # of attributes, in the file's dictionaries of them

Scalar = int | float | str | bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickledModule:
    """A torch module as a file describes it.

    Attributes:
        settings: those of its attributes that are single values.
        tensors: its parameters and buffers.
        children: its submodules.
    """

    settings: dict[str, Scalar]
    tensors: dict[str, Tensor]
    children: dict[str, PickledModule]

    def walk(self, path: str = "") -> Iterator[tuple[str, PickledModule]]:
        """The module and all below it with their paths, such as ``mapping.fc0``."""
        yield path, self
        for name, child in self.children.items():
            yield from child.walk(f"{path}.{name}" if path else name)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by their path."""
        return {
            f"{path}.{name}" if path else name: tensor
            for path, module in self.walk()
            for name, tensor in module.tensors.items()
        }


def read_network_pickle(data: bytes) -> dict[str, PickledModule]:
    """The networks of a public pickle: those of G, D and G_ema that are in it.

    Raises:
        CheckpointError: if it is no such pickle, is damaged, or asks for anything but tensors and
            modules.
    """
    try:
        content = follow(io.BytesIO(data), _Reader(len(data)).find)
        seen: set[int] = set()
        return {name: _plain_module(content[name], seen) for name in NETWORKS if name in content}
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        raise CheckpointError(
            f"not a network pickle of the public StyleGAN2-ADA, or a damaged one ({error!s:.200})"
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class _Storage:
    """The numbers of tensors, [n]."""

    numbers: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
    """A view of a storage."""

    values: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class _Module:
    """What the file says of a module, its state among it."""

    described: object


class _Reader:
    """The functions that a file may call, and what is left of the bytes that it may ask for."""

    def __init__(self, size: int):
        self.unread = self.unclaimed = size
        self.known = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Module,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch.storage", "_load_from_bytes"): self.storage,
            ("collections", "OrderedDict"): _empty_dict,
            ("dnnlib.util", "EasyDict"): _empty_dict,
            ("builtins", "set"): _ignore,
            ("numpy", "dtype"): _ignore,
            ("numpy", "ndarray"): _ignore,
        }
        for core in ("numpy.core", "numpy._core"):
            for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer"):
                module, function = name.split(".")
                self.known[f"{core}.{module}", function] = _ignore

    def find(self, module: str, name: str) -> Named:
        """What a name stands for.

        Raises:
            CheckpointError: for every name that public networks do without.
        """
        if module.startswith("dnnlib.tflib"):
            raise CheckpointError(
                "a TensorFlow pickle; turn it into a PyTorch one with legacy.py of the public "
                "StyleGAN2-ADA, in a place where running what is in the file does no harm"
            )
        if (module, name) not in self.known:
            raise CheckpointError(
                f"the file asks for {f'{module}.{name}'[:80]!r}, which no network needs; it is "
                "refused, and nothing in it was run"
            )
        return Named(self.known[module, name])

    def storage(self, data: object) -> _Storage:
        """The storage that ``torch.save`` wrote into bytes of the file."""
        if type(data) is not bytes:
            raise CheckpointError("the file makes a storage of something that is no bytes")
        self.unread -= len(data)
        if self.unread < 0:
            raise CheckpointError(
                "the file reads the same numbers again and again, into more memory than it is "
                "large; it is refused"
            )
        return _Storage(read_storage(data))

    def tensor(
        self, storage: object, offset: object, size: object, stride: object, *_: object
    ) -> _Tensor:
        """A view of a storage, within its bounds."""
        if not (
            isinstance(storage, _Storage)
            and type(size) is type(stride) is tuple
            and len(size) == len(stride) <= MAX_DIMENSIONS
            and all(type(n) is int and 0 <= n < 2**63 for n in (offset, *size, *stride))
        ):
            raise CheckpointError("the file describes a tensor that cannot be; it is refused")
        flat, count = storage.numbers, math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        self.unclaimed -= count * flat.element_size()
        if (count and last >= len(flat)) or self.unclaimed < 0:
            raise CheckpointError(
                f"the file describes a tensor of shape {size} and does not hold its numbers; it "
                "is damaged or tampered with"
            )
        return _Tensor(flat.as_strided(size, stride, offset))


def _parameter(tensor: object, *_: object) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise CheckpointError("the file makes a parameter of something that is no tensor")
    return tensor


def _empty_dict() -> dict[object, object]:
    """Any of the file's dictionaries; it takes no other one, which it would copy."""
    return {}


def _ignore(*_: object) -> Ignored:
    return Ignored()


def _plain_module(module: object, seen: set[int], depth: int = 0) -> PickledModule:
    """The tree below a module. Each module and tensor is in one place only, so that the tree is
    no larger than the file.
    """
    _once(module, _Module, seen)
    if depth > MAX_DEPTH:
        raise CheckpointError(
            f"the file's networks are no trees of modules as public ones are, but {depth} deep; it "
            "is refused"
        )
    state = module.described["state"]
    tensors = {
        name: _once(value, _Tensor, seen).values
        for group in ("_parameters", "_buffers")
        for name, value in _named(state[group])
        if value is not None
    }
    return PickledModule(
        settings={k: v for k, v in _named(state) if type(v) in (int, float, str, bool, type(None))},
        tensors=tensors,
        children={
            name: _plain_module(child, seen, depth + 1)
            for name, child in _named(state["_modules"])
            if child is not None
        },
    )


def _once(value: object, kind: type, seen: set[int]) -> object:
    if not isinstance(value, kind) or id(value) in seen:
        raise CheckpointError("the file's networks are not trees of modules; it is refused")
    seen.add(id(value))
    return value


def _named(values: dict[str | int, object]) -> Iterator[tuple[str, object]]:
    """The attributes, whose names become paths of weights and go into messages."""
    for name, value in values.items():
        if type(name) is not str or not _NAME.fullmatch(name):
            raise CheckpointError(
                f"the file has an attribute named {str(name)[:80]!r}, which is no name of "
                "anything in a network; it is refused"
            )
        yield name, value
