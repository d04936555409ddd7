"""Predictions as files: what is written is read, and damage is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemix.core.errors import DataError
from gemix.io.predictions import Predictions, read_predictions, write_predictions
from gemix.io.storage import Store

FOUND = Predictions(
    method="softmax",
    seed=3,
    sources=("a.png", "b.png"),
    patients=("p", "q"),
    labels=np.array([0, 1]),
    predicted=np.array([0, 0]),
    probabilities=np.array([[0.9, 0.1], [0.6, 0.4]], np.float32),
    uncalibrated=np.array([[1.0, 0.0], [0.7, 0.3]], np.float32),
)
NAME = "predictions/softmax-seed3.parquet"


def test_what_is_written_is_read(tmp_path):
    store = Store(tmp_path)
    assert read_predictions(store) == ()
    write_predictions(store, "softmax-seed3", FOUND)
    [found] = read_predictions(store)
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(FOUND, field.name))
    np.testing.assert_array_equal(found.confidence, np.array([0.9, 0.6], np.float32))


def test_a_file_of_an_earlier_version_has_no_uncalibrated_probabilities(tmp_path):
    write_predictions(
        Store(tmp_path), "softmax-seed3", dataclasses.replace(FOUND, uncalibrated=None)
    )
    assert read_predictions(Store(tmp_path))[0].uncalibrated is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop_columns(["label"]), "no column label"),
        (lambda table: table.slice(0, 0), "no row"),
        (lambda table: _with(table, "predicted", pa.array([0, 2])), "a class outside 0 to 1"),
        (lambda table: _with(table, "probabilities", pa.array([[0.5], [1.5]])), "probabilities"),
        (lambda table: _with(table, "probabilities", pa.array([[0.5], [0.5, 0.5]])), "shape"),
        (lambda table: _with(table, "label", pa.array(["a", "b"])), "invalid"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change, words):
    write_predictions(Store(tmp_path), "softmax-seed3", FOUND)
    pq.write_table(change(pq.read_table(tmp_path / NAME)), tmp_path / NAME)
    with pytest.raises(DataError, match=rf"{NAME}: damaged .*{words}.*gemix evaluate") as caught:
        read_predictions(Store(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    Store(tmp_path).write_bytes(NAME, b"nothing")
    with pytest.raises(DataError, match=NAME):
        read_predictions(Store(tmp_path))


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)
