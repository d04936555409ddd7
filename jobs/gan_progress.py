"""What a GAN training tells while it runs: lines, log.jsonl, MLflow metrics, sample grids."""

from __future__ import annotations

import json
import time

import numpy as np
from torch import Tensor

from gemix.gan.checkpoint import Origin
from gemix.gan.sampling import SamplingConfig, label_path, sample_images
from gemix.gan.state import TrainingState
from gemix.images import encode_png, tile
from gemix.storage import Store
from gemix.tracking import Run

GRID_COLUMNS = 8
PATH_STEPS = 8
LOG_POINTS = 100
SECONDS_BETWEEN_LINES = 10.0


class TrainingLog:
    """Kept by rank 0 of a training.

    Args:
        store: where ``log.jsonl``, ``samples/*.png``, ``label_path.png`` and ``training.json`` go.
    """

    def __init__(self, store: Store, origin: Origin, run: Run):
        self.store, self.origin, self.run = store, origin, run
        self.total = max(1, round(origin.config.kimg * 1000 / origin.config.batch))
        self.every = max(1, self.total // LOG_POINTS)
        self.latest: dict[str, Tensor] = {}
        self.records: list[str] = []
        self.said = self.began = time.monotonic()
        self.first_step = 0

    def start(self, state: TrainingState) -> None:
        """Takes up the log of an earlier part of the training, if there is one."""
        if state.step and self.store.exists("log.jsonl"):
            old = self.store.read_bytes("log.jsonl").decode().splitlines()
            self.records = [line for line in old if json.loads(line)["step"] <= state.step]
            print(f"train-gan: goes on at {self._kimg(state):.2f} kimg", flush=True)
        self.first_step, self.began = state.step, time.monotonic()

    def step(self, state: TrainingState, values: dict[str, Tensor]) -> None:
        """Takes a step's losses; every so many steps they are logged."""
        self.latest |= values
        if state.step % self.every and state.step != self.total:
            return
        record = {
            "step": state.step,
            "kimg": self._kimg(state),
            "augment_p": state.augment_p,
            "images_per_s": self._images_per_s(state),
        } | {name: float(value) for name, value in self.latest.items()}
        self.records.append(json.dumps(record))
        self.run.log_metrics({k: v for k, v in record.items() if k != "step"}, step=state.step)
        if time.monotonic() - self.said >= SECONDS_BETWEEN_LINES or state.step == self.total:
            self.said = time.monotonic()
            left = (self.total - state.step) * self.origin.config.batch / record["images_per_s"]
            print(
                f"train-gan: {record['kimg']:.2f} of {self.origin.config.kimg:g} kimg, "
                f"{record['images_per_s']:.1f} images/s, p {state.augment_p:.3f}, "
                f"{left:.0f} s left",
                flush=True,
            )

    def snapshot(self, state: TrainingState) -> None:
        """Writes the log and a grid of samples, one row a class."""
        self.store.write_bytes("log.jsonl", ("\n".join(self.records) + "\n").encode())
        classes = len(self.origin.classes)
        labels = np.repeat(np.eye(classes, dtype=np.float32), GRID_COLUMNS, axis=0)
        # the same seeds in every row: what differs between the rows is the class alone
        grid = tile(self._images(state, list(range(GRID_COLUMNS)) * classes, labels), GRID_COLUMNS)
        name = f"samples/{state.step:08d}.png"
        self.store.write_bytes(name, encode_png(grid))
        self.run.log_bytes(encode_png(grid), name)

    def finish(self, state: TrainingState) -> None:
        """Writes the last grid, the strips along the soft-label path, and the totals."""
        self.snapshot(state)
        path = label_path(len(self.origin.classes), PATH_STEPS)
        seeds = np.repeat(np.arange(len(path)), PATH_STEPS).tolist()
        strips = tile(self._images(state, seeds, path.reshape(-1, path.shape[-1])), PATH_STEPS)
        self.store.write_bytes("label_path.png", encode_png(strips))
        self.run.log_bytes(encode_png(strips), "label_path.png")
        # a process that found the training complete has no speed of its own to tell
        if state.step > self.first_step or not self.store.exists("training.json"):
            totals = {"kimg": self._kimg(state), "images_per_s": self._images_per_s(state)}
            self.store.write_json("training.json", totals)

    def _images(self, state: TrainingState, seeds: list[int], labels: np.ndarray) -> np.ndarray:
        config = SamplingConfig(noise_mode="const")
        device = state.pl_mean.device
        return sample_images(state.generator_ema, seeds, labels, config, device)

    def _kimg(self, state: TrainingState) -> float:
        return state.step * self.origin.config.batch / 1000

    def _images_per_s(self, state: TrainingState) -> float:
        steps = state.step - self.first_step
        return steps * self.origin.config.batch / max(time.monotonic() - self.began, 1e-9)
