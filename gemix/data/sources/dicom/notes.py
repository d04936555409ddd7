"""Notes and errors about what a DICOM archive holds.

They count, and quote neither header values nor paths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from gemix.core.errors import DataError
from gemix.data.sources.dicom.slices import SliceTable
from gemix.data.sources.label_file import LabelFile


def check_patients(table: SliceTable, labelled: np.ndarray, labels: LabelFile) -> None:
    """Raise DataError if all series have one PatientID, as careless anonymisers write it."""
    # a label file by patient names one PatientID at most once: look at unlabelled slices too
    slices = labelled if labels.key == "series" else table.slices
    series = np.unique(slices["series"])
    if len(series) < 2 or not slices["has_patient"].all():
        return
    if len({table.patients[one] for one in series}) == 1:
        raise DataError(
            f"data.path: all {len(slices)} slices of {len(series)} series have one PatientID, so "
            "they cannot be split by patient; de-identify them with a PatientID of its own for "
            "each patient, or empty PatientID (dcmodify -m PatientID=), so that each study counts "
            "as a patient, and label them by the column series of data.labels"
        )


def check_classes(
    classes: Sequence[str], labels: LabelFile, notes: Sequence[str], reasons: Sequence[str]
) -> None:
    """Raise DataError unless slices of two or more classes are left.

    Args:
        classes: of the slices that are left.
        labels: as they were read.
        notes: of the slices.
        reasons: why files were set aside.
    """
    if len(classes) >= 2:
        return
    what = "no labelled axial CT slice"
    if classes:
        what = f"slices of class {classes[0]!r} alone"
    found = "; ".join([*notes, *count_reasons(reasons)])
    raise DataError(
        f"data.path: {what} ({found}); add DICOM files of two or more classes, or correct the "
        f"column {labels.key} of data.labels, which must hold "
        f"{'PatientID' if labels.key == 'patient' else 'SeriesInstanceUID'} as the files do"
    )


def count_reasons(reasons: Sequence[str]) -> list[str]:
    """Return a sentence for each reason why files were set aside, with their number."""
    counts = Counter(reasons)
    return [f"set aside {count} files: {reason}" for reason, count in sorted(counts.items())]


def describe_slices(
    table: SliceTable, labelled: np.ndarray, slices: np.ndarray, copies: int, labels: LabelFile
) -> Iterator[str]:
    """Yield sentences on what was found and left out.

    Args:
        table: all slices.
        labelled: those with a label, copies included.
        slices: those of them that are used.
        copies: how many copies were left out.
        labels: as they were read.
    """
    found = {table.keys[one] for one in np.unique(table.slices["series"])}
    unlabelled, absent = found - labels.labels.keys(), labels.labels.keys() - found
    nameless, burned = np.sum(~slices["has_patient"]), np.sum(slices["is_burned"])
    yield f"found {len(slices)} axial CT slices, labelled by {labels.key}"
    yield from (f"left out {count} {what}" for what, count in sorted(table.left_out.items()))
    if copies:
        yield f"left out {copies} copies of a slice (the same SOPInstanceUID and pixels)"
    if unlabelled:
        yield (
            f"left out {len(table.slices) - len(labelled)} slices whose {labels.key} "
            f"({len(unlabelled)} of them) has no label"
        )
    if absent:
        yield f"{len(absent)} keys in the column {labels.key} of data.labels have no slice"
    if nameless:
        yield f"{nameless} slices have no PatientID: their study stands for the patient"
    yield from _describe_placeholder(table, slices, labels)
    if burned:
        yield (
            f"{burned} slices may carry burned-in text (BurnedInAnnotation YES, or a secondary "
            "image that does not say NO): look at the contact sheet, which shows a few slices"
        )


def _describe_placeholder(
    table: SliceTable, slices: np.ndarray, labels: LabelFile
) -> Iterator[str]:
    """Yield a warning if most slices have one PatientID that has several classes."""
    counts, classes = Counter[str](), dict[str, set[str]]()
    named = slices[slices["has_patient"]]
    for one, count in zip(*np.unique(named["series"], return_counts=True), strict=True):
        counts[table.patients[one]] += int(count)
        classes.setdefault(table.patients[one], set()).add(labels.labels[table.keys[one]][0])
    patient, count = counts.most_common(1)[0] if counts else ("", 0)
    if 2 * count > len(slices) and len(classes[patient]) > 1:
        yield (
            f"{count} of {len(slices)} slices have one PatientID, of {len(classes[patient])} "
            "classes: they all go to one split; if it is a placeholder such as Anonymous, "
            "de-identify them with a PatientID of its own for each patient"
        )
