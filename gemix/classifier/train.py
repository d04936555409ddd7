"""Training of one classifier on soft labels.

Image order, augmentation and initial weights are functions of seed and step alone. Batches run
across the ends of epochs, so that none is short.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

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
from gemix.core.device import compute_dtype, default_device, resolve_precision
from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError, DataError, GemixError
from gemix.core.rng import Stream, sample_rng
from gemix.data.image_set import ImageSet

CRITERION = "macro_f2"

Scorer = Callable[[np.ndarray, np.ndarray], Mapping[str, float | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The epoch that a training kept, the best one or the last.

    Attributes:
        spec: of the network.
        state: its weights, on the CPU.
        normalization: of its images.
        history: one mapping for each epoch that ran: `epoch` (from 1), `train_loss`, `val_loss`,
            `lr` and ``val_<name>`` for each score.
        kept: the row of the epoch whose weights these are.
        validation_logits: of the validation images, float32 [N, K].
        steps: of the optimizer, in all epochs that ran.
    """

    spec: ModelSpec
    state: dict[str, Tensor]
    normalization: Normalization
    history: list[dict[str, float]]
    kept: dict[str, float]
    validation_logits: np.ndarray
    steps: int

    @property
    def predicted(self) -> np.ndarray:
        """The classes that it predicts for the validation images, int64 [N]."""
        return self.validation_logits.argmax(axis=1)


def train(
    training: ImageSet,
    validation: ImageSet,
    config: ClassifierConfig,
    score: Scorer,
    *,
    real_images: int | None = None,
    keep: Literal["best", "last"] = "best",
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    allow_overlap: bool = False,
) -> TrainingResult:
    """Train a classifier and keep the epoch of the best validation macro-F2, or the last one.

    Under torch.distributed every worker calls this with the same arguments, takes its share of
    each batch, and returns the same.

    Args:
        training: real, or real and synthetic images; soft labels are the targets.
        validation: real images; ties in macro-F2 go to the lower loss on them.
        config: how; `config.seed` is the seed of this training, and a null `epoch_images` shows
            each image of `training` once an epoch.
        score: rates, `macro_f2` among them, from labels and predicted classes, int [N] each.
        real_images: how many of `training`, its first ones, are real, for ``classifier.recipe``;
            by default all.
        keep: with ``last`` the weights owe nothing to the validation images, which then cannot stop
            a training early.
        on_epoch: called with each row of the history when the epoch is complete.
        allow_overlap: whether the two sets may share groups.

    Raises:
        DataError: if the two sets differ in classes or image shape, or share a group.
        ConfigError: for a model or an optimizer that cannot be built, or ``keep="last"`` with
            ``classifier.early_stopping``.
        GemixError: if the loss stops being finite.
    """
    check_sets(training, validation, allow_overlap=allow_overlap)
    if keep == "last" and config.early_stopping is not None:
        raise ConfigError(
            f"early_stopping {config.early_stopping} chooses the epoch by validation images, which "
            'keep="last" rules out; set it to null'
        )
    device = default_device()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainer = _Trainer(
            training,
            len(training) if real_images is None else real_images,
            config,
            device,
            Workers.from_process_group(),
        )
        history: list[dict[str, float]] = []
        kept, state, logits = None, {}, np.empty((0, 0), np.float32)
        for epoch in range(config.epochs):
            row = {"epoch": epoch + 1, **trainer.run_epoch(epoch)}
            scores, found = trainer.validate(validation, score)
            row |= scores
            history.append(row)
            is_best = kept is None or rank_of_epoch(row) > rank_of_epoch(kept)
            if {"best": is_best, "last": epoch + 1 == config.epochs}[keep]:
                kept, state, logits = row, trainer.snapshot(), found
            on_epoch(row)
            if trainer.stops_early(row, kept):
                break
    return TrainingResult(
        spec=trainer.spec,
        state=state,
        normalization=trainer.normalization,
        history=history,
        kept=kept,
        validation_logits=logits,
        steps=trainer.steps * len(history),
    )


def check_sets(training: ImageSet, held_out: ImageSet, *, allow_overlap: bool = False) -> None:
    """Check that `held_out` can test a classifier trained on `training`.

    Raises:
        DataError: if classes or image shapes differ, or, unless `allow_overlap` is set, images of
            one group are in both.
    """
    ours, theirs = (
        f"classes {list(s.classes)}, {' x '.join(map(str, s.images.shape[1:]))} pixels"
        for s in (training, held_out)
    )
    if ours != theirs:
        raise DataError(
            f"training images have {ours}, held-out images {theirs}; prepare both alike"
        )
    shared = sorted(set(training.groups) & set(held_out.groups))
    if shared and not allow_overlap:
        raise DataError(
            f"{len(shared)} patients or groups are both in training and held out, {shared[0]!r} "
            "for one: scores would measure memory; run gemix prepare again"
        )


def rank_of_epoch(row: Mapping[str, float]) -> tuple[float, float]:
    """Return what the best epoch of a training has most of: macro-F2, then a low loss."""
    return row[f"val_{CRITERION}"], -row["val_loss"]


class _Trainer:
    """One training: network, optimizer, schedule, and images on the device."""

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
        self.images = torch.from_numpy(np.ascontiguousarray(training.images)).to(device)
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
        precision = config.precision
        if precision == "auto":
            precision = resolve_precision(device, workers)
        self.dtype = compute_dtype(precision, device)
        _seed_torch(config.seed, 1 + workers.rank)  # dropout differs between the workers
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
        self.parallel.train()
        losses = []
        for step, parts in self.batches(epoch):
            self.optimizer.zero_grad(set_to_none=True)
            for number, (batch_indices, rows) in enumerate(parts, start=1):
                # once a step, in the last backward pass
                with averaged_gradients(self.parallel, number == len(parts)):
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
        images, targets = self.augment(
            self.normalization(self.images[rows]), self.targets[rows], context
        )
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.parallel(images.contiguous(memory_format=torch.channels_last))
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

    def snapshot(self) -> dict[str, Tensor]:
        """Return a copy of the evaluated weights, on the CPU."""
        state = self.evaluated.state_dict()
        return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def _seed_torch(seed: int, index: int) -> None:
    """Seed torch's global generator, which initial weights and dropout draw from."""
    torch.manual_seed(int(sample_rng(seed, Stream.INIT, index).integers(2**63)))
