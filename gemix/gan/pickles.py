"""Reads the network pickles of the public StyleGAN2-ADA without running anything in them.

Unpickling calls whatever function a file names. Here a name finds one of the stand-ins below or is
refused: a file can call them, but neither look into nor change what they hold. Modules come out as
trees of tensors and plain settings; the source code that the files carry along is dropped unread.

What a file may make this process allocate is bounded by its own size: the commands are counted
before any is followed, and tensors together never claim more bytes than the file has.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from gemix.errors import CheckpointError

NETWORKS = ("G", "D", "G_ema")
MAX_COMMANDS = 1_000_000  # the three networks of 1024 x 1024 images take some 50,000

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
        _check_commands(data)
        content = _NetworkUnpickler(data).load()
        seen: set[int] = set()
        return {name: _plain_module(content[name], seen) for name in NETWORKS if name in content}
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        raise CheckpointError(
            f"not a network pickle of the public StyleGAN2-ADA, or a damaged one ({error!s:.200})"
        ) from error


class _Opaque:
    """Something that the file may hand around, but neither look into nor change."""

    __slots__ = ("content",)

    def __init__(self, content: Any = None):
        object.__setattr__(self, "content", content)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise CheckpointError(f"the file tries to set the attribute {name!r:.80}; it is refused")


class _Function(_Opaque):
    """Can be called, as the file's functions and classes are."""

    __slots__ = ()

    def __call__(self, *args: object) -> object:
        return self.content(*args)


class _Ignored(_Opaque):
    """Stands for values that no network needs, such as NumPy's, however they are built."""

    __slots__ = ()

    def __call__(self, *args: object) -> _Ignored:
        return _Ignored()

    def __setstate__(self, state: object) -> None:
        pass


class _Storage(_Opaque):
    """Holds the numbers of one tensor, [n]."""

    __slots__ = ()


class _Tensor(_Opaque):
    """Holds a view of a storage."""

    __slots__ = ()


class _Module(_Opaque):
    """Holds what the file says of a module, its state among it."""

    __slots__ = ()


class _Sealed(type):
    def __setattr__(cls, name: str, value: object) -> NoReturn:
        raise CheckpointError(f"the file tries to set the attribute {name!r:.80}; it is refused")


class _Dict(dict, metaclass=_Sealed):
    """Any of the file's dictionaries. It starts empty: one made from others would copy them."""

    __slots__ = ()

    def __new__(cls) -> _Dict:
        return super().__new__(cls)


class _NetworkUnpickler(pickle.Unpickler):
    """Finds stand-ins in place of functions and classes."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))
        self.unclaimed = len(data)
        self.known: dict[tuple[str, str], Callable[..., object]] = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Function(_Module),
            ("torch._utils", "_rebuild_tensor_v2"): _Function(self.tensor),
            ("torch._utils", "_rebuild_parameter"): _Function(_parameter),
            ("torch.storage", "_load_from_bytes"): _Function(_storage),
            ("collections", "OrderedDict"): _Dict,
            ("dnnlib.util", "EasyDict"): _Dict,
            ("builtins", "set"): _Ignored(),
            ("numpy", "dtype"): _Ignored(),
            ("numpy", "ndarray"): _Ignored(),
        }
        for core in ("numpy.core", "numpy._core"):
            for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer"):
                module, function = name.split(".")
                self.known[f"{core}.{module}", function] = _Ignored()

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """The stand-in of a name.

        Raises:
            CheckpointError: for every name that public networks do without.
        """
        if module.startswith("dnnlib.tflib"):
            raise CheckpointError(
                "a TensorFlow pickle; turn it into a PyTorch one with legacy.py of the public "
                "StyleGAN2-ADA, in a place where running what is in the file does no harm"
            )
        if (module, name) not in self.known:
            wanted = f"{module}.{name}"
            raise CheckpointError(
                f"the file asks for {wanted!r:.80}, which no network needs; it is refused, and "
                "nothing in it was run"
            )
        return self.known[module, name]

    def tensor(self, storage: object, offset: object, size: tuple, stride: tuple, *_: object):
        """A view of a storage, within its bounds."""
        numbers = (offset, *size, *stride)
        if (
            not isinstance(storage, _Storage)
            or any(type(number) is not int or number < 0 for number in numbers)
            or len(size) != len(stride)
        ):
            raise CheckpointError("the file describes a tensor that cannot be; it is refused")
        flat, count = storage.content, math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        self.unclaimed -= count * flat.element_size()
        if (count and last >= len(flat)) or self.unclaimed < 0:
            raise CheckpointError(
                f"the file describes a tensor of shape {size!s:.80} and does not hold its "
                "numbers; it is damaged or tampered with"
            )
        return _Tensor(flat.as_strided(size, stride, offset))


def _parameter(tensor: object, *_: object) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise CheckpointError("the file makes a parameter of something that is no tensor")
    return tensor


def _storage(data: object) -> _Storage:
    """The storage in bytes that ``torch.save`` wrote, of its old or its zip format."""
    try:
        if zipfile.is_zipfile(stream := io.BytesIO(data)):
            unpacked = sum(entry.file_size for entry in zipfile.ZipFile(stream).infolist())
            if unpacked > len(data):
                raise CheckpointError("the file holds a compressed tensor, which could be any size")
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        # storage.untyped() is the same with a warning
        return _Storage(torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage))
    except CheckpointError:
        raise
    except Exception as error:  # torch's own message would advise to load it unsafely
        raise CheckpointError(
            "the file holds something other than plain numbers in the place of a tensor's; it is "
            "damaged or tampered with, and nothing in it was run"
        ) from error


def _check_commands(data: bytes) -> None:
    """Makes sure that the pickle is whole and that its commands are few."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        # a memo has room for its highest index
        index = argument if "PUT" in opcode.name else 0
        if max(count, index) > MAX_COMMANDS:
            raise CheckpointError(
                f"the file has more than {MAX_COMMANDS} pickle commands, far more than networks do"
            )


def _plain_module(module: object, seen: set[int]) -> PickledModule:
    """The tree below a module, each module in one place only, so that it is no larger than the
    file.
    """
    if not isinstance(module, _Module) or id(module) in seen:
        raise CheckpointError("the file's networks are not trees of modules; it is refused")
    seen.add(id(module))
    state = module.content["state"]
    tensors = state["_parameters"] | state["_buffers"]
    return PickledModule(
        settings={k: v for k, v in _named(state) if type(v) in (int, float, str, bool, type(None))},
        tensors={k: v.content for k, v in _named(tensors) if isinstance(v, _Tensor)},
        children={k: _plain_module(v, seen) for k, v in _named(state["_modules"]) if v is not None},
    )


def _named(values: dict[object, object]) -> Iterator[tuple[str, object]]:
    # other keys could be nested so that writing one into a message would take forever
    return ((key, value) for key, value in values.items() if type(key) is str)
