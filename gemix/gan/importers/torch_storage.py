"""Read the storages that ``torch.save`` wrote, in both of its formats, without ``torch.load``.

The legacy format, which modules are pickled with, is five pickles one after the other (a magic
number, the version, the platform, the storage's persistent id, its keys), the number of elements as
int64, and the elements. The newer one is a zip archive with the persistent id in ``data.pkl`` and
the elements in ``data/<key>``. Both are little-endian, as every platform that PyTorch runs on.
"""

from __future__ import annotations

import io
import sys
import zipfile

import torch
from torch import Tensor

from gemix.core.errors import CheckpointError
from gemix.gan.importers.restricted_unpickler import RestrictedUnpickler

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the legacy format
STORAGE_OPCODES = 200  # the pickles of a storage take about 40

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
_ALLOWED = {("torch", name): name for name in DTYPES}


def read_storage(data: bytes) -> Tensor:
    """Return the elements of a storage, [n].

    Raises:
        CheckpointError: for anything else, damaged or compressed storages.
    """
    try:
        zipped = zipfile.is_zipfile(io.BytesIO(data))
        (kind, dtype_name, _, _, count, *_), elements = (_read_zip if zipped else _read_legacy)(
            io.BytesIO(data)
        )
        dtype = DTYPES[dtype_name]
        if kind != "storage" or len(elements) != count * dtype.itemsize:
            raise ValueError("not the described number of elements")
        if sys.byteorder != "little":
            raise ValueError("this machine is big-endian")
        # bytearray: PyTorch warns of memory that is read-only
        return (
            torch.frombuffer(bytearray(elements), dtype=dtype)
            if elements
            else torch.empty(0, dtype=dtype)
        )
    except _CompressedError as error:
        raise CheckpointError(
            "the file holds a compressed tensor, which could be of any size; it is refused"
        ) from error
    except Exception as error:  # damaged or hostile bytes can fail in any way
        raise CheckpointError(
            "the file holds something other than plain numbers in the place of a tensor's; it is "
            "damaged or tampered with, and nothing in it was run"
        ) from error


class _CompressedError(ValueError):
    """Decompressed, it could be far larger than the file."""


class _StorageUnpickler(RestrictedUnpickler):
    def persistent_load(self, pid: object) -> object:
        """Return the persistent id itself: ("storage", type, key, device, count, …)."""
        return pid


def _load(stream: io.BytesIO) -> object:
    return _StorageUnpickler(stream, _ALLOWED, STORAGE_OPCODES).load()


def _read_legacy(stream: io.BytesIO) -> tuple[tuple, bytes]:
    magic, _, platform = (_load(stream) for _ in range(3))
    if magic != MAGIC or platform["little_endian"] is not True:
        raise ValueError("not written by torch.save on a little-endian machine")
    storage, keys = _load(stream), _load(stream)
    count = int.from_bytes(stream.read(8), "little")
    if keys != [storage[2]] or count != storage[4]:
        raise ValueError("not the storage that is described")
    return storage, stream.read()


def _read_zip(stream: io.BytesIO) -> tuple[tuple, bytes]:
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > len(stream.getbuffer()):
            raise _CompressedError
        folder = entries[0].filename.split("/")[0]
        storage = _load(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        return storage, archive.read(f"{folder}/data/{storage[2]}")
