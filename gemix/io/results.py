"""Results that steps leave as JSON: the type of each file, and its reader.

Readers raise DataError with the file, the field and what is wrong with it. They accept additional
fields, which later versions may write, and the names of earlier versions.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gemix.io.records import file_error, is_number, others, read_record, renamed
from gemix.io.storage import Store

EVALUATION, CLASSIFIERS, TRAINING = "evaluation.json", "classifiers.json", "training.json"
IMAGE_METRICS, SUMMARY, STEPS = "metrics.json", "summary.json", "steps.json"
SWEEP = "sweep.json"
LOG, QUARANTINE = "log.jsonl", "quarantine.json"
MEMORIZATION_VIEW, LABEL_PATH = "memorization.png", "label_path.png"
LABEL_FIGURE = "labels.svg"  # of a synthetic set
REAL = "real"  # the method of classifiers that are trained on real images alone
ONLY = "-only"  # ends the method of those that are trained on synthetic images alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference (method - real) with its 95% interval.

    Attributes:
        p: two-sided p-value; None where it was not computed.
    """

    delta: float
    low: float
    high: float
    p: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassResult:
    """Rates of one class, 0 .. 1."""

    recall: float
    fnr: float
    precision: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodResult:
    """The classifiers of one training set on the test set; means over `seeds`.

    Attributes:
        confusion: counts [K, K], rows are the truth.
        intervals: 95% interval (low, high) of each rate.
        difference_to_real: of each rate; empty for ``real``.
        calibration: of the probabilities, with and without temperature scaling.
        most_probable: rates without the threshold of ``decision.rule``; None where it changes none.
        rates: beside the other fields in the file; None where a rate cannot be computed.
    """

    method: str
    seeds: int
    confusion: tuple[tuple[float, ...], ...]
    intervals: Mapping[str, tuple[float, float]]
    difference_to_real: Mapping[str, Difference]
    per_class: Mapping[str, ClassResult] = dataclasses.field(default_factory=dict)
    calibration: Mapping[str, float] | None = None
    most_probable: Mapping[str, float] | None = None
    rates: Mapping[str, float | None] = others("macro_f2", "fnr", "macro_f1", "accuracy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierRow:
    """A trained classifier and its validation scores, a row of ``classifiers.json``."""

    name: str
    method: str
    seed: int
    scores: Mapping[str, float | None] = others("val_macro_f2", "val_loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """A version in MLflow's model registry."""

    name: str
    version: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatedSet:
    """The test set of an evaluation; earlier versions recorded less of it."""

    images: int | None = None
    groups: int | None = None
    groups_by_class: Mapping[str, int] | None = None
    classes: tuple[str, ...] | None = None
    normal_class: str | None = None
    digest: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedImages:
    """Numbers of groups, images and copies that a training set and a held-out split share."""

    learned: str
    held_out: str
    groups: int
    images: int
    copies: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """Overlap of the test set with training sets.

    Attributes:
        unknown, not_compared: training sets that are not on record, or without thumbnails.
    """

    shared: tuple[SharedImages, ...]
    unknown: tuple[str, ...]
    not_compared: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BelowReal:
    """The best classifier on the validation set, where the test set says that real-only is better.

    Attributes:
        classifier: its name.
        macro_f2: its own on the test set.
        method_macro_f2: the mean of all trainings of its method.
        real_macro_f2: the mean of the trainings on real images alone.
    """

    classifier: str
    macro_f2: float
    method_macro_f2: float
    real_macro_f2: float

    def __str__(self) -> str:
        return (
            f"{self.classifier} is the best on validation, but on the test set its macro-F2 is "
            f"{self.macro_f2:.3f} (mean of its method {self.method_macro_f2:.3f}), and that of "
            f"training on real images alone {self.real_macro_f2:.3f}: real-only is better here. "
            "Being best on validation, or latest, is no reason to use it: gemix promote decides "
            "which version is the champion"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherRates:
    """Rates on the test set of another site's teachers, each the mean over them.

    Attributes:
        seeds: how many they are.
        intervals: 95% interval (low, high) of each rate.
    """

    macro_f2: float
    fnr: float
    seeds: int
    intervals: Mapping[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """``evaluation.json``.

    Attributes:
        best: method of the best classifier on the validation set.
        registered_model: None if it was not registered.
        below_real: None if the best is not below real-only on the test set.
        teacher: of another site, which labelled the images; None if there is none.
    """

    results: tuple[MethodResult, ...]
    best: str | None = None
    best_classifier: ClassifierRow | None = None
    registered_model: RegisteredModel | None = None
    test: EvaluatedSet = EvaluatedSet()
    overlap: Overlap | None = None
    below_real: BelowReal | None = None
    teacher: TeacherRates | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Image metrics of one generator.

    Attributes:
        kimg: of its training.
        images, real_images: how many of each were compared.
        extractor: of the features.
        metrics: beside the other fields in the file.
    """

    kimg: float
    images: int
    real_images: int
    extractor: str
    metrics: Mapping[str, float | None] = others()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestMeasurement:
    """The best evaluation of a training.

    Attributes:
        score: lower is better.
        metric: what it is a value of: the primary metric where None, or ``label_agreement``, whose
            score is its distance to 1.
    """

    kimg: float
    score: float
    metric: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownSample:
    """A row of the memorization view: number of the sample, ``first`` or ``nearest``."""

    sample: int
    shown_as: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memorization:
    """The memorization view, and the values of the privacy audits in two spaces.

    Attributes:
        by_features, by_pixels: one value for each output of the audits; None without held-out
            images.
    """

    samples: int
    held_out: int
    neighbors: int
    rows: tuple[ShownSample, ...]
    by_features: Mapping[str, float] | None
    by_pixels: Mapping[str, float] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageMetrics:
    """``metrics.json``.

    Attributes:
        primary_metric: name of the metric that ranks generators.
        last, generator: of the last generator and of the one that ships; earlier versions
            recorded the last one alone.
        used: whether the ``best`` or the ``last`` ships.
        memorization: of the one that ships.
    """

    primary_metric: str = renamed("headline")
    last: Measurement
    generator: Measurement | None = None
    best: BestMeasurement | None = None
    used: str
    memorization: Memorization


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingTotals:
    """``training.json``: length and speed of a GAN training."""

    kimg: float
    images_per_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Model:
    """The part of ``model.json`` that the report shows."""

    history: tuple[Mapping[str, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuarantineEntry:
    """A file that was set aside, and why."""

    source: str
    reason: str


def read_evaluation(store: Store) -> Evaluation:
    """Read ``evaluation.json``.

    Raises:
        DataError: if it is missing, damaged or lacks a field; so do the other readers.
    """
    return read_record(store, EVALUATION, Evaluation, "run gemix evaluate --overwrite")


def read_classifiers(store: Store) -> tuple[ClassifierRow, ...]:
    """Read ``classifiers.json``."""
    remedy = "run gemix train-classifier --overwrite"
    return read_record(store, CLASSIFIERS, tuple[ClassifierRow, ...], remedy)


def best_on_validation(rows: Sequence[ClassifierRow]) -> ClassifierRow:
    """Return the classifier of the best macro-F2 on validation, the lower loss where they tie.

    The macro-F2 is of the most probable class, though a classifier may answer by a threshold.
    """
    return max(rows, key=lambda row: (row.scores["val_macro_f2"], -row.scores["val_loss"]))


def read_training(store: Store) -> TrainingTotals:
    """Read ``training.json``."""
    return read_record(store, TRAINING, TrainingTotals, "run gemix train-gan --overwrite")


def read_image_metrics(store: Store) -> ImageMetrics:
    """Read ``metrics.json``."""
    remedy = "train again with --overwrite, or delete metrics.json to do without image metrics"
    found = read_record(store, IMAGE_METRICS, ImageMetrics, remedy)
    memorization = dataclasses.replace(
        found.memorization,
        by_features=_audit_names(found.memorization.by_features),
        by_pixels=_audit_names(found.memorization.by_pixels),
    )
    return dataclasses.replace(
        found, generator=found.generator or found.last, memorization=memorization
    )


def _audit_names(values: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """Rename the outputs of audits that earlier versions called otherwise."""
    earlier = {"nearer": "copying_auc", "among_closest": "near_fraction"}
    return values and {earlier.get(name, name): value for name, value in values.items()}


def read_steps(store: Store) -> dict[str, float]:
    """Read ``steps.json``, the wall seconds of each step; empty if it is not there."""
    remedy = "delete it: the times of finished steps are then missing in the report"
    return read_record(store, STEPS, dict[str, float], remedy) if store.exists(STEPS) else {}


def read_history(store: Store, name: str) -> tuple[Mapping[str, float], ...]:
    """Read the epochs out of a classifier's ``model.json``."""
    remedy = "run gemix train-classifier --overwrite"
    return read_record(store, name, _Model, remedy).history


def read_quarantine(store: Store) -> list[dict[str, Any]]:
    """Read ``quarantine.json``, `source` and `reason` of each file; empty if it is not there."""
    if not store.exists(QUARANTINE):
        return []
    remedy = "prepare again with --overwrite"
    read_record(store, QUARANTINE, tuple[QuarantineEntry, ...], remedy)
    return store.read_json(QUARANTINE)


def read_log(store: Store) -> tuple[Mapping[str, Any], ...]:
    """Read ``log.jsonl``, one mapping a line with `kimg`; empty if it is not there."""
    if not store.exists(LOG):
        return ()
    remedy = "delete the line"
    lines = []
    for number, line in enumerate(store.read_bytes(LOG).splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise file_error(store, LOG, f"line {number} is not JSON ({error})", remedy) from None
        if not isinstance(value, dict) or not is_number(value.get("kimg")):
            raise file_error(store, LOG, f"line {number} lacks the number kimg", remedy)
        lines.append(value)
    return tuple(lines)
