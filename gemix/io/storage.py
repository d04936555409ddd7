"""One view of a directory, on a local disk or in an S3 bucket.

A file appears whole or not at all: local files are written aside, flushed and renamed, S3 objects
appear when their upload ends. A *directory* counts as finished when its marker (a manifest, say)
is there; the marker is written last and removed first, which holds on S3, where a directory
cannot be renamed, just as on a disk.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import posixpath
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gemix.core.errors import AlreadyFinishedError, DataError
from gemix.io.s3 import S3Bucket, bucket_and_path, persist

T = TypeVar("T")

_SMALLEST_BUFFER, _LARGEST_BUFFER = 2**16, 2**23  # bytes asked for at once of a stream


class Store:
    """A directory at a local path or an ``s3://bucket/prefix`` URL.

    S3 credentials, region and endpoint come from the standard AWS variables and files
    (``AWS_ENDPOINT_URL`` included). Bytes are read and written as they are, whatever a name ends
    in: ``.gz`` is not unpacked. Picklable, and cheap to build: S3 is asked at the first use.

    What S3 fails to do is tried again for about a minute (:mod:`gemix.io.s3`); every method here
    raises StoreError where it stays down, or refuses.

    Args:
        url: a local path (relative paths are made absolute) or an ``s3://`` URL, taken literally:
            ``%20`` is no space.

    Raises:
        DataError: for any other URL scheme, or an S3 URL of no bucket or with credentials in it.
    """

    def __init__(self, url: str | os.PathLike[str]):
        text = os.fspath(url)
        if "://" in text and not text.startswith("s3://"):
            raise DataError(f"{text}: only local paths and s3:// URLs are supported")
        self.is_local = not text.startswith("s3://")
        self.url = os.path.abspath(text) if self.is_local else text.rstrip("/")
        self._bucket, self.root = ("", self.url) if self.is_local else bucket_and_path(self.url)

    @functools.cached_property
    def filesystem(self) -> pafs.FileSystem:
        """Arrow's view of it, for libraries that take one; names in it are those of `path`."""
        return pafs.LocalFileSystem() if self.is_local else S3Bucket(self._bucket)

    @classmethod
    def of_file(cls, url: str) -> tuple[Store, str]:
        """The directory of a file, given by path or ``s3://`` URL, and the file's name in it."""
        folder, name = posixpath.split(url)
        return cls(folder or "."), name

    def __reduce__(self):
        return Store, (self.url,)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __truediv__(self, name: str) -> Store:
        return Store(f"{self.url}/{name}")

    def path(self, name: str) -> str:
        """The name as `self.filesystem` wants it."""
        return posixpath.join(self.root, name)

    def exists(self, name: str) -> bool:
        """Whether a file (not a directory) of that name is there."""
        return self._info(name).type == pafs.FileType.File

    def size(self, name: str) -> int:
        """The file's size in bytes.

        Raises:
            DataError: if it is not there.
        """
        info = self._info(name)
        if info.type != pafs.FileType.File:
            raise DataError(f"{self.url}/{name}: cannot be read (no such file)")
        return info.size

    def list(self, recursive: bool = False) -> list[str]:
        """Names of the files below, sorted; unfinished writes and a missing directory are empty."""
        return sorted(self.stamps(recursive))

    def stamps(self, recursive: bool = False) -> dict[str, str]:
        """The same files with size and time of the last change: a file replaced has another."""
        selector = pafs.FileSelector(self.root, allow_not_found=True, recursive=recursive)
        infos = self._do(lambda: self.filesystem.get_file_info(selector), "listed")
        return {
            posixpath.relpath(info.path, self.root): stamp_of(info.size, info.mtime_ns)
            for info in infos
            if info.type == pafs.FileType.File and ".writing-" not in info.path
        }

    def read_bytes(self, name: str, check_size: Callable[[int], None] = lambda size: None) -> bytes:
        """The whole file.

        Args:
            check_size: is told how many bytes it has before any is read, and may raise.

        Raises:
            DataError: if it is not there or cannot be read.
        """

        def read() -> bytes:
            # in one request: a stream would send one every few hundred KiB
            with self.filesystem.open_input_file(self.path(name)) as file:
                check_size(file.size())
                return file.read(file.size())

        return self._read(read, name)

    def read_head(self, name: str, count: int, compression: str | None = None) -> bytes:
        """The first `count` bytes, fewer if the file has fewer; the rest is not read.

        Args:
            count: bytes, after decompression; no more than that is decompressed.
            compression: what the file is packed with, as ``gzip``; None for nothing.

        Raises:
            DataError: if it is not there, cannot be read or is damaged.
        """
        buffer = min(max(count, _SMALLEST_BUFFER), _LARGEST_BUFFER)

        def read() -> bytes:
            path = self.path(name)
            with self.filesystem.open_input_stream(path, compression, buffer) as stream:
                return stream.read(count)

        return self._read(read, name)

    def read_columns(self, name: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a Parquet file; of the others nothing is read.

        They are held against the checksums of their pages, where the file has such.

        Raises:
            DataError: if it is not there, damaged, or lacks a column.
        """

        def read() -> pa.Table:
            with self.filesystem.open_input_file(self.path(name)) as file:
                parquet = pq.ParquetFile(file, page_checksum_verification=True)
                table = parquet.read(columns=list(columns))
            if len(table) != parquet.metadata.num_rows:  # headers of pages have no checksum
                raise ValueError(f"{len(table)} of {parquet.metadata.num_rows} rows")
            return table

        table = self._read(read, name)
        if missing := set(columns) - set(table.column_names):
            raise DataError(f"{self.url}/{name}: no column {', '.join(sorted(missing))}")
        return table

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes the file, whole or not at all; an older one is replaced."""
        target = self.path(name)
        if not self.is_local:

            def write() -> None:
                with self.filesystem.open_output_stream(target, compression=None) as stream:
                    stream.write(data)

            return self._do(write, "written", name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        aside = f"{target}.writing-{secrets.token_hex(4)}"
        try:
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
            _settle(os.path.dirname(target))
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def read_json(self, name: str) -> Any:
        """The parsed JSON file.

        Raises:
            DataError: if it is missing or not JSON.
        """
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise DataError(f"{self.url}/{name}: not valid JSON ({error})") from error

    def write_json(self, name: str, value: Any) -> None:
        """Writes `value` as readable JSON; NaN and infinity are refused."""
        self.write_bytes(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

    def delete(self, name: str) -> None:
        """Removes the file if it is there."""

        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.delete_file(self.path(name))

        self._do(delete, "deleted", name)

    def clear(self, first: str) -> None:
        """Removes every file below, the file `first` before all others."""
        self.delete(first)
        for name in self.list(recursive=True):
            self.delete(name)

    def _info(self, name: str) -> pafs.FileInfo:
        return self._do(lambda: self.filesystem.get_file_info(self.path(name)), "read", name)

    def _read(self, read: Callable[[], T], name: str) -> T:
        try:
            return self._do(read, "read", name)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{self.url}/{name}: cannot be read ({error})") from error

    def _do(self, operation: Callable[[], T], done: str, name: str = "") -> T:
        """The operation's result; on S3 it is tried again where that helps."""
        if self.is_local:
            return operation()
        return persist(operation, f"{self.url}/{name}".rstrip("/") + f" cannot be {done}")


def _settle(folder: str) -> None:
    """Makes the names in a local directory last: else a marker may outlive what it speaks for."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stamp_of(size: int, mtime_ns: int) -> str:
    """What changes when a file does: its size in bytes and the time of its last change."""
    return f"{size}-{mtime_ns}"


def open_output(url: str, marker: str, overwrite: bool) -> Store:
    """The store to write a result into; the caller writes `marker` last.

    A directory without the marker (new, or left by an interrupted run) is used as it is. A
    finished one is refused, or with `overwrite` emptied, its marker first.

    Raises:
        AlreadyFinishedError: if the result is finished and `overwrite` is not set.
    """
    store = Store(url)
    if store.exists(marker):
        if not overwrite:
            raise AlreadyFinishedError(
                f"{store.url}: holds a finished result ({marker}); pass --overwrite to replace it "
                "or choose another directory"
            )
        store.clear(marker)
    return store
