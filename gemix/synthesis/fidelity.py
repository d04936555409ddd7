"""Label fidelity of a synthetic set, beside that of real images: ``fidelity.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import weights_of
from gemix.evaluation.label_fidelity.measure import LabelFidelity, LabelFidelityMeter, Proportion
from gemix.io.records import read_record
from gemix.io.storage import Store
from gemix.synthesis.teacher import TeacherRow

FIDELITY = "fidelity.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherView:
    """Label fidelity as one teacher measures it.

    Attributes:
        name: of the teacher.
        synthetic: of the set's images, against the labels asked for.
        real: of real validation images, against their classes: the ceiling.
    """

    name: str
    synthetic: LabelFidelity
    real: LabelFidelity


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetFidelity:
    """``fidelity.json``.

    Attributes:
        digest: of the set.
        teachers: the first one gave labels and rejected images, where that was asked for.
        same_class: share of images in which all teachers see most of the same class; None for one
            teacher.
        accepted: of the images drawn for each class asked for, those that were kept.
    """

    digest: str
    teachers: tuple[TeacherView, ...]
    same_class: Proportion | None
    accepted: Mapping[str, Proportion]

    @property
    def agreement(self) -> Proportion:
        """Agreement of the first teacher with the labels asked for."""
        return self.teachers[0].synthetic.agreement


def measure_set(
    store: Store,
    manifest: Manifest,
    teachers: Sequence[TeacherRow | TeacherView],
    drawn: np.ndarray,
) -> SetFidelity | None:
    """Return the label fidelity of the images of a finished set at which all teachers looked.

    No image is read, and one shard at a time. None if there is no such image.

    Args:
        teachers: those whose probabilities are in the shards, in their order.
        drawn: images drawn for each class asked for, int [K].

    Raises:
        DataError: if a shard is missing or damaged, or has no such columns.
    """
    classes = len(manifest.classes)
    meters = [LabelFidelityMeter(classes) for _ in teachers]
    same, rows, kept = 0, 0, np.zeros(classes, np.int64)
    for shard in manifest.shards:
        table = store.read_columns(shard.name, ["asked_label", "seen_labels"])
        asked = weights_of(table["asked_label"], classes)
        kept += np.bincount(asked.argmax(axis=1), minlength=classes)
        looks = pc.fill_null(pc.list_value_length(table["seen_labels"]), 0).to_numpy()
        is_seen = looks == len(teachers)
        asked, table = asked[is_seen], table.filter(pa.array(is_seen))
        seen = weights_of(table["seen_labels"], len(teachers), classes)
        for index, meter in enumerate(meters):
            meter.add(asked, seen[:, index])
        found = seen.argmax(axis=2)
        same += int((found == found[:, :1]).all(axis=1).sum())
        rows += len(found)
    if not rows:
        return None
    views = zip(teachers, meters, strict=True)
    return SetFidelity(
        digest=manifest.digest,
        teachers=tuple(
            TeacherView(name=one.name, synthetic=meter.result(), real=one.real)
            for one, meter in views
        ),
        same_class=Proportion.of(same, rows) if len(teachers) > 1 else None,
        accepted={
            name: Proportion.of(int(a), int(b))
            for name, a, b in zip(manifest.classes, kept, drawn, strict=True)
        },
    )


def read_fidelity(store: Store) -> SetFidelity | None:
    """Read ``fidelity.json`` of a set; None where labels were not checked.

    Raises:
        DataError: if it is damaged.
    """
    if not store.exists(FIDELITY):
        return None
    return read_record(store, FIDELITY, SetFidelity, "run gemix synthesize --overwrite")
