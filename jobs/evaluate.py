"""Tests every classifier once, compares them with honest intervals, and registers the best."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from gemix.classifier.bundle import Classifier
from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.core.progress import Progress
from gemix.data.image_set import ImageSet
from gemix.data.leakage.provenance import Provenance
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.bootstrap import Comparison, compare
from gemix.evaluation.classification.plots import confusion_png
from gemix.evaluation.classification.rates import RATES, class_rates, normal_class
from gemix.io.storage import Store
from gemix.io.workspace import Layout
from gemix.steps.outputs import open_step
from gemix.steps.overlap import enforce_no_overlap, real_splits
from gemix.tracking import mlflow_run as tracking
from gemix.tracking.mlflow_run import Run
from jobs._runtime.command import Command, Request
from jobs._runtime.ray_cluster import connect, worker_resources
from jobs.train_classifier import CLASSIFIERS

EVALUATION = "evaluation.json"


def evaluate(config: PipelineConfig, layout: Layout, *, overwrite: bool = False) -> dict[str, Any]:
    """Predicts the test set with every classifier of ``layout.classifiers``.

    The classifier that is registered is the one of the best *validation* macro-F2: the test set
    chooses nothing.

    Returns:
        What ``evaluation.json`` holds: `results`, one mapping a method, with means over its seeds;
        `best`, the method of the registered classifier; `best_classifier`; `registered_model`,
        its name and version; `test`, what it was tested on; `overlap`, what the test set shares
        with that which classifiers and generators learned from, two empty lists if nothing.

    Raises:
        DataError: if the classifiers are not finished, the test set cannot tell them apart, or
            they or their generators learned from it and ``data.allow_overlap`` is not set.
    """
    listing = _listing(layout)
    seen = Provenance(Store(layout.classifiers), "the classifiers")
    overlap = enforce_no_overlap("evaluate", config, [(seen, *real_splits(layout, "test"))])
    test = read_images([layout.data], "test")
    normal = normal_class(test.classes, config.data.normal_class)
    connect()
    store = open_step(layout.evaluation, EVALUATION, config, overwrite)
    with tracking.start_run(config, layout.workdir, "evaluate") as run:
        run.set_tags(overlap.tags)
        run.log_dataset(test.digest, "real", "test")
        predictions = _predict_all(config, layout, listing, test)
        compared = compare(
            test.labels, predictions, test.groups, classes=len(test.classes), normal=normal
        )
        results = [
            _result(method, found, len(predictions[method]), test.classes)
            for method, found in compared.items()
        ]
        best = max(listing, key=lambda row: (row["val_macro_f2"], -row["val_loss"]))
        evaluation = {
            "results": results,
            "best": best["method"],
            "best_classifier": best,
            "registered_model": _register(config, layout, best, run),
            "test": {
                "images": len(test),
                "groups": len(set(test.groups)),
                "classes": list(test.classes),
                "normal_class": None if normal is None else test.classes[normal],
                "digest": test.digest,
            },
            "overlap": overlap.to_json(),
        }
        _log(run, evaluation, compared, test.classes)
        store.write_json(EVALUATION, evaluation)
    return evaluation


def _listing(layout: Layout) -> list[dict[str, Any]]:
    store = Store(layout.classifiers)
    if not store.exists(CLASSIFIERS):
        raise DataError(
            f"{store.url}/{CLASSIFIERS}: not there, so the classifiers are not finished; run "
            "gemix train-classifier"
        )
    return store.read_json(CLASSIFIERS)


def _predict_all(
    config: PipelineConfig, layout: Layout, listing: Sequence[dict[str, Any]], test: ImageSet
) -> dict[str, np.ndarray]:
    """Predicted classes, int64 [seeds, N] of each method; one Ray task a classifier."""
    resources = worker_resources(config.compute)
    task = ray.remote(_predict).options(num_cpus=resources["CPU"], num_gpus=resources.get("GPU"))
    shared = ray.put(test)
    pending = [
        task.remote(layout, row["name"], shared, config.compute.cpus_per_worker) for row in listing
    ]
    order = {reference: row for reference, row in zip(pending, listing, strict=True)}
    found: dict[str, dict[int, np.ndarray]] = {row["method"]: {} for row in listing}
    with Progress("evaluate", len(pending), "classifiers") as progress:
        while pending:
            (done,), pending = ray.wait(pending)
            row = order[done]
            found[row["method"]][row["seed"]] = ray.get(done)
            progress.update(note=row["name"])
    return {
        method: np.stack([by_seed[seed] for seed in sorted(by_seed)])
        for method, by_seed in found.items()
    }


def _predict(layout: Layout, name: str, test: ImageSet, threads: int) -> np.ndarray:
    """Writes one classifier's predictions; returns the predicted classes, int64 [N]."""
    torch.set_num_threads(threads)
    classifier = Classifier.load(Store(f"{layout.classifiers}/{name}"))
    if classifier.classes != test.classes:
        raise DataError(
            f"classifier {name} knows the classes {list(classifier.classes)}, the test set has "
            f"{list(test.classes)}; train it again with --overwrite"
        )
    probabilities = classifier.predict(test.images)
    table = pa.table(
        {
            "source": test.sources,
            "patient": test.groups,
            "label": test.labels,
            "probabilities": pa.array(list(probabilities), pa.list_(pa.float32())),
            "method": [classifier.method] * len(test),
            "seed": [classifier.config.seed] * len(test),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    Store(layout.evaluation).write_bytes(
        f"predictions/{name}.parquet", sink.getvalue().to_pybytes()
    )
    return probabilities.argmax(axis=1)


def _result(method: str, found: Comparison, seeds: int, classes: Sequence[str]) -> dict[str, Any]:
    """One method's row; a rate that cannot be computed is null."""
    by_class = class_rates(found.confusion)
    return {
        "method": method,
        **{name: found.rates.get(name) for name in RATES},
        "per_class": {
            name: {"recall": float(recall), "fnr": float(1 - recall), "precision": float(precision)}
            for name, recall, precision in zip(
                classes, by_class.recall, by_class.precision, strict=True
            )
            if not np.isnan(recall)
        },
        "confusion": found.confusion.tolist(),
        "seeds": seeds,
        "intervals": {name: list(interval) for name, interval in found.intervals.items()},
        "difference_to_real": {
            name: dataclasses.asdict(difference) for name, difference in found.differences.items()
        },
    }


def _register(
    config: PipelineConfig, layout: Layout, best: dict[str, Any], run: Run
) -> dict[str, str]:
    """Puts the best classifier into the model registry."""
    # here, since it loads MLflow, which the tasks that predict do without
    from gemix.tracking.model_registry import register

    name = config.tracking.registered_model
    version = register(
        Classifier.load(Store(f"{layout.classifiers}/{best['name']}")),
        read_images([layout.data], "val").images[:2],
        run,
        name,
        {key: str(best[key]) for key in ("method", "seed", "val_macro_f2")},
    )
    return {"name": name, "version": version}


def _log(
    run: Run, evaluation: dict[str, Any], compared: dict[str, Comparison], classes: Sequence[str]
) -> None:
    """Metrics, confusion matrices and the whole evaluation to MLflow."""
    for result in evaluation["results"]:
        method = result["method"]
        run.log_metrics({f"{method}/{name}": result[name] for name in RATES})
        title = f"{method}, {result['seeds']} seed(s)"
        png = confusion_png(compared[method].confusion, classes, title)
        run.log_bytes(png, f"confusion/{method}.png")
    run.log_text(json.dumps(evaluation, indent=1), EVALUATION)


def _run(request: Request) -> None:
    evaluation = evaluate(request.config, request.layout, overwrite=request.overwrite)
    model = evaluation["registered_model"]
    for row in evaluation["results"]:
        low, high = row["intervals"]["macro_f2"]
        print(
            f"evaluate: {row['method']}: macro-F2 {row['macro_f2']:.3f} ({low:.3f} to {high:.3f}), "
            f"FNR {row['fnr']:.3f}, accuracy {row['accuracy']:.3f}"
        )
    print(
        f"evaluate: registered {evaluation['best_classifier']['name']} as {model['name']} "
        f"version {model['version']}"
    )


COMMAND = Command(
    name="evaluate",
    summary="Tests every classifier once, with bootstrap intervals; registers the best.",
    reads="<workdir>/data, <workdir>/classifiers",
    writes="<workdir>/evaluation: evaluation.json, predictions/<method>-seed<k>.parquet; a version "
    "of the registered model in MLflow",
    costs="one pass over the test set a classifier: seconds for demo",
    run=_run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
