"""Rates in the layouts of the source paper's two tables, so that they can be put beside them.

Table 1 has two methods a row, the paper's CGAN against its own, with accuracy, F1, precision and
recall; Table 2 one method a row, with accuracy, macro-F1, precision, recall, F2 and the
false-negative rate. All but accuracy are macro averages, as everywhere in gemix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

_BOTH = (
    ("accuracy", "accuracy"),
    ("macro_f1", "macro-F1"),
    ("macro_precision", "precision"),
    ("macro_recall", "recall"),
)
_SECOND = (*_BOTH, ("macro_f2", "F2"), ("fnr", "FNR"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedMethod:
    """A method's rates on a test set, by name; None for one that cannot be computed.

    Attributes:
        classifier: what was trained, such as ``resnet10t, 25%``.
    """

    classifier: str
    method: str
    rates: Mapping[str, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text: the first two columns are names, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def table_1(rated: Sequence[RatedMethod], baseline: str) -> Table:
    """Return a row for each classifier and method: the baseline's rates, then the method's.

    Classifiers without the baseline are left out.
    """
    of_baseline = {one.classifier: one for one in rated if one.method == baseline}
    titles = [title for _, title in _BOTH]
    return Table(
        title=f"Table 1: {baseline} against another method",
        header=(
            *("classifier", "method"),
            *(f"{baseline}: {title}" for title in titles),
            *(f"method: {title}" for title in titles),
        ),
        rows=tuple(
            (
                *(one.classifier, one.method),
                *_cells(of_baseline[one.classifier], _BOTH),
                *_cells(one, _BOTH),
            )
            for one in rated
            if one.method != baseline and one.classifier in of_baseline
        ),
    )


def table_2(rated: Sequence[RatedMethod]) -> Table:
    """Return a row for each classifier and method."""
    return Table(
        title="Table 2: one method a row",
        header=("classifier", "method", *(title for _, title in _SECOND)),
        rows=tuple((one.classifier, one.method, *_cells(one, _SECOND)) for one in rated),
    )


def classifier_title(model: str, fraction: float) -> str:
    """Return the name of a classifier that was trained on a share of the training patients."""
    return model if fraction == 1 else f"{model}, {fraction:.0%}"


def _cells(one: RatedMethod, columns: Sequence[tuple[str, str]]) -> list[str]:
    values = (one.rates.get(key) for key, _ in columns)
    return ["–" if value is None else f"{value:.3f}" for value in values]
