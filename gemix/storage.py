"""One view of a directory, on a local disk or in an S3 bucket.

A file appears whole or not at all: local files are written aside, flushed and renamed, S3 objects
appear when their upload ends. A *directory* counts as finished when its marker (a manifest, say)
is there; the marker is written last and removed first, which holds on S3, where a directory
cannot be renamed, just as on a disk.
"""

from __future__ import annotations

import json
import os
import posixpath
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gemix.errors import AlreadyFinishedError, DataError


class Store:
    """A directory at a local path or an ``s3://bucket/prefix`` URL.

    S3 credentials, region and endpoint come from the standard AWS variables and files
    (``AWS_ENDPOINT_URL`` included). Bytes are read and written as they are, whatever a name ends
    in: ``.gz`` is not unpacked. Picklable, and cheap to build.

    Args:
        url: a local path (relative paths are made absolute) or an ``s3://`` URL.

    Raises:
        DataError: for any other URL scheme.
    """

    def __init__(self, url: str | os.PathLike[str]):
        text = os.fspath(url)
        if "://" in text and not text.startswith("s3://"):
            raise DataError(f"{text}: only local paths and s3:// URLs are supported")
        self.is_local = not text.startswith("s3://")
        self.url = os.path.abspath(text) if self.is_local else text.rstrip("/")
        if self.is_local:
            self.filesystem: pafs.FileSystem = pafs.LocalFileSystem()
            self.root = self.url
        else:
            self.filesystem, self.root = pafs.FileSystem.from_uri(self.url)

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
        return self.filesystem.get_file_info(self.path(name)).type == pafs.FileType.File

    def list(self, recursive: bool = False) -> list[str]:
        """Names of the files below, sorted; unfinished writes and a missing directory are empty."""
        selector = pafs.FileSelector(self.root, allow_not_found=True, recursive=recursive)
        infos = self.filesystem.get_file_info(selector)
        names = [
            posixpath.relpath(i.path, self.root) for i in infos if i.type == pafs.FileType.File
        ]
        return sorted(name for name in names if ".writing-" not in name)

    def read_bytes(self, name: str) -> bytes:
        """The whole file.

        Raises:
            DataError: if it is not there or cannot be read.
        """
        try:
            with self.filesystem.open_input_stream(self.path(name), compression=None) as stream:
                return stream.read()
        except OSError as error:
            raise DataError(f"{self.url}/{name}: cannot be read ({error})") from error

    def read_columns(self, name: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a Parquet file; of the others nothing is read.

        Raises:
            DataError: if it is not there, damaged, or lacks a column.
        """
        try:
            with self.filesystem.open_input_file(self.path(name)) as file:
                table = pq.ParquetFile(file).read(columns=list(columns))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{self.url}/{name}: cannot be read ({error})") from error
        if missing := set(columns) - set(table.column_names):
            raise DataError(f"{self.url}/{name}: no column {', '.join(sorted(missing))}")
        return table

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes the file, whole or not at all; an older one is replaced."""
        target = self.path(name)
        if not self.is_local:
            with self.filesystem.open_output_stream(target, compression=None) as stream:
                stream.write(data)
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        aside = f"{target}.writing-{secrets.token_hex(4)}"
        try:
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
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
        if self.exists(name):
            self.filesystem.delete_file(self.path(name))

    def clear(self, first: str) -> None:
        """Removes every file below, the file `first` before all others."""
        self.delete(first)
        for name in self.list(recursive=True):
            self.delete(name)


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
