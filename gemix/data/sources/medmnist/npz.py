"""Read arrays of a NumPy .npz file after checking their headers.

A small file may unpack to terabytes of zeros. No pickle is loaded.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from gemix.core.errors import DataError

_PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes
_ALWAYS_FREE = 2**20  # bytes that may shrink to anything, as a few blank images do
_CHUNK_BYTES = 2**20  # of an array that are unpacked at a time


class ArrayHeader(NamedTuple):
    """Header of an array, and the byte of its archive member at which its data begin."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    start: int

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class NpzArchive:
    """The arrays of a file.

    Args:
        data: the file.
        where: it comes from, for messages.

    Raises:
        DataError: if it is no such file.
    """

    def __init__(self, data: bytes, where: str):
        self.where = where
        try:
            self.archive = zipfile.ZipFile(io.BytesIO(data))
            if any(member.compress_size > len(data) for member in self.archive.infolist()):
                raise EOFError
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
            raise DataError(f"{where}: no .npz file, or a truncated one; copy it again") from None

    def header(self, name: str) -> ArrayHeader:
        """Read the header of an array and unpack nothing else.

        Raises:
            DataError: if it is not there or no array of numbers.
        """
        found = [member.removesuffix(".npy") for member in self.archive.namelist()]
        if name not in found:
            raise DataError(
                f"{self.where}: no array {name} (found {', '.join(found) or 'none'}); a "
                "file of MedMNIST has images and labels of train, val and test"
            )
        try:
            if (method := self.archive.getinfo(f"{name}.npy").compress_type) not in _PACKING:
                raise ValueError(f"packed by method {method}, as numpy does not")
            with self.archive.open(f"{name}.npy") as stream:
                # later versions are for headers of up to 4 GiB, which arrays of numbers have not
                if (version := np.lib.format.read_magic(stream)) != (1, 0):
                    raise ValueError(f"its format has version {version}, not (1, 0)")
                return ArrayHeader(*np.lib.format.read_array_header_1_0(stream), stream.tell())
        except Exception as error:  # of nearly any type, as the header is parsed as Python
            raise self._unreadable(name, error) from error

    def read(self, name: str, most_shrinkage: float) -> np.ndarray:
        """Read an array; no more bytes are unpacked than its header says.

        Args:
            most_shrinkage: the largest ratio of unpacked to packed bytes.

        Raises:
            DataError: if it cannot be read or unpacks to something else than its header says.
        """
        header = self.header(name)
        member = self.archive.getinfo(f"{name}.npy")
        wanted, held = math.prod(header.shape) * header.dtype.itemsize, member.file_size
        what = f"{self.where}: array {name} is {header}, {wanted} bytes"
        if held - header.start != wanted:
            raise DataError(
                f"{what}, but the archive says {held - header.start}; copy the file again"
            )
        if wanted > max(most_shrinkage * member.compress_size, _ALWAYS_FREE):
            raise DataError(
                f"{what} packed into {member.compress_size}: CT images do not shrink to 1/"
                f"{most_shrinkage}; copy the file again, or save it with numpy.savez if it is right"
            )
        data = np.empty(wanted, np.uint8)
        try:
            with self.archive.open(member) as stream:
                stream.read(header.start)
                for start in range(0, wanted, _CHUNK_BYTES):
                    chunk = memoryview(data)[start : start + _CHUNK_BYTES]
                    if stream.readinto(chunk) != len(chunk):
                        raise EOFError("it ends too early")
        except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise self._unreadable(name, error) from error
        order = "F" if header.is_fortran else "C"
        return data.view(header.dtype).reshape(header.shape, order=order)

    def _unreadable(self, name: str, error: Exception) -> DataError:
        return DataError(
            f"{self.where}: array {name} cannot be read ({error}); copy the file again"
        )
