"""Image metrics of a GAN training: at snapshots, within a time budget, and at the end."""

from __future__ import annotations

import logging
import time
from typing import Any

from gemix.classifier.bundle import Classifier
from gemix.config import PipelineConfig
from gemix.core.distributed import Workers
from gemix.core.errors import DataError, StoreAccessError, StoreError
from gemix.evaluation.image_quality.base import ImageMetricError
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.gan.checkpoints.best_snapshot import read_best, save_if_best
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.training.state import TrainingState
from gemix.io.results import IMAGE_METRICS, MEMORIZATION_VIEW
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.gan_training.evaluator import Evaluator, SnapshotEvaluation
from gemix.steps.gan_training.log import TrainingLog
from gemix.steps.gan_training.shipped_generator import ShippedGenerator, shipped_generator
from gemix.synthesis.teacher import Teachers

log = logging.getLogger("gemix.train-gan")

FEWEST_REAL = 20


class SnapshotEvaluator:
    """Evaluate the generator during a training; every worker calls each method at the same steps.

    The time budget starts anew when a training resumes.

    Args:
        data: the training images.
        log: the training log on rank 0, None elsewhere.

    Raises:
        ConfigError: if the extractor cannot be had.
        CheckpointError: if ``metrics.best_by`` is ``labels`` and there is no teacher.
        DataError: for too few training images, or a teacher of other images.
    """

    def __init__(
        self,
        config: PipelineConfig,
        workspace: Workspace,
        data: TrainingDataset,
        spec: TrainingSpec,
        workers: Workers,
        log: TrainingLog | None,
    ):
        self.config, self.spec, self.workers, self.log = config.metrics, spec, workers, log
        teacher = _teacher(config.metrics, workspace, spec) if config.metrics.images else None
        self.evaluator = Evaluator(
            config.metrics, Store(workspace.data), Store(workspace.metrics), data, workers, teacher
        )
        self.device, self.store = data.device, Store(workspace.gan)
        self.began, self.spent = time.monotonic(), 0.0
        self.takes: float | None = None
        self.postponed = False
        if self.config.images:
            self._open(len(data))

    def at_snapshot(self, state: TrainingState, number: int) -> None:
        """Evaluate the `number`-th snapshot if it is due and fits the budget."""
        due = self.postponed or number % self.config.every == 0
        if not self.config.images or not due or state.step >= self.spec.config.steps:
            return  # the last snapshot is evaluated at the end
        started = time.monotonic()
        training = started - self.began - self.spent
        if self.takes is None:
            self.takes = self.evaluator.expected_seconds(state.generator_ema)
        fits = affordable(self.takes, self.spent, self.config.budget * training)
        self.postponed = not self.workers.broadcast_bool(fits, self.device)
        if not self.postponed:
            began = time.monotonic()
            evaluation = self.evaluator.evaluate(state.generator_ema)
            self.takes = time.monotonic() - began
            self._log(state, evaluation)
        elif self.log:
            log.info(
                "image metrics at %.2f kimg are postponed: %.1f s are spent, this evaluation and "
                "the last take about %.1f s each, and metrics.budget is %.0f%% of %.0f s so far",
                self._kimg(state),
                self.spent,
                self.takes,
                100 * self.config.budget,
                training,
            )
        self.spent += time.monotonic() - started

    def at_end(self, state: TrainingState) -> ShippedGenerator:
        """Evaluate the last generator, whatever it takes, and return the one that ships.

        Writes ``metrics.json`` for the report: `primary_metric`, its name; `last`, all metrics and
        the kimg of the last generator; `generator`, those of the one that ships; `best`, kimg and
        primary metric (`score`) of the best, or what else it was ranked by (`figure`); `used`,
        whether `best` or `last` ships;
        `memorization`, the audit of the one that ships, as
        :class:`gemix.steps.gan_training.memorization_view.MemorizationView` has it.
        """
        started, last = time.monotonic(), None
        if self.config.images:
            last = self.evaluator.evaluate(state.generator_ema)
            self._log(state, last)
            self.spent += time.monotonic() - started
        shipped = shipped_generator(
            self.store, state, self.spec, self.workers, use_best=self.config.use_best
        )
        if last:
            self._summarize(state, last, shipped)
        return shipped

    def _summarize(
        self, state: TrainingState, last: SnapshotEvaluation, shipped: ShippedGenerator
    ) -> None:
        """Write ``metrics.json`` and the memorization view of the generator that ships."""
        started = time.monotonic()
        training = started - self.began - self.spent
        is_last = shipped.network is state.generator_ema
        final = last if is_last else self.evaluator.evaluate(shipped.network)
        try:
            view = self.evaluator.memorization(shipped.network, final.features)
        except ImageMetricError as error:  # on rank 0 alone, after all communication
            log.warning("no image metrics in the report: %s", error)
            return
        if last.quality is None or final.quality is None or view is None:
            return
        best = read_best(self.store)
        summary: dict[str, Any] = {
            "primary_metric": last.quality.primary_metric,
            "last": _values(last) | {"kimg": self._kimg(state)},
            "generator": _values(final) | {"kimg": shipped.kimg},
            "best": best
            and {name: best[name] for name in ("kimg", "score")}
            | {"metric": best["measured"]["figure"]},
            "used": "best" if shipped.is_best else "last",
            "memorization": view.summary,
        }
        self.store.write_bytes(MEMORIZATION_VIEW, view.png)
        self.store.write_json(IMAGE_METRICS, summary)
        self.log.run.log_bytes(view.png, MEMORIZATION_VIEW)
        self.spent += time.monotonic() - started
        log.info("image metrics took %.1f s beside %.0f s of training", self.spent, training)

    def _open(self, images: int) -> None:
        """Fail before the training, not at its first snapshot, if nothing can be measured."""
        if images < FEWEST_REAL:
            raise DataError(
                f"{images} training images: image metrics want {FEWEST_REAL} or more; set "
                "metrics.images=0 to do without them"
            )
        extractor = self.evaluator.extractor
        if self.log:
            log.info("image metrics by %s", extractor.identity)
        self.spent = time.monotonic() - self.began

    def _log(self, state: TrainingState, evaluation: SnapshotEvaluation) -> None:
        """Log the metrics on rank 0, and save the generator if it is the best."""
        if evaluation.failure:
            log.warning(
                "%.2f kimg: no image metrics (%s); training goes on",
                self._kimg(state),
                evaluation.failure,
            )
        quality, fidelity = evaluation.quality, evaluation.fidelity
        if quality is None:
            return
        values = _values(evaluation)
        measured = {key: values[key] for key in ("images", "real_images", "extractor")}
        figure, score = quality.primary_metric, quality.score
        if self.config.best_by == "labels":
            figure, score = "label_agreement", 1 - values["label_agreement"]
            measured["teacher"] = self.evaluator.teacher.checksum
        measured["figure"] = figure  # the key of best.json since its first version
        try:
            best = save_if_best(self.store, state, self.spec, score, measured)
            note = "; the best so far" if best else ""
        except (OSError, StoreError, StoreAccessError) as error:
            note = (
                f"; whether it is the best cannot be kept ({error}): make room in {self.store.url}"
            )
        if fidelity:
            note = f"; label agreement {fidelity.agreement.value:.1%}{note}"
        self.log.log_values(state, values)
        log.info("%.2f kimg: %s%s", self._kimg(state), quality, note)

    def _kimg(self, state: TrainingState) -> float:
        return self.spec.config.kimg_at(state.step)


def _values(evaluation: SnapshotEvaluation) -> dict[str, Any]:
    """Return image metrics and label fidelity as plain values."""
    values = evaluation.quality.to_json()
    if evaluation.fidelity:
        values["label_agreement"] = evaluation.fidelity.agreement.value
        values["label_calibration_error"] = evaluation.fidelity.calibration_error
    return values


def _teacher(config: MetricsConfig, workspace: Workspace, spec: TrainingSpec) -> Classifier | None:
    """Return the first teacher; None if there is none and nothing depends on it."""
    teachers = Teachers.load_if_there(
        workspace.teacher,
        spec.classes,
        spec.architecture.image_shape,
        required=config.best_by == "labels",
    )
    return teachers and teachers.members[0]


def affordable(takes: float, spent: float, budget: float) -> bool:
    """Return whether an evaluation leaves enough time for the one at the end; all in seconds."""
    return spent + 2 * takes <= budget
