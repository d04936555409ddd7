"""Reliability diagrams, drawn from the saved predictions."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.special import softmax

from gemix.core.errors import DataError
from gemix.evaluation.classification.probability_rates import expected_calibration_error
from gemix.io.predictions import Predictions, write_predictions
from gemix.io.storage import Store
from gemix.report.content import gather
from gemix.report.page import render


def predictions(method: str, seed: int, *, images: int = 300, scaled: bool = True) -> Predictions:
    """An overconfident classifier, and what temperature scaling makes of it."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.standard_normal((images, 3))
    truth = softmax(logits, axis=1)
    said = softmax(2.5 * logits, axis=1).astype(np.float32)
    return Predictions(
        method=method,
        seed=seed,
        sources=tuple(f"scans/{row}.png" for row in range(images)),
        patients=tuple(f"p{row // 3}" for row in range(images)),
        labels=np.array([rng.choice(3, p=row) for row in truth]),
        predicted=truth.argmax(axis=1),
        probabilities=truth.astype(np.float32) if scaled else said,
        uncalibrated=said,
    )


def section(page: str) -> str:
    return page[page.index("<h3>Probabilities</h3>") : page.index("<h3>Confusion matrices</h3>")]


def test_a_diagram_for_each_method_with_and_without_scaling(finished, config):
    assert "Reliability diagrams" not in render(gather(finished, config))
    store = Store(finished.evaluation)
    by_seed = [predictions("real", seed) for seed in range(2)]
    for one in by_seed:
        write_predictions(store, f"real-seed{one.seed}", one)
    write_predictions(store, "onehot-seed0", predictions("onehot", 0, scaled=False))
    found = section(render(gather(finished, config)))
    assert re.findall(r'aria-label="(.*?)"', found) == [
        "Reliability: real only",
        "Reliability: real + onehot",
    ]
    for words, name in (("scaled", "probabilities"), ("without scaling", "uncalibrated")):
        errors = [expected_calibration_error(one.labels, getattr(one, name)) for one in by_seed]
        assert f"{words}, ECE {np.mean(errors):.3f}" in found
    # the temperature is 1 where nothing was scaled: one curve
    assert found.count("without scaling, ECE") == 1
    counts = np.histogram(
        np.concatenate([one.probabilities.max(axis=1) for one in by_seed]), np.arange(16) / 15
    )[0]
    shown = re.findall(r">(\d+)</text>", found[: found.index("real + onehot")])
    assert all(str(count) in shown for count in counts if count)


def test_damaged_predictions_are_named(finished, config):
    Store(finished.evaluation).write_bytes("predictions/real-seed0.parquet", b"PAR1")
    with pytest.raises(DataError, match=r"predictions/real-seed0\.parquet: damaged"):
        gather(finished, config)
