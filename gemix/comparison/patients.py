"""Draws of training patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemix.core.errors import DataError
from gemix.core.rng import Stream, permutation


def draw_patients(
    labels: np.ndarray,
    groups: Sequence[str],
    *,
    fraction: float,
    draw: int,
    seed: int,
    classes: Sequence[str],
) -> np.ndarray:
    """Return the rows of a draw of patients of each class, ascending, int64 [n].

    The patients of a smaller fraction are among those of a larger one of the same draw.

    Args:
        labels: int [N]; a patient's class is that of most of its images.
        groups: N keys of patients.
        fraction: of the patients of each class, rounded up, above 0 to 1.
        draw: number of the draw, from 0.
        classes: names, for messages.

    Raises:
        DataError: for a class without patients.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    votes = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(votes, (group, labels), 1)
    of_patient, chosen = votes.argmax(axis=1), np.zeros(len(names), bool)
    for index, name in enumerate(classes):
        patients = np.flatnonzero(of_patient == index)
        if not len(patients):
            raise DataError(f"class {name}: no training patient; add scans of that class")
        count = int(np.ceil(fraction * len(patients) - 1e-9))
        order = permutation(seed, Stream.PATIENT_DRAW, len(patients), step=draw * 1000 + index)
        chosen[patients[order[:count]]] = True
    return np.flatnonzero(chosen[group])
