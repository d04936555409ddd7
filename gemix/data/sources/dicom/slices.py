"""The slices of a DICOM archive as a table, so that millions fit into memory."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from gemix.data.sources.dicom.header import (
    INSTANCE_BYTES,
    HeaderResult,
    SliceHeader,
    UnusableFile,
)
from gemix.data.sources.label_file import LabelFile

_BATCH = 256  # headers that are Python objects at a time
_SLICE = np.dtype(
    [
        ("file", np.int64),  # index into the list of files
        ("series", np.int64),  # index into `SliceTable.series`
        ("height", np.float64),  # mm, NaN if not known
        ("number", np.float64),
        ("instance", f"V{INSTANCE_BYTES}"),
        ("has_patient", bool),
        ("is_burned", bool),
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SliceTable:
    """All axial CT slices, in tens of bytes each.

    Attributes:
        slices: a row of `_SLICE` each, in the order of the files, copies included.
        keys, patients, series: label key, PatientID and SeriesInstanceUID of each series that
            `slices` refers to. A UID that two patients share counts as two series.
        unusable: index into the list of files, and reason, of each file that cannot be used.
        left_out: counts of the other files, by description.
    """

    slices: np.ndarray
    keys: Sequence[str]
    patients: Sequence[str]
    series: Sequence[str]
    unusable: Sequence[tuple[int, str]]
    left_out: Counter[str]

    @classmethod
    def from_headers(cls, headers: Iterable[HeaderResult]) -> Self:
        """Collect what :func:`read_headers` returns for each file."""
        left_out: Counter[str] = Counter()
        unusable: list[tuple[int, str]] = []
        all_series: dict[tuple[str, str, str], int] = {}
        batches = [np.empty(0, _SLICE)]
        numbered = enumerate(headers)
        while batch := list(itertools.islice(numbered, _BATCH)):
            left_out.update(one for _, one in batch if isinstance(one, str))
            unusable += [(file, one.reason) for file, one in batch if isinstance(one, UnusableFile)]
            rows = [
                (
                    file,
                    all_series.setdefault((one.key, one.patient, one.series), len(all_series)),
                    np.nan if one.height is None else one.height,
                    one.number,
                    one.instance,
                    one.has_patient,
                    one.is_burned,
                )
                for file, one in batch
                if isinstance(one, SliceHeader)
            ]
            batches.append(np.array(rows, _SLICE))
        keys, patients, series = zip(*all_series, strict=True) if all_series else ((), (), ())
        return cls(
            slices=np.concatenate(batches),
            keys=keys,
            patients=patients,
            series=series,
            unusable=unusable,
            left_out=left_out,
        )

    def labelled(self, labels: LabelFile) -> np.ndarray:
        """Return the slices that have a label, copies included."""
        is_labelled = np.array([key in labels.labels for key in self.keys], dtype=bool)
        return self.slices[is_labelled[self.slices["series"]]]


def find_repeated(slices: np.ndarray) -> list[np.ndarray]:
    """Return groups of rows, two or more, that share SOPInstanceUID within a series."""
    order = np.lexsort((slices["instance"], slices["series"]))
    by_instance = slices[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (by_instance["instance"][1:] != by_instance["instance"][:-1]) | (
        by_instance["series"][1:] != by_instance["series"][:-1]
    )
    groups = np.split(order, np.flatnonzero(is_first)[1:]) if len(order) else []
    return [group for group in groups if len(group) > 1]


def order_foot_to_head(slices: np.ndarray) -> np.ndarray:
    """Return the order of rows series by series, foot to head.

    A series in which the height of any slice is unknown is ordered by InstanceNumber.
    """
    series, heights = slices["series"], slices["height"]
    is_unknown = np.isin(series, series[np.isnan(heights)])
    heights = np.where(is_unknown, 0, heights)
    return np.lexsort((slices["instance"], slices["number"], heights, series))
