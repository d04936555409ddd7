"""Training of one classifier on soft labels.

The order of the images, their variation and the first weights are functions of the seed and the
step alone; batches run across the ends of epochs, so that none is short.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor

from gemix.classifier.augment.ct import Normalization, augment
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.distributed import data_parallel, local_indices
from gemix.classifier.models import Architecture, build
from gemix.classifier.predict import predict_logits
from gemix.core.device import default_device
from gemix.core.distributed import Workers
from gemix.core.errors import DataError, GemixError
from gemix.core.rng import Stream, permutation, sample_rng
from gemix.data.image_set import ImageSet

WARMUP = 0.05  # of all steps
CRITERION = "macro_f2"

Scorer = Callable[[np.ndarray, np.ndarray], Mapping[str, float | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """The best epoch of a training.

    Attributes:
        architecture: of the network.
        state: its weights, on the CPU.
        normalization: what it wants its images normalised by.
        history: one mapping an epoch: `epoch` (from 1), `train_loss`, `val_loss`, `lr` and
            ``val_<name>`` for each score.
        best: the row of the best epoch.
    """

    architecture: Architecture
    state: dict[str, Tensor]
    normalization: Normalization
    history: list[dict[str, float]]
    best: dict[str, float]


def train(
    training: ImageSet,
    validation: ImageSet,
    config: ClassifierConfig,
    score: Scorer,
    *,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    allow_overlap: bool = False,
) -> Trained:
    """Trains a classifier and keeps the epoch of the best validation macro-F2.

    Under torch.distributed every worker calls this with the same arguments, takes its share of
    each batch, and returns the same.

    Args:
        training: real, or real and synthetic images; soft labels are the targets.
        validation: real images; ties in macro-F2 go to the lower loss on them.
        config: how; `config.seed` is the seed of this training, and a null `epoch_images` shows
            each image of `training` once an epoch.
        score: rates, `macro_f2` among them, from labels and predicted classes, int [N] each.
        on_epoch: called with each row of the history as it is complete.
        allow_overlap: whether the two sets may share groups.

    Raises:
        DataError: if the two sets differ in classes or image shape, or share a group.
        ConfigError: for a model that cannot be built.
        GemixError: if the loss stops being finite.
    """
    check_sets(training, validation, allow_overlap=allow_overlap)
    device = default_device()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainer = _Trainer(training, config, device, Workers.from_process_group())
        history: list[dict[str, float]] = []
        best, state = None, {}
        for epoch in range(config.epochs):
            row = {"epoch": epoch + 1, **trainer.run_epoch(epoch)}
            row |= trainer.validate(validation, score)
            history.append(row)
            if best is None or _rank(row) > _rank(best):
                best, state = row, trainer.snapshot()
            on_epoch(row)
    return Trained(
        architecture=trainer.architecture,
        state=state,
        normalization=trainer.normalization,
        history=history,
        best=best,
    )


def check_sets(training: ImageSet, held_out: ImageSet, *, allow_overlap: bool = False) -> None:
    """Whether `held_out` can judge what was trained on `training`.

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


def _rank(row: Mapping[str, float]) -> tuple[float, float]:
    return row[f"val_{CRITERION}"], -row["val_loss"]


class _Trainer:
    """One training: network, optimizer, schedule, and images on the device."""

    def __init__(
        self, training: ImageSet, config: ClassifierConfig, device: torch.device, workers: Workers
    ):
        self.config, self.device, self.workers = config, device, workers
        self.positions = local_indices(workers, config.batch)
        self.normalization = Normalization.of(training.images)
        self.images = torch.from_numpy(np.ascontiguousarray(training.images)).to(device)
        self.targets = torch.from_numpy(training.soft_labels).to(device)
        self.architecture = Architecture(
            model=config.model,
            classes=len(training.classes),
            channels=training.images.shape[1],
            resolution=training.images.shape[-1],
        )
        _seed_torch(config.seed, 0)
        network = build(self.architecture, pretrained=config.pretrained, weights=config.weights)
        self.network = network.to(device, memory_format=torch.channels_last)
        self.parallel = data_parallel(self.network, workers)
        _seed_torch(config.seed, 1 + workers.rank)  # dropout differs between the workers
        self.optimizer = create_optimizer_v2(
            self.network, "adamw", lr=config.lr, weight_decay=config.weight_decay
        )
        self.steps = max(1, round((config.epoch_images or len(training)) / config.batch))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, functools.partial(_warm_cosine, total=self.steps * config.epochs)
        )

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Takes the steps of one epoch; returns their mean loss and the last learning rate."""
        self.parallel.train()
        losses = []
        for step, rows in self.batches(epoch):
            images = augment(
                self.normalization(self.images[rows]),
                seed=self.config.seed,
                positions=self.positions,
                step=step,
                horizontal_flip=self.config.horizontal_flip,
            )
            logits = self.parallel(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, self.targets[rows])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.detach())
        mean = self.workers.all_reduce_mean(torch.stack(losses).mean())
        return {"train_loss": self.finite(mean), "lr": self.schedule.get_last_lr()[0]}

    def batches(self, epoch: int) -> Iterator[tuple[int, Tensor]]:
        """Steps of an epoch, each with this worker's rows of its global batch."""
        order = functools.lru_cache(maxsize=2)(
            lambda turn: permutation(
                self.config.seed, Stream.CLASSIFIER_ORDER, len(self.images), step=turn
            )
        )
        for step in range(epoch * self.steps, (epoch + 1) * self.steps):
            places = [
                divmod(step * self.config.batch + position, len(self.images))
                for position in self.positions
            ]
            rows = [int(order(turn)[place]) for turn, place in places]
            yield step, torch.tensor(rows, device=self.device)

    def validate(self, validation: ImageSet, score: Scorer) -> dict[str, float]:
        """Loss and scores on all of the validation images, shared out among the workers."""
        self.workers.broadcast_tensors(self.network.buffers())
        share = slice(self.workers.rank, None, self.workers.size)
        logits = predict_logits(self.network, self.normalization, validation.images[share])
        logits = self.workers.all_gather_rows(logits, len(validation))
        loss = F.cross_entropy(logits, torch.from_numpy(validation.soft_labels).to(logits.device))
        scores = score(validation.labels, logits.argmax(dim=1).cpu().numpy())
        named = {f"val_{name}": value for name, value in scores.items() if value is not None}
        return {"val_loss": self.finite(loss), **named}

    def finite(self, loss: Tensor) -> float:
        """The loss, if it is a finite number."""
        value = loss.item()
        if not math.isfinite(value):
            raise GemixError(
                f"{self.config.model}: the loss is {value}; lower classifier.lr "
                f"({self.config.lr:g})"
            )
        return value

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the weights, on the CPU."""
        state = self.network.state_dict()
        return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def _seed_torch(seed: int, index: int) -> None:
    """Seeds what only knows torch's global generator: first weights and dropout."""
    torch.manual_seed(int(sample_rng(seed, Stream.INIT, index).integers(2**63)))


def _warm_cosine(step: int, total: int) -> float:
    """Rises linearly over the first steps, then falls to 0 along half a cosine."""
    warmup = max(1, round(WARMUP * total))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
