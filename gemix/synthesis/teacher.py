"""Teachers: classifiers of real images that say which classes a synthetic image shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from gemix.classifier.bundle import Classifier
from gemix.classifier.predict import BATCH
from gemix.core.errors import CheckpointError, DataError
from gemix.data.leakage.provenance import (
    Provenance,
    write_provenance,
    write_withheld_provenance,
)
from gemix.evaluation.label_fidelity.measure import LabelFidelity
from gemix.io.records import read_record, write_record
from gemix.io.storage import Store

TEACHER = "teacher.json"  # marker of a directory of finished teachers


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherRow:
    """A teacher, a row of ``teacher.json``.

    Attributes:
        name: of its directory.
        checksum: of its weights.
        real: label fidelity on real validation images, which its training did not use.
    """

    name: str
    seed: int
    checksum: str
    real: LabelFidelity


@dataclasses.dataclass(frozen=True)
class Teachers:
    """Classifiers of one training set that differ in their seeds; the first one gives labels.

    Attributes:
        url: their directory.
        members: T of them; what the others see tells whether a label is one network's taste.
        rows: one a member.
    """

    url: str
    members: tuple[Classifier, ...]
    rows: tuple[TeacherRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def load(cls, url: str) -> Teachers:
        """Read the directory that ``gemix train-teacher`` wrote.

        Raises:
            CheckpointError: if they are not finished, or damaged.
        """
        store = Store(url)
        if not store.exists(TEACHER):
            raise CheckpointError(
                f"{store.url}: no finished teacher ({TEACHER} is not there); run gemix "
                "train-teacher, or set synthesis.labels=asked and synthesis.accept=all"
            )
        rows = read_teachers(store)
        members = tuple(Classifier.load(store / row.name) for row in rows)
        for member, row in zip(members, rows, strict=True):
            if member.checksum != row.checksum:
                raise CheckpointError(
                    f"{store.url}/{row.name}: not the weights that {TEACHER} names; run gemix "
                    "train-teacher --overwrite"
                )
        return cls(store.url, members, rows)

    @classmethod
    def load_if_there(
        cls, url: str, classes: Sequence[str], shape: tuple[int, int, int], *, required: bool
    ) -> Teachers | None:
        """Read and check the directory; return None if there is none and none is required.

        Raises:
            CheckpointError, DataError: as :meth:`load` and :meth:`check` raise them.
        """
        if not required and not Store(url).exists(TEACHER):
            return None
        teachers = cls.load(url)
        teachers.check(classes, shape)
        return teachers

    def check(self, classes: Sequence[str], shape: tuple[int, int, int]) -> None:
        """Check that they know images of these classes and this shape [C, H, W].

        Raises:
            DataError: if they do not.
        """
        spec = self.members[0].spec
        ours = (self.members[0].classes, (spec.channels, spec.resolution, spec.resolution))
        if ours != (tuple(classes), shape):
            raise DataError(
                f"the teacher in {self.url} knows the classes {list(ours[0])} in images of "
                f"{list(ours[1])}, the generator makes {list(classes)} of {list(shape)}; run gemix "
                "train-teacher on the generator's training images"
            )

    @property
    def weak_classes(self) -> tuple[str, ...]:
        """Classes, with rates, that the first one misses in more than half of the real images.

        By the upper end of the 95% interval of what it gets right of the validation images of a
        class. Sets that it labels have few images of them.
        """
        pairs = zip(self.members[0].classes, self.rows[0].real.agreement_by_class, strict=True)
        return tuple(
            f"{name} (right on {of.value:.0%} of {of.images}, at most {of.high:.0%})"
            for name, of in pairs
            if of.high is not None and of.high < 0.5
        )

    def probabilities(self, images: np.ndarray, which: slice = slice(None)) -> np.ndarray:
        """Return what teachers see in each image, whatever other images are given.

        Args:
            images: uint8 [N, C, H, W].
            which: of the members; all by default.

        Returns:
            float32 [N, T, K] of T members, rows sum to 1.
        """
        # a last batch is filled up: rounding may depend on the shape of a batch
        missing = -len(images) % BATCH
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        members = self.members[which]
        seen = np.empty((len(images), len(members), len(self.members[0].classes)), np.float32)
        for index, one in enumerate(members):
            seen[:, index] = one.predict(filled)[: len(images)]
        return seen


def read_teachers(store: Store) -> tuple[TeacherRow, ...]:
    """Read ``teacher.json``.

    Raises:
        DataError: if it is missing or damaged.
    """
    remedy = "run gemix train-teacher --overwrite"
    return read_record(store, TEACHER, tuple[TeacherRow, ...], remedy)


def copy_teachers(teachers: Teachers, out: Store, *, for_others: bool = False) -> None:
    """Write teachers and the record of what they learned from into another directory.

    Args:
        for_others: whether to write a record that names nobody in its place.
    """
    if for_others:
        write_withheld_provenance(out, "the teacher")
    else:
        write_provenance(out, [], [Provenance(Store(teachers.url), "the teacher")])
    for row, member in zip(teachers.rows, teachers.members, strict=True):
        member.save(out / row.name)
    write_record(out, TEACHER, teachers.rows)
