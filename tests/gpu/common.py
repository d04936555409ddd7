"""Helpers of the stages: the task, small networks to train, and results as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gemix.core.distributed import Workers
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.training.base_trainer import BaseTrainer
from gemix.gan.training.registry import METHODS, new_state

CLASSES = 3
SMALL = {"z_dim": 64, "w_dim": 64, "mapping_layers": 2, "channel_base": 1024, "channel_max": 64}


class Stage:
    """A stage's task from the command line, and its rows of results.

    Attributes:
        device: the GPU, or the CPU where there is none.
    """

    def __init__(self, name: str):
        self.task = json.loads(sys.argv[1])
        self.path = Path(self.task["out"]) / f"{name}.json"
        self.end = time.monotonic() + self.task["seconds"] - 5  # to start and to end
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.rows: list[dict[str, object]] = []

    @property
    def tiny(self) -> bool:
        """Whether the kit itself is tested."""
        return self.task["tiny"]

    @property
    def seconds_left(self) -> float:
        """Seconds until the stage is cut off."""
        return self.end - time.monotonic()

    def add(self, **row: object) -> None:
        """Write and print one more row."""
        self.rows.append(row)
        self.path.write_text(json.dumps(self.rows, indent=1))
        print(json.dumps(row), flush=True)

    def attempt(self, name: str, check: Callable[[], dict[str, object]]) -> None:
        """Add the row of one check; an error is a result too, and the next check runs."""
        started = time.monotonic()
        try:
            row = check()
        except Exception as error:
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            row = {"ok": False, "detail": f"{type(error).__name__}: {reason}"[:300]}
        self.add(check=name, **row, seconds=round(time.monotonic() - started, 2))


def small_config(**changes: object) -> GanConfig:
    """Return settings of small networks, with the augmentation of a later stage of training."""
    settings = {"batch": 16, "kimg": 100.0, "augment": "bgc", "augment_p": 0.5} | SMALL | changes
    settings = {"precision": "float32", "d_reg_interval": 4} | settings
    return GanConfig(**settings)


def trainer_for(
    config: GanConfig,
    resolution: int,
    device: torch.device,
    workers: Workers | None = None,
) -> BaseTrainer:
    """Return a new training on random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (256, 1, resolution, resolution), dtype=np.uint8)
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(256) % CLASSES]
    data = InMemoryDataset(images, labels, seed=0, device=device)
    shape = config.architecture(resolution=resolution, img_channels=1, label_dim=CLASSES)
    state = new_state(shape, config, device)
    return METHODS[config.method](state, data, config, workers or Workers())
