"""What a network has learned from, kept beside it: so that nobody tests with what it has seen.

It goes on from network to network and from a generator to its images: a network that started from
another one, or that learned from another one's images, has seen what that one has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from gemix.core.errors import DataError
from gemix.data.leakage.overlap import Split
from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store

SEEN = "seen.parquet"

SCHEMA = pa.schema(
    {
        "group": pa.string(),
        "checksum": pa.string(),  # as in shards
        "dataset": pa.string(),  # content digest of the split
    }
)
_UNKNOWN = b"unknown"  # in the file's metadata: a JSON list of what is not on record
_ROWS = 2**17  # of a row group; one is in memory at a time


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What the network, or the generator of the images, in a directory has learned from.

    Args:
        store: the directory.
        network: its name for messages: "the generator".
    """

    store: Store
    network: str

    @property
    def name(self) -> str:
        """For messages."""
        return f"the training images of {self.network} in {self.store.url}"

    @property
    def url(self) -> None:
        """Not known: the images may be gone."""
        return None

    def __iter__(self) -> Iterator[pa.Table]:
        """Tables of `SCHEMA`; none where there is no record.

        Raises:
            DataError: if the file is damaged.
        """
        with self._open() as file:
            for group in range(file.num_row_groups if file else 0):
                yield file.read_row_group(group)

    @property
    def unknown(self) -> tuple[str, ...]:
        """What was learned from that is not on record, in words; empty where all is known.

        Raises:
            DataError: if the file is damaged.
        """
        with self._open() as file:
            if file is None:
                return (self.name,)
            return tuple(json.loads(file.schema_arrow.metadata[_UNKNOWN]))

    @contextlib.contextmanager
    def _open(self) -> Iterator[pq.ParquetFile | None]:
        if not self.store.exists(SEEN):
            yield None
            return
        raw = pa.BufferReader(self.store.read_bytes(SEEN))
        try:
            file = pq.ParquetFile(raw, page_checksum_verification=True)
            schema = file.schema_arrow
            if not schema.equals(SCHEMA) or _UNKNOWN not in (schema.metadata or {}):
                raise pa.ArrowInvalid(f"not of this schema: columns {schema.names}")
            yield file
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(
                f"{self.store.url}/{SEEN}: cannot be read ({error}); restore it from a copy, or "
                f"make {self.network} again with --overwrite"
            ) from error


def write_provenance(store: Store, own: Iterable[Split], before: Iterable[Provenance] = ()) -> None:
    """Writes ``seen.parquet`` into the directory of a network, or of a generator's images.

    Args:
        own: what it learns from.
        before: of the networks that it starts from, or whose images it learns from.
    """
    before = list(before)
    unknown = list(dict.fromkeys(name for seen in before for name in seen.unknown))
    schema = SCHEMA.with_metadata({_UNKNOWN: json.dumps(unknown).encode()})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=["group", "dataset"],
        write_page_checksum=True,
    ) as writer:
        done: set[str] = set()  # what all networks of a chain have seen is kept once
        for tables in (*before, *map(_rows, own)):
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
    store.write_bytes(SEEN, sink.getvalue().to_pybytes())


def _rows(split: Split) -> Iterator[pa.Table]:
    """The tables of a split with the digest of its content."""
    digest = Manifest.load(split.store).content_digest(split.split)
    for table in split:
        dataset = pa.array([digest] * len(table), pa.string())
        yield table.select(["group", "checksum"]).append_column("dataset", dataset)
