"""A trained classifier as a directory: weights, and all that is needed to use them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gemix.classifier.augment.ct import Normalization
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import Architecture, build
from gemix.classifier.predict import predict_logits
from gemix.classifier.train import Trained
from gemix.core.device import default_device
from gemix.core.errors import CheckpointError, DataError
from gemix.io.storage import Store

WEIGHTS = "model.safetensors"
MODEL = "model.json"
_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained classifier.

    Attributes:
        architecture, normalization: how to rebuild and feed the network.
        classes: the K class names.
        method: what it was trained on: "real", or the method of the synthetic images added.
        config: how it was trained, its own seed included.
        training_digest: of the images that it was trained on.
        history: one mapping an epoch, as :class:`~gemix.classifier.train.Trained` has it.
        validation: the row of the best epoch, whose weights these are.
        state: the weights, on the CPU.
    """

    architecture: Architecture
    normalization: Normalization
    classes: tuple[str, ...]
    method: str
    config: ClassifierConfig
    training_digest: str
    history: tuple[Mapping[str, float], ...]
    validation: Mapping[str, float]
    state: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        trained: Trained,
        *,
        classes: Sequence[str],
        method: str,
        config: ClassifierConfig,
        training_digest: str,
    ) -> Self:
        """The classifier that a training ended with."""
        return cls(
            architecture=trained.architecture,
            normalization=trained.normalization,
            classes=tuple(classes),
            method=method,
            config=config,
            training_digest=training_digest,
            history=tuple(trained.history),
            validation=trained.best,
            state=trained.state,
        )

    @functools.cached_property
    def network(self) -> nn.Module:
        """The network with its weights, in evaluation mode, on the GPU where there is one."""
        network = build(self.architecture)
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            raise CheckpointError(
                f"weights of {self.method}, seed {self.config.seed}, do not fit "
                f"{self.architecture.model}; another timm version may name its layers "
                f"differently: {str(error).splitlines()[0]}"
            ) from error
        return network.eval().to(default_device(), memory_format=torch.channels_last)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities.

        Args:
            images: 0 to 255, uint8 or float, [N, C, H, W] of the classifier's own shape.

        Returns:
            float32 [N, K], rows sum to 1.

        Raises:
            DataError: for images of another shape.
        """
        side = self.architecture.resolution
        wanted = (self.architecture.channels, side, side)
        if images.ndim != 4 or images.shape[1:] != wanted:
            raise DataError(
                f"images of shape {list(images.shape)}; the classifier takes [N, "
                f"{', '.join(map(str, wanted))}], so prepare them at its resolution"
            )
        if not len(images):
            return np.empty((0, len(self.classes)), np.float32)
        logits = predict_logits(self.network, self.normalization, images)
        return logits.softmax(dim=1).cpu().numpy()

    def save(self, store: Store) -> None:
        """Writes the directory, ``model.json`` last."""
        store.write_bytes(WEIGHTS, safetensors.torch.save(dict(self.state)))
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "state"
        }
        plain |= {
            "version": _VERSION,
            "architecture": dataclasses.asdict(self.architecture),
            "normalization": dataclasses.asdict(self.normalization),
            "config": self.config.to_mapping(),
            "seed": self.config.seed,
        }
        store.write_json(MODEL, plain)

    @classmethod
    def load(cls, store: Store) -> Self:
        """Reads the directory back.

        Raises:
            CheckpointError: if there is no finished classifier, or it is damaged.
        """
        if not store.exists(MODEL):
            raise CheckpointError(
                f"{store.url}: no finished classifier ({MODEL} is not there); run gemix "
                "train-classifier"
            )
        tree = store.read_json(MODEL)
        try:
            normalization = {k: tuple(v) for k, v in tree["normalization"].items()}
            return cls(
                architecture=Architecture(**tree["architecture"]),
                normalization=Normalization(**normalization),
                classes=tuple(tree["classes"]),
                method=tree["method"],
                config=ClassifierConfig.from_mapping(tree["config"]),
                training_digest=tree["training_digest"],
                history=tuple(tree["history"]),
                validation=tree["validation"],
                state=safetensors.torch.load(store.read_bytes(WEIGHTS)),
            )
        except (KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
            raise CheckpointError(
                f"{store.url}: a damaged classifier, or one of another gemix ({error!r}); train it "
                "again with --overwrite"
            ) from error


def is_finished(
    store: Store, *, method: str, config: ClassifierConfig, training_digest: str
) -> bool:
    """Whether the directory holds a classifier of exactly these settings and images."""
    if not store.exists(MODEL):
        return False
    tree: dict[str, Any] = store.read_json(MODEL)
    wanted = {"method": method, "config": config.to_mapping(), "training_digest": training_digest}
    return all(tree.get(name) == value for name, value in wanted.items())
