"""Provenance: which images a network has learned from, recorded beside it.

A record is passed on from network to network and from a generator to its images: a network that
started from another one, or that learned from another one's images, has learned from what that one
has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemix.core.errors import DataError
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.perceptual_hash import THUMBNAIL_BYTES
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.io.storage import Store

PROVENANCE = "seen.parquet"
PROVENANCE_SHA256 = "provenance_sha256"
"""Key of a manifest's origin: SHA-256 of the record that belongs to the set."""

PROVENANCE_SCHEMA = pa.schema(
    {
        "group": pa.string(),
        "checksum": pa.string(),  # as in shards
        "dataset": pa.string(),  # content digest of the split
        "thumbnail": pa.binary(THUMBNAIL_BYTES),  # null in records of earlier versions
    }
)
_FIRST_SCHEMA = pa.schema([field for field in PROVENANCE_SCHEMA if field.name != "thumbnail"])
_UNKNOWN = b"unknown"  # in the file's metadata: a JSON list of what is not on record
_ROWS = 2**17  # of a row group; one is in memory at a time


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Training images of the network, or of the generator of the images, in a directory.

    Args:
        store: the directory.
        network: its name for messages: "the generator".
    """

    store: Store
    network: str

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"the training images of {self.network} in {self.store.url}"

    @property
    def url(self) -> None:
        """Not known: the images may be gone."""
        return None

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield tables of `PROVENANCE_SCHEMA`; none where there is no record.

        Raises:
            DataError: if the file is damaged, or is not the one that the set's manifest names.
        """
        return self._tables(PROVENANCE_SCHEMA.names)

    def thumbnails(self) -> Iterator[np.ndarray]:
        """Yield the thumbnails on record, uint8 [n, 256]."""
        for table in self._tables(["thumbnail"]):
            data = b"".join(table["thumbnail"].drop_null().to_pylist())
            yield np.frombuffer(data, np.uint8).reshape(-1, THUMBNAIL_BYTES)

    @property
    def without_thumbnails(self) -> int:
        """Number of images on record without a thumbnail."""
        return sum(table["thumbnail"].null_count for table in self._tables(["thumbnail"]))

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of training images that are not on record; empty where all are.

        Raises:
            DataError: as iteration does.
        """
        with self._open() as file:
            if file is None:
                return (self.name,)
            return tuple(json.loads(file.schema_arrow.metadata[_UNKNOWN]))

    def _tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield these columns of `PROVENANCE_SCHEMA`, null where an earlier version has none."""
        with self._open() as file:
            for group in range(file.num_row_groups if file else 0):
                table = file.read_row_group(group, columns)
                rows = file.metadata.row_group(group).num_rows
                empty = pa.nulls(rows, PROVENANCE_SCHEMA.field("thumbnail").type)
                given = {n: table[n] if n in table.column_names else empty for n in columns}
                yield pa.table(given)

    @contextlib.contextmanager
    def _open(self) -> Iterator[pq.ParquetFile | None]:
        where, expected = f"{self.store.url}/{PROVENANCE}", self._expected_sha256()
        remedy = f"restore it from a copy, or make {self.network} again with --overwrite"
        if not self.store.exists(PROVENANCE):
            if expected:
                raise DataError(f"{where}: removed, but {MANIFEST} names it; {remedy}")
            yield None
            return
        data = self.store.read_bytes(PROVENANCE)
        try:
            file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            schema = file.schema_arrow
            is_known = schema.equals(PROVENANCE_SCHEMA) or schema.equals(_FIRST_SCHEMA)
            if not is_known or _UNKNOWN not in (schema.metadata or {}):
                raise pa.ArrowInvalid(f"not of this schema: columns {schema.names}")
            if expected and hashlib.sha256(data).hexdigest() != expected:
                raise pa.ArrowInvalid(f"its SHA-256 is not the one in {MANIFEST}")
            yield file
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{where}: cannot be read ({error}); {remedy}") from error

    def _expected_sha256(self) -> str | None:
        """Return the SHA-256 that the manifest of a synthetic set gives, if there is one."""
        if not self.store.exists(MANIFEST):
            return None
        return Manifest.load(self.store).origin.get(PROVENANCE_SHA256)


def write_provenance(store: Store, own: Iterable[Split], before: Iterable[Provenance] = ()) -> str:
    """Write ``seen.parquet`` into the directory of a network, or of a generator's images.

    Args:
        own: what it learns from.
        before: of the networks that it starts from, or whose images it learns from.

    Returns:
        The file's SHA-256, for the manifest of a set of images (`PROVENANCE_SHA256`).
    """
    before = list(before)
    unknown = list(dict.fromkeys(name for one in before for name in one.unknown))
    return _write(store, [*map(_rows, own), *before], unknown)


def _write(store: Store, sources: Iterable[Iterable[pa.Table]], unknown: Sequence[str]) -> str:
    """Write a record of tables and of what is not on record; return its SHA-256."""
    schema = PROVENANCE_SCHEMA.with_metadata({_UNKNOWN: json.dumps(list(unknown)).encode()})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=["group", "dataset"],
        write_page_checksum=True,
    ) as writer:
        done: set[str] = set()  # a data set that several networks learned from is recorded once
        for tables in sources:
            datasets: set[str] = set()
            for table in tables:
                present = set(table["dataset"].unique().to_pylist())
                datasets |= present
                if present & done:
                    new = [name not in done for name in table["dataset"].to_pylist()]
                    table = table.filter(pa.array(new, pa.bool_()))
                if len(table):
                    writer.write_table(table.cast(schema), row_group_size=_ROWS)
            done |= datasets
    data = sink.getvalue().to_pybytes()
    store.write_bytes(PROVENANCE, data)
    return hashlib.sha256(data).hexdigest()


def write_withheld_provenance(store: Store, network: str) -> str:
    """Write a ``seen.parquet`` that names nobody, beside what is handed on to others.

    Patients, checksums and thumbnails stay with their owner, so nobody else can tell what a test
    set shares with them: it counts as not on record.

    Args:
        network: what learned from them: "the generator of the softmax images".

    Returns:
        As :func:`write_provenance`.
    """
    return _write(store, [], [f"the training images of {network}, which its owner keeps"])


def _rows(split: Split) -> Iterator[pa.Table]:
    """Yield tables of `PROVENANCE_SCHEMA`, a shard at a time."""
    digest = Manifest.load(split.store).content_digest(split.split)
    for table, small in zip(split, split.thumbnails(), strict=True):
        yield pa.table(
            {
                "group": table["group"],
                "checksum": table["checksum"],
                "dataset": pa.array([digest] * len(table), pa.string()),
                "thumbnail": pa.array([row.tobytes() for row in small], pa.binary(THUMBNAIL_BYTES)),
            },
            schema=PROVENANCE_SCHEMA,
        )
