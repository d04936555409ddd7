"""The log of a GAN training: terminal lines, log.jsonl, MLflow metrics, sample grids."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping

import numpy as np

from gemix.core.png import encode_png, tile
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.config import SamplingConfig
from gemix.gan.models.base import ImageGenerator
from gemix.gan.sampling import label_path, sample_images
from gemix.gan.training.fallback import describe_fallback
from gemix.gan.training.registry import METHODS
from gemix.gan.training.state import TrainingState
from gemix.io.records import write_record
from gemix.io.results import LABEL_PATH, LOG, TRAINING, TrainingTotals, read_log
from gemix.io.storage import Store
from gemix.tracking.mlflow_run import Run

GRID_COLUMNS = 8
PATH_STEPS = 8
LOG_POINTS = 100
SECONDS_BETWEEN_LINES = 10.0


class TrainingLog:
    """Log one stage on rank 0; metrics of the unconditional stage begin with ``pretrain_``.

    Args:
        store: the directory for ``log.jsonl``, ``samples/*.png``, ``label_path.png`` and
            ``training.json``.
    """

    def __init__(self, store: Store, spec: TrainingSpec, run: Run):
        self.store, self.spec, self.run = store, spec, run
        self.total = spec.config.steps
        self.records: list[str] = []
        self.last_line = self.began = time.monotonic()
        self.first_step = self.skipped = self.fallback_level = 0
        name, self.prefix = ("train-gan", "") if spec.classes else ("pretrain", "pretrain_")
        self.logger = logging.getLogger(f"gemix.{name}")

    def start(self, state: TrainingState) -> None:
        """Continue the log of an earlier part of the training, if there is one."""
        if state.step:
            old = read_log(self.store)
            self.records = [json.dumps(one) for one in old if one.get("step", 0) <= state.step]
            self.logger.info("resumes at %.2f kimg", self._kimg(state))
        self.logger.info("%s", self.spec.config.summary)
        for change in state.setting_changes:
            self.logger.warning(
                "gan.%s was %s up to step %d, now %s",
                change["setting"],
                change["old"],
                change["step"],
                change["new"],
            )
        self.run.set_tags({"objective": self.spec.config.adversarial_loss})
        self.first_step, self.began = state.step, time.monotonic()
        self.skipped, self.fallback_level = int(state.skipped_updates), state.fallback_level

    def truncate_after(self, state: TrainingState, reason: str) -> None:
        """Drop the records after the step that training returns to."""
        self.logger.warning("%s; back to %.2f kimg", reason, self._kimg(state))
        self.records = [line for line in self.records if json.loads(line)["step"] <= state.step]
        self.first_step, self.began = state.step, time.monotonic()

    def _warn_of_failures(self, state: TrainingState) -> None:
        skipped = int(state.skipped_updates)
        if skipped > self.skipped:
            self.logger.warning(
                "by step %d: gradients were not finite, so %d updates were skipped, %d in all",
                state.step,
                skipped - self.skipped,
                skipped,
            )
        if state.fallback_level > self.fallback_level:
            rates = METHODS[self.spec.config.method].learning_rates
            self.logger.warning("fallback: %s", describe_fallback(state, rates))
        self.skipped, self.fallback_level = skipped, state.fallback_level

    def step(self, state: TrainingState, values: Mapping[str, float]) -> None:
        """Record and log the losses of a step, means over the workers."""
        self._warn_of_failures(state)
        record = {
            "step": state.step,
            "kimg": self._kimg(state),
            "augment_p": float(state.augment_p),
            "images_per_s": self._images_per_s(state),
            "skipped_updates": self.skipped,
        }
        record |= {name: value for name, value in values.items() if math.isfinite(value)}
        self.records.append(json.dumps(record | {"objective": self.spec.config.adversarial_loss}))
        self._log_metrics({k: v for k, v in record.items() if k != "step"}, state)
        if time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES or state.step == self.total:
            self.last_line = time.monotonic()
            left = (self.total - state.step) * self.spec.config.batch / record["images_per_s"]
            self.logger.info(
                "%.2f of %g kimg, %.1f images/s, p %.3f, %.0f s left",
                record["kimg"],
                self.spec.config.kimg,
                record["images_per_s"],
                record["augment_p"],
                left,
            )

    def log_values(self, state: TrainingState, values: Mapping[str, float | str]) -> None:
        """Add values to the record of this step; text becomes a tag of the MLflow run."""
        record = {"step": state.step, "kimg": self._kimg(state)}
        if self.records and json.loads(self.records[-1])["step"] == state.step:
            record = json.loads(self.records.pop())
        self.records.append(json.dumps(record | values))
        texts = {name: value for name, value in values.items() if isinstance(value, str)}
        self.run.set_tags(texts)
        numbers = {name: value for name, value in values.items() if name not in texts}
        self._log_metrics(numbers, state)

    def _log_metrics(self, numbers: Mapping[str, float], state: TrainingState) -> None:
        named = {f"{self.prefix}{name}": value for name, value in numbers.items()}
        self.run.log_metrics(named, step=state.step)

    def snapshot(self, state: TrainingState) -> None:
        """Write the log and a grid of samples, one row a class."""
        self.store.write_bytes(LOG, ("\n".join(self.records) + "\n").encode())
        classes = len(self.spec.classes)
        rows = max(1, classes)
        labels = np.repeat(np.eye(rows, classes, dtype=np.float32), GRID_COLUMNS, axis=0)
        # the same seeds in every row, so that rows differ by the class alone
        grid = tile(self._images(state, list(range(GRID_COLUMNS)) * rows, labels), GRID_COLUMNS)
        self._picture(f"samples/{state.step:08d}.png", grid)

    def finish(self, state: TrainingState, generator: ImageGenerator | None = None) -> None:
        """Write the last grid, the strips along the soft-label path, and the totals.

        Args:
            generator: that the strips are of; None for the last one.
        """
        self.snapshot(state)
        if self.spec.classes:
            path = label_path(len(self.spec.classes), PATH_STEPS)
            seeds = np.repeat(np.arange(len(path)), PATH_STEPS).tolist()
            labels = path.reshape(-1, path.shape[-1])
            strips = self._images(state, seeds, labels, generator)
            self._picture(LABEL_PATH, tile(strips, PATH_STEPS))
        # a process that found the training complete has no speed of its own
        if state.step > self.first_step or not self.store.exists(TRAINING):
            totals = TrainingTotals(kimg=self._kimg(state), images_per_s=self._images_per_s(state))
            write_record(self.store, TRAINING, totals)

    def _picture(self, name: str, pixels: np.ndarray) -> None:
        self.store.write_bytes(name, encode_png(pixels))
        self.run.log_bytes(encode_png(pixels), f"{self.prefix}{name}")

    def _images(
        self,
        state: TrainingState,
        seeds: list[int],
        labels: np.ndarray,
        generator: ImageGenerator | None = None,
    ) -> np.ndarray:
        config = SamplingConfig(noise_mode="const")
        device = state.pl_mean.device
        return sample_images(generator or state.generator_ema, seeds, labels, config, device)

    def _kimg(self, state: TrainingState) -> float:
        return self.spec.config.kimg_at(state.step)

    def _images_per_s(self, state: TrainingState) -> float:
        steps = state.step - self.first_step
        return steps * self.spec.config.batch / max(time.monotonic() - self.began, 1e-9)
