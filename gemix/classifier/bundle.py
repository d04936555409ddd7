"""A trained classifier as a directory: weights and everything needed to use them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gemix.classifier.config import ClassifierConfig
from gemix.classifier.decision.decision import UNFITTED, Decision
from gemix.classifier.models import ModelSpec, build, weights_sha256
from gemix.classifier.normalization import Normalization
from gemix.classifier.predict import predict_logits
from gemix.core.device import default_device
from gemix.core.errors import CheckpointError, ConfigError, DataError
from gemix.io.storage import Store

if TYPE_CHECKING:
    from gemix.classifier.train import TrainingResult

WEIGHTS = "model.safetensors"
MODEL = "model.json"
_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained classifier.

    Attributes:
        spec, normalization: how to rebuild and feed the network.
        classes: the K class names.
        method: what it was trained on: "real", the method of the synthetic images added, or
            "<method>-only" for synthetic images alone.
        config: how it was trained, its own seed included. On disk `weights` is the file's name.
        training_digest: of the images that it was trained on.
        history: one mapping an epoch, as :class:`~gemix.classifier.train.TrainingResult` has it.
        validation: the row of the epoch whose weights these are.
        state: the weights, on the CPU.
        validation_confusion: counts of the validation images, [K][K], rows are the truth; None
            where an earlier version trained it.
        preprocessing: the settings that turned scans into its training images, plain values; None
            where they are not on record.
        decision: from its logits to probabilities and classes.
        weights_sha256: of the file `config.weights` that its training started from; None without
            one, or where an earlier version trained it.
    """

    spec: ModelSpec
    normalization: Normalization
    classes: tuple[str, ...]
    method: str
    config: ClassifierConfig
    training_digest: str
    history: tuple[Mapping[str, float], ...]
    validation: Mapping[str, float]
    state: Mapping[str, Tensor]
    validation_confusion: tuple[tuple[int, ...], ...] | None = None
    preprocessing: Mapping[str, Any] | None = None
    decision: Decision = UNFITTED
    weights_sha256: str | None = None

    @classmethod
    def of(
        cls,
        trained: TrainingResult,
        *,
        classes: Sequence[str],
        method: str,
        config: ClassifierConfig,
        training_digest: str,
        validation_confusion: np.ndarray | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        decision: Decision = UNFITTED,
    ) -> Self:
        """Return the classifier that a training ended with.

        Args:
            trained: the training.
            classes, method, config, training_digest, preprocessing, decision: the attributes.
            validation_confusion: int64 [K, K], of the best epoch.

        Raises:
            ConfigError: if the file of pretrained weights is gone.
        """
        confusion = None if validation_confusion is None else validation_confusion.tolist()
        return cls(
            spec=trained.spec,
            normalization=trained.normalization,
            classes=tuple(classes),
            method=method,
            config=config,
            training_digest=training_digest,
            history=tuple(trained.history),
            validation=trained.kept,
            state=trained.state,
            validation_confusion=_confusion(confusion, len(classes)),
            preprocessing=preprocessing,
            decision=decision,
            weights_sha256=weights_sha256(config.weights),
        )

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"classifier {self.method}, seed {self.config.seed}"

    @functools.cached_property
    def checksum(self) -> str:
        """BLAKE2b-128 of the weights: 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in sorted(self.state.items()):
            digest.update(f"{name}:{value.dtype}:{list(value.shape)}:".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @functools.cached_property
    def network(self) -> nn.Module:
        """The network with its weights, in evaluation mode, on the GPU where there is one."""
        network = build(self.spec)
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.name}: the weights do not fit {self.spec.model} "
                f"({' '.join(str(error).split())[:200]}); install the timm version that it was "
                "trained with, or train it again with --overwrite"
            ) from error
        return network.eval().to(default_device(), memory_format=torch.channels_last)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return class probabilities, calibrated where the classifier's decision is.

        Args:
            images: 0 to 255, uint8 or float, [N, C, H, W] of the classifier's own shape.

        Returns:
            float32 [N, K], rows sum to 1.

        Raises:
            DataError: for images of another shape.
            CheckpointError: if probabilities are not finite.
        """
        return self.decision.probabilities(self.logits(images))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the network's logits, float32 [N, K], of images as :meth:`predict` takes them.

        Raises:
            DataError: for images of another shape.
            CheckpointError: if logits are not finite.
        """
        side = self.spec.resolution
        wanted = (self.spec.channels, side, side)
        if images.ndim != 4 or images.shape[1:] != wanted:
            raise DataError(
                f"images of shape {list(images.shape)}; the classifier takes [N, "
                f"{', '.join(map(str, wanted))}], so prepare them at its resolution"
            )
        if not len(images):
            return np.empty((0, len(self.classes)), np.float32)
        logits = predict_logits(self.network, self.normalization, images)
        if not logits.isfinite().all():
            bad = int((~logits.isfinite()).any(dim=1).sum())
            raise CheckpointError(
                f"{self.name}: its outputs are not finite for {bad} of {len(images)} images; "
                f"train it again with a classifier.lr below {self.config.lr:g}"
            )
        return logits.cpu().numpy()

    def save(self, store: Store) -> None:
        """Write the directory, ``model.json`` last.

        It may be handed on: of the file of pretrained weights it has the name and the SHA-256, and
        not where it was.
        """
        store.write_bytes(WEIGHTS, safetensors.torch.save(dict(self.state)))
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("state", "spec", "decision")
        }
        plain |= {
            "version": _VERSION,
            "architecture": dataclasses.asdict(self.spec),
            "normalization": dataclasses.asdict(self.normalization),
            "config": without_folder(self.config),
            "seed": self.config.seed,
            "decision": self.decision.to_json(),
        }
        store.write_json(MODEL, plain)

    @classmethod
    def load(cls, store: Store) -> Self:
        """Read the directory.

        Raises:
            CheckpointError: if there is no finished classifier, or it is damaged, of an unknown
                version, or has weights that are not finite.
        """
        if not store.exists(MODEL):
            raise CheckpointError(
                f"{store.url}: no finished classifier ({MODEL} is not there); run gemix "
                "train-classifier"
            )
        try:
            tree = store.read_json(MODEL)
            version = tree.get("version", 1)
            if version > _VERSION:
                raise CheckpointError(
                    f"{store.url}/{MODEL}: format {version}, and this gemix reads up to "
                    f"{_VERSION}; update gemix"
                )
            normalization = {k: tuple(v) for k, v in tree["normalization"].items()}
            loaded = cls(
                spec=ModelSpec(**tree["architecture"]),
                normalization=Normalization(**normalization),
                classes=tuple(tree["classes"]),
                method=tree["method"],
                config=ClassifierConfig.from_mapping(tree["config"]),
                training_digest=tree["training_digest"],
                history=tuple(tree["history"]),
                validation=tree["validation"],
                state=safetensors.torch.load(store.read_bytes(WEIGHTS)),
                validation_confusion=_confusion(
                    tree.get("validation_confusion"), len(tree["classes"])
                ),
                preprocessing=tree.get("preprocessing"),
                decision=_decision(tree.get("decision")),
                weights_sha256=tree.get("weights_sha256"),
            )
        except (
            *(KeyError, TypeError, AttributeError, ValueError),
            *(DataError, ConfigError, SafetensorError),
        ) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise CheckpointError(
                f"{store.url}: a damaged classifier ({reason}); run gemix train-classifier "
                "--overwrite"
            ) from error
        bad = [name for name, value in loaded.state.items() if not value.isfinite().all()]
        if bad:
            raise CheckpointError(
                f"{store.url}: {len(bad)} of {len(loaded.state)} weights are not finite, "
                f"{bad[0]!r} for one; run gemix train-classifier --overwrite with a classifier.lr "
                f"below {loaded.config.lr:g}"
            )
        return loaded


def without_folder(config: ClassifierConfig) -> dict[str, Any]:
    """Return the settings as plain values, with the name alone of the file `weights`."""
    settings = config.to_mapping()
    if config.weights is not None:
        settings["weights"] = PurePath(config.weights).name
    return settings


def _confusion(rows: Any, classes: int) -> tuple[tuple[int, ...], ...] | None:
    """Return a confusion matrix from nested lists; ValueError if it is none of K classes."""
    if rows is None:
        return None
    matrix = tuple(map(tuple, rows))
    counts = [count for row in matrix for count in row]
    if {len(matrix), *map(len, matrix)} != {classes} or not all(
        isinstance(count, int) and count >= 0 for count in counts
    ):
        raise ValueError(f"validation_confusion {rows}: want {classes} x {classes} counts")
    return matrix


def _decision(tree: Any) -> Decision:
    """Return a stored decision; classifiers of earlier versions have none."""
    return UNFITTED if tree is None else Decision.from_json(tree)


def is_finished(
    store: Store, *, method: str, config: ClassifierConfig, training_digest: str
) -> bool:
    """Return whether the directory holds a classifier of exactly these settings and images.

    A file of pretrained weights counts by its content, wherever it is now; by its name where an
    earlier version wrote the directory.

    Raises:
        ConfigError: if this file cannot be read.
    """
    if not store.exists(MODEL):
        return False
    tree: dict[str, Any] = store.read_json(MODEL)
    try:  # fields that a later version added have their defaults
        trained_with = ClassifierConfig.from_mapping(tree.get("config"))
    except ConfigError:
        return False
    if config.weights is not None and trained_with.weights is not None:
        started_from = tree.get("weights_sha256")
        if started_from is None:  # earlier versions recorded the path alone
            is_same = PurePath(config.weights).name == PurePath(trained_with.weights).name
        else:
            is_same = weights_sha256(config.weights) == started_from
        if not is_same:
            return False
        config = dataclasses.replace(config, weights=trained_with.weights)
    return (tree.get("method"), trained_with, tree.get("training_digest")) == (
        method,
        config,
        training_digest,
    )
