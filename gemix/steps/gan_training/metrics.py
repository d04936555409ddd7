"""Image metrics of a GAN training: at snapshots, within a time budget, and at the end."""

from __future__ import annotations

import logging
import time
from typing import Any

from gemix.config import PipelineConfig
from gemix.core.distributed import Workers
from gemix.core.errors import DataError, StoreAccessError, StoreError
from gemix.evaluation.image_quality.measure import ImageQuality
from gemix.gan.checkpoints.best_snapshot import read_best, save_if_best
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.training.state import TrainingState
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.gan_training.evaluator import Evaluator
from gemix.steps.gan_training.log import TrainingLog

log = logging.getLogger("gemix.train-gan")

FEWEST_REAL = 20
METRICS, VIEW = "metrics.json", "memorization.png"


class ImageMetrics:
    """Evaluates the generator during a training; every worker calls each method at the same steps.

    The time budget starts anew when a training resumes.

    Args:
        data: the training images.
        log: the training log on rank 0, None elsewhere.

    Raises:
        ConfigError: if the extractor cannot be had.
        DataError: for too few training images.
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
        self.evaluator = Evaluator(
            config.metrics, Store(workspace.data), Store(workspace.metrics), data, workers
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
            features = self.evaluator.sample_features(state.generator_ema)
            figures = self.evaluator.figures(features)
            self.takes = time.monotonic() - began
            self._log(state, figures)
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

    def at_end(self, state: TrainingState) -> None:
        """Evaluates the last generator, whatever it takes, and looks for copies among samples.

        Writes ``metrics.json``, what the report shows: `headline`, the figure to go by; `last`,
        all figures and the kimg of the last generator; `best`, kimg and headline figure (`score`)
        of the best; `used`, which of them was left as the generator; `memorization`, what
        :class:`gemix.steps.gan_training.memorization_view.MemorizationView` has.
        """
        if not self.config.images:
            return
        started = time.monotonic()
        training = started - self.began - self.spent
        features = self.evaluator.sample_features(state.generator_ema)
        figures = self.evaluator.figures(features)
        self._log(state, figures)
        view = self.evaluator.memorization(state.generator_ema, features)
        if figures is None or view is None:
            return
        best = read_best(self.store)
        summary: dict[str, Any] = {
            "headline": figures.headline,
            "last": figures.to_json() | {"kimg": self._kimg(state)},
            "best": best and {name: best[name] for name in ("kimg", "score")},
            "used": "best" if self.config.use_best else "last",
            "memorization": view.figures,
        }
        self.store.write_bytes(VIEW, view.png)
        self.store.write_json(METRICS, summary)
        self.log.run.log_bytes(view.png, VIEW)
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

    def _log(self, state: TrainingState, figures: ImageQuality | None) -> None:
        """Log the metrics on rank 0, and save the generator if it is the best."""
        if figures is None:
            return
        values = figures.to_json()
        measured = {key: values[key] for key in ("images", "real_images", "extractor")}
        measured["figure"] = figures.headline
        try:
            best = save_if_best(self.store, state, self.spec, figures.score, measured)
            note = "; the best so far" if best else ""
        except (OSError, StoreError, StoreAccessError) as error:
            note = (
                f"; whether it is the best cannot be kept ({error}): make room in {self.store.url}"
            )
        self.log.add(state, values)
        log.info("%.2f kimg: %s%s", self._kimg(state), figures, note)

    def _kimg(self, state: TrainingState) -> float:
        return self.spec.config.kimg_at(state.step)


def affordable(takes: float, spent: float, budget: float) -> bool:
    """Return whether an evaluation leaves enough time for the one at the end; all in seconds."""
    return spent + 2 * takes <= budget
