"""Training of one classifier on soft labels.

Image order, augmentation and initial weights are functions of seed and step alone. Batches run
across the ends of epochs, so that none is short.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from gemix.classifier.checkpoint import Checkpoints
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import ModelSpec
from gemix.classifier.normalization import Normalization
from gemix.classifier.trainer import Scorer, Trainer
from gemix.core.device import default_device
from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError, DataError
from gemix.data.image_set import ImageSet

CRITERION = "macro_f2"


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
    checkpoints: Checkpoints | None = None,
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
        checkpoints: where an interrupted training of these arguments left its state, and where this
            one leaves its own; None for neither. It ends as one that was not interrupted.

    Raises:
        DataError: if the two sets differ in classes or image shape, or share a group, or if a class
            that ``classifier.balance=loss`` weights has no image.
        ConfigError: for a model or an optimizer that cannot be built, a model whose features cannot
            be mixed as ``classifier.augment`` asks, or ``keep="last"`` with
            ``classifier.early_stopping``.
        GemixError: if the loss stops being finite.
    """
    check_sets(training, validation, allow_overlap=allow_overlap)
    if keep == "last" and config.early_stopping is not None:
        raise ConfigError(
            f"early_stopping {config.early_stopping} chooses the epoch by validation images, which "
            'keep="last" rules out; set it to null'
        )
    device, workers = default_device(), Workers.from_process_group()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainer = Trainer(
            training,
            len(training) if real_images is None else real_images,
            config,
            device,
            workers,
        )
        done = _Progress()
        if checkpoints is not None and (saved := checkpoints.load()) is not None:
            trainer.load_state(saved["trainer"])
            done = _Progress.of_state(saved["progress"])
        for epoch in range(len(done.history), config.epochs):
            row = {"epoch": epoch + 1, **trainer.run_epoch(epoch)}
            scores, logits = trainer.validate(validation, score)
            row |= scores
            done.history.append(row)
            is_best = done.kept is None or rank_of_epoch(row) > rank_of_epoch(done.kept)
            if {"best": is_best, "last": epoch + 1 == config.epochs}[keep]:
                done.kept, done.weights, done.logits = row, trainer.snapshot(), logits
            on_epoch(row)
            if trainer.stops_early(row, done.kept):
                break
            if checkpoints is not None and workers.rank == 0 and checkpoints.is_due():
                checkpoints.save({"trainer": trainer.state(), "progress": done.state()})
    return TrainingResult(
        spec=trainer.spec,
        state=done.weights,
        normalization=trainer.normalization,
        history=done.history,
        kept=done.kept,
        validation_logits=done.logits,
        steps=trainer.steps * len(done.history),
    )


@dataclasses.dataclass
class _Progress:
    """The epochs that have run, and the weights and logits of the one to keep so far."""

    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    kept: dict[str, float] | None = None
    weights: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    logits: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0), np.float32))

    def state(self) -> dict[str, Any]:
        """Return it as plain values and tensors."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {"logits": torch.from_numpy(self.logits)}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the progress that :meth:`state` was called on."""
        return cls(**{**state, "logits": state["logits"].numpy()})


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
