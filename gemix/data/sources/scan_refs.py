"""References to labelled scans, kept as Arrow columns: tens of bytes a scan."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, overload

import numpy as np
import pyarrow as pa

from gemix.data.scan import Box

_BATCH = 1024  # items that are Python objects at a time


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScanRef:
    """Reference to one labelled scan.

    Attributes:
        key: unique in its source; the path below the source's root for files. It is written to
            shards and reports, so a source whose paths may name patients generates one.
        class_index: 0 to K - 1.
        group: the patient, or None where patients are not known.
        split: the split that the source gives it, or None.
        box: the part to keep, or None to crop to the body.
        location: the file that `load` reads, if that is not the key; scans of one file share it.
            It is never written anywhere.
        stamp: changes when the file does; None where there is no file.
    """

    key: str
    class_index: int
    group: str | None = None
    split: str | None = None
    box: Box | None = None
    location: str | None = None
    stamp: str | None = None


SCAN_REF_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "class_index": pa.int32(),
        "group": pa.string(),
        "split": pa.string(),
        "box": pa.list_(pa.int32()),
        "location": pa.string(),
        "stamp": pa.string(),
    }
)


class ScanRefs(Sequence[ScanRef]):
    """An immutable sequence of :class:`ScanRef`, kept as Arrow columns.

    Picklable; a slice is again such a sequence and shares the memory.

    Attributes:
        table: the columns, named as the attributes of :class:`ScanRef`.
    """

    def __init__(self, table: pa.Table):
        self.table = table

    @classmethod
    def of(cls, items: Iterable[ScanRef]) -> Self:
        """Collect the items in the order given, 1024 at a time."""
        left = iter(items)
        batches = []
        while some := list(itertools.islice(left, _BATCH)):
            columns = {
                name: [getattr(item, name) for item in some] for name in SCAN_REF_SCHEMA.names
            }
            batches.append(pa.RecordBatch.from_pydict(columns, schema=SCAN_REF_SCHEMA))
        return cls(pa.Table.from_batches(batches, schema=SCAN_REF_SCHEMA))

    def take(self, rows: np.ndarray) -> Self:
        """Return the items of these rows (integers or a boolean mask), in their order."""
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        return type(self)(self.table.take(pa.array(rows, pa.int64())))

    @overload
    def __getitem__(self, index: int) -> ScanRef: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            return type(self)(self.table.slice(start, max(0, stop - start)))
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        return next(iter(self[index % len(self) : index % len(self) + 1]))

    def __len__(self) -> int:
        return self.table.num_rows

    def __iter__(self) -> Iterator[ScanRef]:
        for batch in self.table.to_batches(max_chunksize=_BATCH):
            columns = batch.to_pydict()
            columns["box"] = [box and tuple(box) for box in columns["box"]]
            for values in zip(*columns.values(), strict=True):
                yield ScanRef(**dict(zip(columns, values, strict=True)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScanRefs) and self.table.equals(other.table)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ScanRefs({len(self)})"

    def __reduce__(self):
        # Arrow would pickle all of the memory that a slice points into
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, SCAN_REF_SCHEMA) as writer:
            writer.write_table(self.table)
        return _unpickle, (sink.getvalue().to_pybytes(),)


def _unpickle(data: bytes) -> ScanRefs:
    return ScanRefs(pa.ipc.open_stream(data).read_all())
