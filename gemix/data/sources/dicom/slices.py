"""The slices of a DICOM archive in a table, so that millions fit into memory."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from gemix.data.sources.dicom.header import INSTANCE_BYTES, Damaged, Found, SliceHeader
from gemix.data.sources.label_file import LabelFile

_BATCH = 256  # headers that are Python objects at a time
_SLICE = np.dtype(
    [
        ("file", np.int64),  # its place in the list of files
        ("run", np.int64),  # slices of one patient and series
        ("height", np.float64),  # mm, NaN if not known
        ("number", np.float64),
        ("instance", f"V{INSTANCE_BYTES}"),
        ("is_nameless", bool),
        ("is_burned", bool),
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SliceTable:
    """All axial CT slices, in tens of bytes each.

    Attributes:
        slices: a row of `_SLICE` each, in the order of the files; copies are among them.
        keys, patients, series: of each run of slices, which `slices` refers to.
        damaged: the place in the list of files of each that cannot be used, and why.
        left_out: counts of the other files, by what they are.
    """

    slices: np.ndarray
    keys: Sequence[str]
    patients: Sequence[str]
    series: Sequence[str]
    damaged: Sequence[tuple[int, str]]
    left_out: Counter[str]

    @classmethod
    def of(cls, found: Iterable[Found]) -> Self:
        """Sorts what was read, file by file."""
        left_out: Counter[str] = Counter()
        damaged: list[tuple[int, str]] = []
        runs: dict[tuple[str, str, str], int] = {}
        batches = [np.empty(0, _SLICE)]
        left = enumerate(found)
        while some := list(itertools.islice(left, _BATCH)):
            left_out.update(one for _, one in some if isinstance(one, str))
            damaged += [(number, one.reason) for number, one in some if isinstance(one, Damaged)]
            rows = [
                (
                    number,
                    # a careless export gives two patients one SeriesInstanceUID
                    runs.setdefault((one.key, one.patient, one.series), len(runs)),
                    np.nan if one.height is None else one.height,
                    one.number,
                    one.instance,
                    not one.has_patient,
                    one.is_burned,
                )
                for number, one in some
                if isinstance(one, SliceHeader)
            ]
            batches.append(np.array(rows, _SLICE))
        keys, patients, series = zip(*runs, strict=True) if runs else ((), (), ())
        return cls(
            slices=np.concatenate(batches),
            keys=keys,
            patients=patients,
            series=series,
            damaged=damaged,
            left_out=left_out,
        )

    def labelled(self, labels: LabelFile) -> np.ndarray:
        """Those of the slices that have a label, copies among them."""
        is_labelled = np.array([key in labels.labels for key in self.keys], dtype=bool)
        return self.slices[is_labelled[self.slices["run"]]]


def without_copies(slices: np.ndarray) -> np.ndarray:
    """The first file of each slice, which its SOPInstanceUID tells."""
    _, first = np.unique(slices["instance"], return_index=True)
    return slices[np.sort(first)]


def foot_to_head(slices: np.ndarray) -> np.ndarray:
    """Each run foot to head; by InstanceNumber where the height of any of its slices is unknown."""
    runs, heights = slices["run"], slices["height"]
    is_unknown = np.isin(runs, runs[np.isnan(heights)])
    heights = np.where(is_unknown, 0, heights)
    return np.lexsort((slices["instance"], slices["number"], heights, runs))
