"""Predictions of a classifier on the test set, in a Parquet file ``<method>-seed<k>.parquet``."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemix.core.errors import DataError
from gemix.io.records import file_error
from gemix.io.storage import Store

PREDICTIONS = "predictions"  # the folder below the evaluation
_COLUMNS = ("source", "patient", "label", "probabilities", "predicted", "method", "seed")
_ROUNDING = 1e-5
_REMEDY = "run gemix evaluate --overwrite"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Predictions of one classifier, rows in the order of the test images.

    Attributes:
        method, seed: of the classifier.
        sources, patients: of the images, N each.
        labels: true classes, int64 [N].
        predicted: classes by the classifier's decision, int64 [N].
        probabilities: calibrated as the decision has it, float32 [N, K].
        uncalibrated: the softmax of the logits, float32 [N, K]; None in files of earlier versions.
    """

    method: str
    seed: int
    sources: tuple[str, ...]
    patients: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    uncalibrated: np.ndarray | None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the class that was predicted, float32 [N]."""
        return self.probabilities[np.arange(len(self)), self.predicted]


def write_predictions(store: Store, name: str, predictions: Predictions) -> None:
    """Write the predictions of the classifier `name` below an evaluation."""
    columns = {
        "source": predictions.sources,
        "patient": predictions.patients,
        "label": predictions.labels,
        "probabilities": _lists(predictions.probabilities),
        "predicted": predictions.predicted,
        "method": [predictions.method] * len(predictions),
        "seed": [predictions.seed] * len(predictions),
    }
    if predictions.uncalibrated is not None:
        columns["uncalibrated"] = _lists(predictions.uncalibrated)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    store.write_bytes(f"{PREDICTIONS}/{name}.parquet", sink.getvalue().to_pybytes())


def read_predictions(store: Store) -> tuple[Predictions, ...]:
    """Read the predictions of all classifiers below an evaluation, by name; none if there are none.

    Raises:
        DataError: naming the file, if one is damaged or lacks a column.
    """
    names = (store / PREDICTIONS).list()
    return tuple(_read(store, f"{PREDICTIONS}/{n}") for n in names if n.endswith(".parquet"))


def _read(store: Store, name: str) -> Predictions:
    data = store.read_bytes(name)
    try:
        table = pq.read_table(pa.BufferReader(data))
        if missing := [column for column in _COLUMNS if column not in table.column_names]:
            raise ValueError(f"no column {', '.join(missing)}")
        if not len(table):
            raise ValueError("no row")
        labels, predicted = (
            table[column].to_numpy().astype(np.int64) for column in ("label", "predicted")
        )
        probabilities = _matrix(table, "probabilities")
        classes = probabilities.shape[1]
        if min(labels.min(), predicted.min()) < 0 or max(labels.max(), predicted.max()) >= classes:
            raise ValueError(f"a class outside 0 to {classes - 1}")
        return Predictions(
            method=str(table["method"][0].as_py()),
            seed=int(table["seed"][0].as_py()),
            sources=tuple(table["source"].to_pylist()),
            patients=tuple(table["patient"].to_pylist()),
            labels=labels,
            predicted=predicted,
            probabilities=probabilities,
            uncalibrated=_matrix(table, "uncalibrated")
            if "uncalibrated" in table.column_names
            else None,
        )
    except (pa.ArrowException, ValueError, TypeError, DataError) as error:
        reason = " ".join(str(error).split())[:200]
        raise file_error(store, name, f"damaged ({reason})", _REMEDY) from error


def _lists(rows: np.ndarray) -> pa.Array:
    return pa.array(list(rows), pa.list_(pa.float32()))


def _matrix(table: pa.Table, column: str) -> np.ndarray:
    """Return a column of lists as float32 [N, K]; ValueError if it is none of probabilities."""
    rows = np.array(table[column].to_pylist(), np.float32)
    if (
        rows.ndim != 2
        or not np.isfinite(rows).all()
        or rows.min() < 0
        or rows.max() > 1 + _ROUNDING
    ):
        raise ValueError(f"{column}: not one probability a class and image")
    return rows
