"""Evaluate every classifier once on the test set, with intervals; register the best."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gemix.classifier.bundle import Classifier
from gemix.classifier.decision.decision import UNFITTED
from gemix.config import PipelineConfig
from gemix.core.errors import DataError, TrackingError
from gemix.data.image_set import ImageSet
from gemix.data.leakage.provenance import Provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.bootstrap import (
    Comparison,
    compare_methods,
    warn_of_few_groups,
)
from gemix.evaluation.classification.normal_class import describe_normal_class, normal_class
from gemix.evaluation.classification.plots import confusion_png
from gemix.evaluation.classification.probability_rates import brier, expected_calibration_error
from gemix.evaluation.classification.rates import RATES, chance_macro_f2, score
from gemix.io.predictions import Predictions, write_predictions
from gemix.io.records import to_json
from gemix.io.results import (
    EVALUATION,
    REAL,
    BelowReal,
    ClassifierRow,
    TeacherRates,
    best_on_validation,
    read_classifiers,
)
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.explanation.pictures import write_explanation
from gemix.steps.explanation.projection import write_projection
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.runtime.outputs import open_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.steps.runtime.test_openings import count_opening, describe_test
from gemix.synthesis.teacher import Teachers
from gemix.tracking import mlflow_run as tracking
from gemix.tracking.mlflow_run import Run
from gemix.tracking.registrable import NotRegistrableError

log = logging.getLogger("gemix.evaluate")


def evaluate(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Predict the test set with every classifier of ``workspace.classifiers``.

    The classifier that is registered is the one of the best *validation* macro-F2, of the most
    probable class whatever ``decision.rule`` is: the test set chooses nothing.

    Returns:
        What ``evaluation.json`` holds: `results`, one mapping a method, with means over its seeds,
        `calibration` of its probabilities, and `most_probable`, its rates where ``decision.rule``
        changes them; `best`, the method of the best classifier; `best_classifier`; `below_real`,
        null unless real-only has a better macro-F2 on the test set than this one;
        `teacher`, the rates of another site's teacher (``synthesis.teacher``), null without one;
        `registered_model`, its name and version, null if it is not good enough; `test`, what it
        was tested on; `overlap`, what the test set shares with what classifiers and generators
        were trained on, two empty lists if nothing.

    Raises:
        DataError: if the classifiers are not finished, the test set cannot tell them apart, or
            they or their generators learned from it and ``data.allow_overlap`` is not set.
    """
    listing = read_classifiers(Store(workspace.classifiers))
    url = config.synthesis.teacher
    teacher = None if url is None else Teachers.load(url)
    learned = [Provenance(Store(workspace.classifiers), "the classifiers")]
    if teacher:
        learned.append(Provenance(Store(teacher.url), "the teacher"))
    pairs = itertools.product(learned, real_splits(workspace, "test"))
    overlap = enforce_no_overlap("evaluate", config, list(pairs))
    test = read_images([workspace.data], "test")
    normal = normal_class(test.classes, config.data.normal_class)
    log.info(describe_normal_class(test.classes, normal))
    tested = describe_test(test, normal)
    if warning := warn_of_few_groups(tested.groups_by_class):
        log.warning(warning)
    executor = executor or LocalExecutor()
    executor.require(config.compute)
    store = open_step(workspace.evaluation, EVALUATION, config, overwrite)
    with tracking.start_run(config, workspace.workdir, "evaluate") as run:
        run.set_tags(overlap.tags)
        run.log_dataset(test.digest, "real", "test")
        openings = count_opening(workspace, "evaluate", test.digest)  # a stop after it counts too
        predictions = _predict_all(config, workspace, executor, listing, test)
        compared = compare_methods(
            test.labels,
            {method: np.stack([one.predicted for one in of]) for method, of in predictions.items()},
            test.groups,
            classes=len(test.classes),
            normal=normal,
        )
        results = [
            _result(method, found, len(predictions[method]), test.classes)
            | {
                "calibration": _calibration(test.labels, predictions[method]),
                "most_probable": _most_probable(test.labels, predictions[method], normal),
            }
            for method, found in compared.items()
        ]
        best = best_on_validation(listing)
        _explain(config, workspace, best, predictions[best.method], test)
        below = _below_real(best, listing, predictions, compared, test)
        if below:
            log.warning("%s", below)
        evaluation = {
            "results": results,
            "best": best.method,
            "best_classifier": to_json(best),
            "below_real": to_json(below),
            "teacher": to_json(_teacher_rates(teacher, test, normal) if teacher else None),
            "registered_model": _register(config, workspace, best, run),
            "test": to_json(tested),
            "test_openings": openings,
            "overlap": overlap.to_json(),
        }
        _log_to_mlflow(run, evaluation, compared, test.classes)
        store.write_json(EVALUATION, evaluation)
    return evaluation


def _predict_all(
    config: PipelineConfig,
    workspace: Workspace,
    executor: Executor,
    listing: Sequence[ClassifierRow],
    test: ImageSet,
) -> dict[str, list[Predictions]]:
    """Return the predictions of each method's classifiers, by seed."""
    predict = functools.partial(
        _predict, workspace, test=test, threads=config.compute.cpus_per_worker
    )
    names = [row.name for row in listing]
    found: dict[str, dict[int, Predictions]] = {row.method: {} for row in listing}
    predictions = executor.map(
        predict, names, title="evaluate", unit="classifiers", compute=config.compute
    )
    for row, predicted in zip(listing, predictions, strict=True):
        found[row.method][row.seed] = predicted
    return {
        method: [by_seed[seed] for seed in sorted(by_seed)] for method, by_seed in found.items()
    }


def _predict(workspace: Workspace, name: str, test: ImageSet, threads: int) -> Predictions:
    """Write one classifier's predictions, and return them."""
    torch.set_num_threads(threads)
    classifier = Classifier.load(Store(f"{workspace.classifiers}/{name}"))
    if classifier.classes != test.classes:
        raise DataError(
            f"classifier {name} knows the classes {list(classifier.classes)}, the test set has "
            f"{list(test.classes)}; train it again with --overwrite"
        )
    logits, decision = classifier.logits(test.images), classifier.decision
    probabilities = decision.probabilities(logits)
    predictions = Predictions(
        method=classifier.method,
        seed=classifier.config.seed,
        sources=test.sources,
        patients=test.groups,
        labels=test.labels,
        predicted=decision.decide(probabilities),
        probabilities=probabilities,
        uncalibrated=UNFITTED.probabilities(logits),
    )
    write_predictions(Store(workspace.evaluation), name, predictions)
    return predictions


def _explain(
    config: PipelineConfig,
    workspace: Workspace,
    best: ClassifierRow,
    predictions: Sequence[Predictions],
    test: ImageSet,
) -> None:
    """Write pictures, maps and a projection of the best classifier, for the report."""
    store = Store(workspace.evaluation)
    classifier = Classifier.load(Store(f"{workspace.classifiers}/{best.name}"))
    why = write_projection(store, best.name, classifier, workspace, config.synthesis.methods, test)
    own = next(one for one in predictions if one.seed == best.seed)
    write_explanation(store, best.name, classifier, own, test, no_projection=why)


def _calibration(labels: np.ndarray, predictions: Sequence[Predictions]) -> dict[str, float]:
    """Return calibration error and Brier score, with and without the temperature; means."""

    def mean(measure: Callable[[np.ndarray, np.ndarray], float], field: str) -> float:
        return float(np.mean([measure(labels, getattr(one, field)) for one in predictions]))

    def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
        return float(brier(labels, probabilities, np.ones((1, len(labels))))[0])

    return {
        "ece": mean(expected_calibration_error, "probabilities"),
        "ece_uncalibrated": mean(expected_calibration_error, "uncalibrated"),
        "brier": mean(brier_score, "probabilities"),
        "brier_uncalibrated": mean(brier_score, "uncalibrated"),
    }


def _most_probable(
    labels: np.ndarray, predictions: Sequence[Predictions], normal: int | None
) -> dict[str, float] | None:
    """Return the rates without a threshold; None where the decision has none. Means."""
    found = [one.probabilities.argmax(axis=1) for one in predictions]
    if all(np.array_equal(one.predicted, by) for one, by in zip(predictions, found, strict=True)):
        return None
    classes = predictions[0].probabilities.shape[1]
    scores = [score(labels, predicted, classes, normal) for predicted in found]
    return {
        name: float(np.mean([one[name] for one in scores]))
        for name, value in scores[0].items()
        if value is not None
    }


def _result(method: str, found: Comparison, seeds: int, classes: Sequence[str]) -> dict[str, Any]:
    """Return one method's row; a rate that cannot be computed is null."""
    return {
        "method": method,
        **{name: found.rates.get(name) for name in RATES},
        "per_class": {
            name: {"recall": float(recall), "fnr": float(1 - recall), "precision": float(precision)}
            for name, recall, precision in zip(
                classes, found.by_class.recall, found.by_class.precision, strict=True
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


def _below_real(
    best: ClassifierRow,
    listing: Sequence[ClassifierRow],
    predictions: Mapping[str, Sequence[Predictions]],
    compared: Mapping[str, Comparison],
    test: ImageSet,
) -> BelowReal | None:
    """Return the figures of the best classifier if it, or its method, is below real-only."""
    if best.method == REAL or REAL not in compared:
        return None
    seeds = sorted(row.seed for row in listing if row.method == best.method)
    predicted = predictions[best.method][seeds.index(best.seed)].predicted
    own = score(test.labels, predicted, len(test.classes))
    method, real = (compared[name].rates["macro_f2"] for name in (best.method, REAL))
    if min(own["macro_f2"], method) >= real:
        return None
    return BelowReal(
        classifier=best.name,
        macro_f2=own["macro_f2"],
        method_macro_f2=method,
        real_macro_f2=real,
    )


def _teacher_rates(teachers: Teachers, test: ImageSet, normal: int | None) -> TeacherRates:
    """Return the rates of another site's teachers: whoever has them could use them as they are.

    Raises:
        DataError: if they know other images or classes than those of the test set.
    """
    teachers.check(test.classes, test.images.shape[1:])
    predicted = teachers.probabilities(test.images).argmax(axis=2).T
    found = compare_methods(
        test.labels,
        {"teacher": predicted},
        test.groups,
        classes=len(test.classes),
        normal=normal,
    )["teacher"]
    return TeacherRates(
        macro_f2=found.rates["macro_f2"],
        fnr=found.rates["fnr"],
        seeds=len(predicted),
        intervals={name: found.intervals[name] for name in ("macro_f2", "fnr")},
    )


def _register(
    config: PipelineConfig, workspace: Workspace, best: ClassifierRow, run: Run
) -> dict[str, str] | None:
    """Register the best classifier; return None if it is not good enough."""
    # here, since it loads MLflow, which the tasks that predict do without
    from gemix.tracking.model_registry import DATA_DIGEST, MOST_PROBABLE_F2, register

    name = config.tracking.registered_model
    classifier = Classifier.load(Store(f"{workspace.classifiers}/{best.name}"))
    try:
        version = register(
            classifier,
            run,
            name,
            {
                "method": best.method,
                "seed": str(best.seed),
                MOST_PROBABLE_F2: str(best.scores["val_macro_f2"]),
                DATA_DIGEST: Manifest.load(Store(workspace.data)).digest,
            },
        )
    except NotRegistrableError as error:
        log.warning(str(error))
        return None
    except TrackingError as error:
        log.warning(
            "%s is not registered: %s; run gemix evaluate --overwrite when the server answers",
            best.name,
            error,
        )
        return None
    guessing = chance_macro_f2(len(classifier.classes))
    if best.scores["val_macro_f2"] <= guessing:
        log.warning(
            "%s is registered, but its macro-F2 of %.3f (most probable class) on validation is "
            "not above %.3f, which guessing reaches",
            best.name,
            best.scores["val_macro_f2"],
            guessing,
        )
    return {"name": name, "version": version}


def _log_to_mlflow(
    run: Run, evaluation: dict[str, Any], compared: dict[str, Comparison], classes: Sequence[str]
) -> None:
    """Log metrics, confusion matrices and the whole evaluation to MLflow."""
    for result in evaluation["results"]:
        method = result["method"]
        run.log_metrics({f"{method}/{name}": result[name] for name in RATES})
        title = f"{method}, {result['seeds']} seed(s)"
        png = confusion_png(compared[method].confusion, classes, title)
        run.log_bytes(png, f"confusion/{method}.png")
    run.log_text(json.dumps(evaluation, indent=1), EVALUATION)
