"""Read the network pickles of the public StyleGAN2-ADA without executing anything in them.

Modules come out as trees of tensors and plain settings; the source code that the files carry is
never used. See :mod:`gemix.gan.importers.restricted_unpickler` for what is guaranteed. Beyond it,
storages together hold no more bytes than the file, and so do the tensors of each network.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
import reprlib
from collections.abc import Iterator

from torch import Tensor

from gemix.core.errors import CheckpointError
from gemix.gan.importers.restricted_unpickler import Inert, InertFunction, RestrictedUnpickler
from gemix.gan.importers.torch_storage import read_storage

NETWORKS = ("G", "D", "G_ema")
MAX_BYTES = 2**32  # networks of 1024 x 1024 pixels take less than 1 GiB
MAX_DEPTH = 20  # of modules in modules; public networks have 4
MAX_DIMENSIONS = 8  # of a tensor; public networks have 4
MAX_INTEGER_BITS = 64  # of an integer setting
_NAME = re.compile(r"[A-Za-z0-9_]{1,80}")  # names become paths of weights and go into messages

Scalar = int | float | str | bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickledModule:
    """A torch module as a file describes it.

    Attributes:
        settings: attributes that are single values.
        tensors: parameters and buffers.
        children: submodules.
    """

    settings: dict[str, Scalar]
    tensors: dict[str, Tensor]
    children: dict[str, PickledModule]

    def walk(self, path: str = "") -> Iterator[tuple[str, PickledModule]]:
        """Yield the module and all below it with their paths, such as ``mapping.fc0``."""
        yield path, self
        for name, child in self.children.items():
            yield from child.walk(f"{path}.{name}" if path else name)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors by their paths."""
        return {
            f"{path}.{name}" if path else name: tensor
            for path, module in self.walk()
            for name, tensor in module.tensors.items()
        }


def read_network_pickle(data: bytes) -> dict[str, PickledModule]:
    """Return the networks of a public pickle: which of G, D and G_ema it holds.

    Networks that are one object in the file share their tensors.

    Raises:
        CheckpointError: for a file above `MAX_BYTES`, a damaged one, or one that asks for anything
            but tensors and modules.
    """
    if len(data) > MAX_BYTES:
        raise CheckpointError(
            f"the file has {len(data) / 2**30:.1f} GiB; network pickles above "
            f"{MAX_BYTES / 2**30:.0f} GiB are refused"
        )
    try:
        content = _NetworkUnpickler(data).load()
        return {
            name: _TreeBuilder(len(data)).build(content[name])
            for name in NETWORKS
            if name in content
        }
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        raise CheckpointError(
            f"not a network pickle of the public StyleGAN2-ADA, or a damaged one ({error!s:.200})"
        ) from error


class _Dict(Inert, dict):
    """Stands for the file's classes of dictionaries; made empty, as copies could multiply."""

    __slots__ = ()

    def __init__(self):
        super().__init__()


class _Ignored(Inert):
    """Stands for values that no network needs, such as sets and NumPy's scalars."""

    __slots__ = ()

    def __init__(self, *_: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Value(Inert):
    __slots__ = ("value",)

    def __init__(self, value: object):
        self.value = value


class _Module(_Value):
    """Stands for a module; `value` is its description, a dictionary with its state."""

    __slots__ = ()


class _Storage(_Value):
    """Stands for a storage; `value` is a tensor [n]."""

    __slots__ = ()


class _Tensor(_Value):
    """Stands for a tensor; `value` is a view of its storage."""

    __slots__ = ()


class _NetworkUnpickler(RestrictedUnpickler):
    def __init__(self, data: bytes):
        self._size = self._unread = len(data)
        allowed: dict[tuple[str, str], object] = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Module,
            ("torch._utils", "_rebuild_tensor_v2"): InertFunction(self._rebuild_tensor),
            ("torch._utils", "_rebuild_parameter"): InertFunction(_rebuild_parameter),
            ("torch.storage", "_load_from_bytes"): InertFunction(self._load_storage),
            ("collections", "OrderedDict"): _Dict,
            ("dnnlib.util", "EasyDict"): _Dict,
            ("builtins", "set"): _Ignored,
            ("numpy", "dtype"): _Ignored,
            ("numpy", "ndarray"): _Ignored,
        }
        for package in ("numpy.core", "numpy._core"):
            allowed[f"{package}.multiarray", "scalar"] = _Ignored
            allowed[f"{package}.multiarray", "_reconstruct"] = _Ignored
            allowed[f"{package}.numeric", "_frombuffer"] = _Ignored
        super().__init__(io.BytesIO(data), allowed)

    def find_class(self, module: str, name: str) -> object:
        """Return the stand-in of a global; name TensorFlow's pickles."""
        if module.startswith("dnnlib.tflib"):
            raise CheckpointError(
                "a TensorFlow pickle; turn it into a PyTorch one with legacy.py of the public "
                "StyleGAN2-ADA, in a place where running what is in the file does no harm"
            )
        return super().find_class(module, name)

    def _load_storage(self, data: object) -> _Storage:
        if type(data) is not bytes:
            raise CheckpointError("the file makes a storage of something that is not bytes")
        self._unread -= len(data)
        if self._unread < 0:
            raise CheckpointError(
                "the file reads the same numbers again and again, into more memory than it is "
                "large; it is refused"
            )
        return _Storage(read_storage(data))

    def _rebuild_tensor(
        self, storage: object, offset: object, size: object, stride: object, *_: object
    ) -> _Tensor:
        if not (
            type(storage) is _Storage
            and type(size) is type(stride) is tuple
            and len(size) == len(stride) <= MAX_DIMENSIONS
            and all(type(n) is int and 0 <= n < 2**63 for n in (offset, *size, *stride))
        ):
            raise CheckpointError("the file describes an invalid tensor; it is refused")
        flat, count = storage.value, math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if (count and last >= len(flat)) or count * flat.itemsize > self._size:
            raise CheckpointError(
                f"the file describes a tensor of shape {size} and does not hold its numbers; it is "
                "damaged or tampered with"
            )
        return _Tensor(flat.as_strided(size, stride, offset))


def _rebuild_parameter(tensor: object, *_: object) -> _Tensor:
    if type(tensor) is not _Tensor:
        raise CheckpointError("the file makes a parameter of something that is not a tensor")
    return tensor


class _TreeBuilder:
    """Build the tree of one network: each module stands in one place, tensors may be shared.

    Args:
        size: bytes of the file, the most that the network's tensors may have together.
    """

    def __init__(self, size: int):
        self._unclaimed = size
        self._seen: set[int] = set()

    def build(self, module: object, depth: int = 0) -> PickledModule:
        if type(module) is not _Module or id(module) in self._seen or depth > MAX_DEPTH:
            raise CheckpointError(
                f"the file's networks are not trees of modules, at most {MAX_DEPTH} deep; it is "
                "refused"
            )
        self._seen.add(id(module))
        state = module.value["state"]
        return PickledModule(
            settings={
                name: _check_bits(name, value)
                for name, value in _named(state)
                if type(value) in (int, float, str, bool, type(None))
            },
            tensors={
                name: self._claim(value)
                for group in ("_parameters", "_buffers")
                for name, value in _named(state[group])
                if value is not None
            },
            children={
                name: self.build(child, depth + 1)
                for name, child in _named(state["_modules"])
                if child is not None
            },
        )

    def _claim(self, tensor: object) -> Tensor:
        if type(tensor) is not _Tensor:
            raise CheckpointError("the file's networks hold parameters that are not tensors")
        self._unclaimed -= tensor.value.nbytes
        if self._unclaimed < 0:
            raise CheckpointError(
                "the file describes more tensors than it holds numbers for; it is damaged or "
                "tampered with"
            )
        return tensor.value


def _check_bits(name: str, value: Scalar) -> Scalar:
    if type(value) is int and value.bit_length() > MAX_INTEGER_BITS:
        raise CheckpointError(
            f"the file has {name} of {value.bit_length()} bits, integers of networks have "
            f"{MAX_INTEGER_BITS} at most; it is refused"
        )
    return value


def _named(values: dict[object, object]) -> Iterator[tuple[str, object]]:
    """Yield attributes; refuse names that could not be attributes of a module."""
    for name, value in values.items():
        if type(name) is not str or not _NAME.fullmatch(name):
            raise CheckpointError(
                f"the file has an attribute named {reprlib.repr(name)}, which is no name of "
                "anything in a network; it is refused"
            )
        yield name, value
