"""One training: network, optimizer, schedule, and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from gemix.classifier.augment.base import AugmentContext
from gemix.classifier.augment.registry import load_augmentation
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.distributed import (
    averaged_gradients,
    batch_parts,
    data_parallel,
    keep_statistics_pace,
)
from gemix.classifier.loss import balanced_class_weights, soft_cross_entropy
from gemix.classifier.models import ModelSpec, build
from gemix.classifier.normalization import Normalization
from gemix.classifier.optimizer import build_optimizer, build_schedule
from gemix.classifier.predict import predict_logits
from gemix.classifier.recipes.base import RecipeContext
from gemix.classifier.recipes.registry import build_recipe
from gemix.core.device import (
    compute_dtype,
    image_memory,
    match_memory_format,
    resolve_precision,
    wrap_compile_errors,
)
from gemix.core.distributed import Workers
from gemix.core.errors import GemixError
from gemix.core.rng import Stream, sample_rng
from gemix.data.image_set import ImageSet

Scorer = Callable[[np.ndarray, np.ndarray], Mapping[str, float | None]]
"""Rates, `macro_f2` among them, from labels and predicted classes, int [N] each."""


class Trainer:
    """The mechanics of one training, on one of its workers.

    Attributes:
        spec, normalization: of the network and of its images.
        steps: of an epoch.
    """

    def __init__(
        self,
        training: ImageSet,
        real_images: int,
        config: ClassifierConfig,
        device: torch.device,
        workers: Workers,
    ):
        self.config, self.device, self.workers = config, device, workers
        self.parts = batch_parts(workers, config.batch, config.accumulate)
        self.augment = load_augmentation(config.augment)
        self.normalization = Normalization.of(training.images)
        self.images = torch.from_numpy(np.ascontiguousarray(training.images))
        if self.images.nbytes <= image_memory(device):
            self.images = self.images.to(device)
        self.targets = torch.from_numpy(training.soft_labels).to(device)
        self.class_weights: Tensor | None = None
        if config.balance == "loss":
            counted = training.labels[: real_images or None]
            weights = balanced_class_weights(counted, training.classes)
            self.class_weights = weights.to(device)
        self.spec = ModelSpec(
            model=config.model,
            classes=len(training.classes),
            channels=training.images.shape[1],
            resolution=training.images.shape[-1],
        )
        _seed_torch(config.seed, 0)
        network = build(self.spec, pretrained=config.pretrained, weights=config.weights)
        self.network = network.to(device, memory_format=torch.channels_last)
        keep_statistics_pace(self.network, config.accumulate)
        self.average: ModelEmaV3 | None = None
        if config.ema is not None:
            # early weights, which later ones leave behind, are forgotten faster
            self.average = ModelEmaV3(self.network, decay=config.ema, use_warmup=True)
        self.parallel = data_parallel(self.network, workers)
        self.forward = self.parallel
        if config.compile:
            self.forward = torch.compile(self.parallel, dynamic=False)
        precision = config.precision
        if precision == "auto":
            precision = resolve_precision(device, workers)
        self.dtype = compute_dtype(precision, device)
        self.optimizer = build_optimizer(self.network, config)
        self.steps = max(1, round((config.epoch_images or len(training)) / config.batch))
        total = self.steps * config.epochs
        self.recipe = build_recipe(
            config.recipe,
            RecipeContext.of(config, training.labels, real=real_images, steps=total),
        )
        self.schedule = build_schedule(self.optimizer, config.warmup, self.recipe.restarts, total)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: of averaged weights where there are some."""
        return self.network if self.average is None else self.average.module

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; return the mean loss and the last learning rate."""
        # dropout differs between the workers, and the epochs before it do not matter
        _seed_torch(self.config.seed, 1 + self.workers.rank, epoch)
        self.parallel.train()
        losses = []
        for step, parts in self.batches(epoch):
            self.optimizer.zero_grad(set_to_none=True)
            for number, (batch_indices, rows) in enumerate(parts, start=1):
                # once a step, in the last backward pass
                with (
                    averaged_gradients(self.parallel, number == len(parts)),
                    wrap_compile_errors("classifier.compile"),
                ):
                    loss = self.loss(step, batch_indices, rows)
                    (loss / len(parts)).backward()
                losses.append(loss.detach())
            self.update(step)
        mean = self.workers.all_reduce_mean(torch.stack(losses).mean())
        return {"train_loss": self.finite(mean), "lr": self.schedule.get_last_lr()[0]}

    def update(self, step: int) -> None:
        """Take a step of the optimizer along the gradients, which are equal on all workers."""
        if self.config.clip_grad is not None:
            clip_grad_norm_(self.network.parameters(), self.config.clip_grad)
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.network, step + 1)

    def loss(self, step: int, batch_indices: Sequence[int], rows: Tensor) -> Tensor:
        """Return the mean loss of the images of one part of a batch.

        Args:
            batch_indices: of the images in the global batch.
            rows: of the images in the training set, int64 [n].
        """
        context = AugmentContext(
            seed=self.config.seed,
            step=step,
            batch_indices=batch_indices,
            horizontal_flip=self.config.horizontal_flip,
        )
        pixels = self.images[rows.to(self.images.device)].to(self.device)
        images, targets = self.augment(self.normalization(pixels), self.targets[rows], context)
        low_precision = torch.autocast(
            self.device.type, self.dtype, enabled=self.dtype != torch.float32
        )
        with self.augment.hooked(self.network, context), low_precision:
            logits = self.forward(images.contiguous(memory_format=torch.channels_last))
        return soft_cross_entropy(
            logits.float(),
            targets,
            row_weights=self.recipe.weights(rows),
            class_weights=self.class_weights,
            label_smoothing=self.config.label_smoothing,
        )

    def batches(self, epoch: int) -> Iterator[tuple[int, list[tuple[list[int], Tensor]]]]:
        """Yield the steps of an epoch, each with the parts of this worker's share of the batch.

        A part is its indices into the global batch and its rows of the training set.
        """
        for step in range(epoch * self.steps, (epoch + 1) * self.steps):
            rows = [self.recipe.rows(step, indices) for indices in self.parts]
            yield (
                step,
                [
                    (indices, torch.tensor(found, device=self.device))
                    for indices, found in zip(self.parts, rows, strict=True)
                ],
            )

    def validate(self, validation: ImageSet, score: Scorer) -> tuple[dict[str, float], np.ndarray]:
        """Return loss and scores on all validation images, and their logits, float32 [N, K].

        The workers share the images.
        """
        self.workers.broadcast_tensors(self.evaluated.buffers())
        share = slice(self.workers.rank, None, self.workers.size)
        logits = predict_logits(self.evaluated, self.normalization, validation.images[share])
        logits = self.workers.all_gather_rows(logits, len(validation))
        loss = F.cross_entropy(logits, torch.from_numpy(validation.soft_labels).to(logits.device))
        found = logits.cpu().numpy()
        scores = score(validation.labels, found.argmax(axis=1))
        named = {f"val_{name}": value for name, value in scores.items() if value is not None}
        return {"val_loss": self.finite(loss), **named}, found

    def stops_early(self, row: Mapping[str, float], kept: Mapping[str, float] | None) -> bool:
        """Return whether the training ends after the epoch of `row`; rank 0 decides for all."""
        patience = self.config.early_stopping
        if patience is None or kept is None:
            return False
        has_stalled = row["epoch"] - kept["epoch"] >= patience
        return self.workers.broadcast_bool(has_stalled, self.device)

    def finite(self, loss: Tensor) -> float:
        """Return the loss; raise if it is not finite."""
        value = loss.item()
        if not math.isfinite(value):
            raise GemixError(
                f"{self.config.model}: the loss is {value}; lower classifier.lr "
                f"({self.config.lr:g})"
            )
        return value

    def state(self) -> dict[str, Any]:
        """Return all that the epochs to come depend on, a tree of tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned at the end of an epoch."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        match_memory_format(self.optimizer)
        self.schedule.load_state_dict(state["schedule"])

    def snapshot(self) -> dict[str, Tensor]:
        """Return a copy of the evaluated weights, on the CPU."""
        state = self.evaluated.state_dict()
        return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def _seed_torch(seed: int, index: int, step: int = 0) -> None:
    """Seed torch's global generator, which initial weights and dropout draw from."""
    torch.manual_seed(int(sample_rng(seed, Stream.INIT, index, step).integers(2**63)))
