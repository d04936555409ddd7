"""A directory on a local disk or in an S3 bucket.

A file appears whole or not at all: local files are written aside, flushed and renamed, S3 objects
appear when their upload ends. A *directory* is finished when its marker (a manifest, say) is there;
the marker is written last and removed first, on S3, where a directory cannot be renamed, as on a
disk.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import posixpath
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gemix.core.errors import AlreadyFinishedError, DataError, DiskFullError, StoreAccessError
from gemix.io.s3 import S3Bucket, bucket_and_path, create_object, retry

T = TypeVar("T")

_SMALLEST_BUFFER, _LARGEST_BUFFER = 2**16, 2**23  # bytes asked for at once of a stream


class Store:
    """A directory at a local path or an ``s3://bucket/prefix`` URL.

    S3 credentials, region and endpoint come from the standard AWS variables and files
    (``AWS_ENDPOINT_URL`` included). Bytes are read and written as they are, whatever a name ends
    in: ``.gz`` is not unpacked. Picklable, and cheap to build: S3 is asked at the first use.

    Requests that S3 fails are retried for about a minute (:mod:`gemix.io.s3`). Every method raises
    StoreError if the store stays down, StoreAccessError if it refuses; writing methods raise
    DiskFullError if a local disk has no space left.

    Args:
        url: a local path (relative paths are made absolute, ``~`` is the home directory) or an
            ``s3://`` URL, taken literally: ``%20`` is no space.

    Raises:
        DataError: for other URL schemes, or an S3 URL without a bucket or with credentials in it.
    """

    def __init__(self, url: str | os.PathLike[str]):
        text = os.fspath(url)
        if "://" in text and not text.startswith("s3://"):
            raise DataError(f"{text}: only local paths and s3:// URLs are supported")
        self.is_local = not text.startswith("s3://")
        self.url = os.path.abspath(os.path.expanduser(text)) if self.is_local else text.rstrip("/")
        self._bucket, self.root = ("", self.url) if self.is_local else bucket_and_path(self.url)

    @functools.cached_property
    def filesystem(self) -> pafs.FileSystem:
        """Arrow's file system, for libraries that take one; names in it are those of `path`."""
        return pafs.LocalFileSystem() if self.is_local else S3Bucket(self._bucket)

    @classmethod
    def of_file(cls, url: str) -> tuple[Store, str]:
        """Return the directory of a file, given by path or ``s3://`` URL, and its name in it."""
        folder, name = posixpath.split(url)
        return cls(folder or "."), name

    def __reduce__(self):
        return Store, (self.url,)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __truediv__(self, name: str) -> Store:
        return Store(f"{self.url}/{name}")

    def path(self, name: str) -> str:
        """Return the name as `self.filesystem` expects it."""
        return posixpath.join(self.root, name)

    def exists(self, name: str) -> bool:
        """Return whether a file (not a directory) of that name is there."""
        return self._info(name).type == pafs.FileType.File

    def size(self, name: str) -> int:
        """Return the file's size in bytes.

        Raises:
            DataError: if it is not there.
        """
        info = self._info(name)
        if info.type != pafs.FileType.File:
            raise DataError(f"{self.url}/{name}: cannot be read (no such file)")
        return info.size

    def list(self, recursive: bool = False) -> list[str]:
        """Return the sorted names of the files below, none for a missing directory.

        Unfinished writes are left out.
        """
        return sorted(self.file_versions(recursive))

    def file_versions(self, recursive: bool = False) -> dict[str, str]:
        """Return the files of :meth:`list` with their versions, which change with the content."""
        selector = pafs.FileSelector(self.root, allow_not_found=True, recursive=recursive)
        infos = self._do(lambda: self.filesystem.get_file_info(selector), "listed")
        return {
            posixpath.relpath(info.path, self.root): file_version(info.size, info.mtime_ns)
            for info in infos
            if info.type == pafs.FileType.File and ".writing-" not in info.path
        }

    def read_bytes(self, name: str, check_size: Callable[[int], None] = lambda size: None) -> bytes:
        """Return the whole file.

        Args:
            check_size: called with the size in bytes before anything is read; may raise.

        Raises:
            DataError: if it is not there or cannot be read.
        """

        def read() -> bytes:
            # one request; a stream sends one every few hundred KiB
            with self.filesystem.open_input_file(self.path(name)) as file:
                check_size(file.size())
                return file.read(file.size())

        return self._read(read, name)

    def read_head(self, name: str, count: int, compression: str | None = None) -> bytes:
        """Return the first `count` bytes, fewer if the file has fewer, without reading the rest.

        Args:
            count: bytes after decompression; no more than that is decompressed.
            compression: codec of the file, such as ``gzip``; None for none.

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
        """Return some columns of a Parquet file, without reading the others.

        Page checksums are verified where the file has them.

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
        """Write the file, whole or not at all; replace an older one."""
        target = self.path(name)
        if not self.is_local:

            def write() -> None:
                with self.filesystem.open_output_stream(target, compression=None) as stream:
                    stream.write(data)

            return self._do(write, "written", name)
        with _written_aside(target, data) as aside:
            os.replace(aside, target)

    def create(self, name: str, data: bytes) -> bool:
        """Write the file if there is none of that name, whole or not at all.

        Of several processes that create one file at once, one succeeds.

        Returns:
            Whether it was written. A file of the same bytes counts as written by this call, whose
            first attempt may have succeeded without an answer.
        """
        if not self.is_local:
            key = self.path(name).partition("/")[2]
            what = f"{self.url}/{name} cannot be written"
            return retry(lambda: create_object(self._bucket, key, data), what)
        try:
            with _written_aside(self.path(name), data) as aside:
                os.link(aside, self.path(name))
        except FileExistsError:
            return False
        return True

    def read_json(self, name: str) -> Any:
        """Return the parsed JSON file.

        Raises:
            DataError: if it is missing or not JSON.
        """
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise DataError(f"{self.url}/{name}: not valid JSON ({error})") from error

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as indented JSON; NaN and infinity are refused."""
        self.write_bytes(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

    def delete(self, name: str) -> None:
        """Delete the file if it is there."""

        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.delete_file(self.path(name))

        self._do(delete, "deleted", name)

    def clear(self, first: str) -> None:
        """Delete every file below, the file `first` before all others."""
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
        """Return the operation's result; retry it on S3."""
        if self.is_local:
            return operation()
        return retry(operation, f"{self.url}/{name}".rstrip("/") + f" cannot be {done}")


@contextlib.contextmanager
def _written_aside(target: str, data: bytes) -> Iterator[str]:
    """Write a temporary file beside `target`, flushed to the disk, for the block to rename.

    Raises:
        DiskFullError: if no space is left.
        StoreAccessError: if the directory cannot be written.
    """
    folder = os.path.dirname(target)
    aside = f"{target}.writing-{secrets.token_hex(4)}"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield aside
        _fsync_dir(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no space left on {folder}: {os.path.basename(target)} of {len(data)} bytes "
                f"cannot be written ({error.strerror}); make room and run the same command again"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise StoreAccessError(
                f"{folder}: {os.path.basename(target)} cannot be written ({error.strerror}); make "
                "the directory writable or choose another one"
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # renamed, or never made
            os.unlink(aside)


def _fsync_dir(folder: str) -> None:
    """Flush the names in a directory, lest a marker survive a crash that its files do not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_version(size: int, mtime_ns: int) -> str:
    """Return the version of a file: its size in bytes and the time of its last change."""
    return f"{size}-{mtime_ns}"


def open_output(url: str, marker: str, overwrite: bool) -> Store:
    """Return the store to write a result into; the caller writes `marker` last.

    A directory without the marker (new, or left by an interrupted run) is used as it is. A
    finished one is refused, or emptied with `overwrite`, its marker first.

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
