"""The numbers of a tensor in the two formats of ``torch.save``, read without ``torch.load``.

The old format, which modules are pickled with, is five pickles one after the other (a magic number,
the version, what the machine is like, the storage's description, its key), the count as int64, and
the numbers. The newer one is a zip with the description in ``data.pkl`` and the numbers in
``data/<key>``. Little-endian, as all that public networks were trained on is.
"""

from __future__ import annotations

import dataclasses
import io
import sys
import zipfile

import torch
from torch import Tensor

from gemix.core.errors import CheckpointError
from gemix.gan.importers.pickle_machine import Named, follow

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the old format
MAX_COMMANDS = 200  # a description has some 40

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_storage(data: bytes) -> Tensor:
    """The numbers that ``torch.save`` wrote of a storage, [n]; no more bytes than there are.

    Raises:
        CheckpointError: if it is anything else, or is damaged.
    """
    try:
        zipped = zipfile.is_zipfile(io.BytesIO(data))
        described, numbers = (_zipped if zipped else _plain)(io.BytesIO(data))
        if len(numbers) != described.count * described.dtype.itemsize:
            raise ValueError("another count than described")
        if sys.byteorder != "little":
            raise ValueError("this machine is big-endian")
        empty = torch.empty(0, dtype=described.dtype)
        # bytearray: PyTorch warns of memory that it may not write to
        return torch.frombuffer(bytearray(numbers), dtype=described.dtype) if numbers else empty
    except _CompressedError as error:
        raise CheckpointError(
            "the file holds a compressed tensor, which could be any size; it is refused"
        ) from error
    except Exception as error:  # damaged or hostile bytes can fail in any way
        raise CheckpointError(
            "the file holds something other than plain numbers in the place of a tensor's; it is "
            "damaged or tampered with, and nothing in it was run"
        ) from error


class _CompressedError(ValueError):
    """What is unpacked may be far larger than the file."""


@dataclasses.dataclass(frozen=True)
class _Described:
    """The description of a storage: `count` numbers."""

    dtype: torch.dtype
    key: str
    count: int


def _describe(persistent_id: object) -> _Described:
    kind, dtype, key, _, count, *_ = persistent_id
    if kind != "storage" or type(key) is not str or type(count) is not int or count < 0:
        raise ValueError("no description of a storage")
    return _Described(dtype.meaning, key, count)


def _find(module: str, name: str) -> Named:
    if module != "torch":
        raise ValueError("no storage")
    return Named(DTYPES[name])


def _pickle(stream: io.BytesIO) -> object:
    return follow(stream, _find, _describe, MAX_COMMANDS)


def _storage(described: object) -> _Described:
    if not isinstance(described, _Described):
        raise ValueError("no storage")
    return described


def _plain(stream: io.BytesIO) -> tuple[_Described, bytes]:
    magic, _, machine = (_pickle(stream) for _ in range(3))
    if magic != MAGIC or machine["little_endian"] is not True:
        raise ValueError("not what torch.save writes")
    described = _storage(_pickle(stream))
    keys, count = _pickle(stream), int.from_bytes(stream.read(8), "little")
    if keys != [described.key] or count != described.count:
        raise ValueError("another storage than described")
    return described, stream.read()


def _zipped(stream: io.BytesIO) -> tuple[_Described, bytes]:
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > len(stream.getbuffer()):
            raise _CompressedError
        folder = entries[0].filename.split("/")[0]
        described = _storage(_pickle(io.BytesIO(archive.read(f"{folder}/data.pkl"))))
        return described, archive.read(f"{folder}/data/{described.key}")
