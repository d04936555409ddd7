"""Small work directories with untrained networks, for steps that only use them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import ModelSpec, build
from gemix.classifier.normalization import Normalization
from gemix.data.leakage.provenance import write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.generator_io import save_generator
from gemix.gan.config import GanConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.io.workspace import Workspace

CLASSES = ("benign", "malignant", "normal")
TRAIN = (12, 4, 2)  # images of each class

ARCHITECTURE = Architecture(
    resolution=16,
    img_channels=1,
    label_dim=3,
    z_dim=8,
    w_dim=8,
    mapping_layers=1,
    channel_base=64,
    channel_max=8,
)


def write_real(url: str, train: tuple[int, ...] = TRAIN, name: str = "") -> None:
    """Noise images: `train` of each class, and one each in the other splits."""
    store, entries = Store(url), []
    rng = np.random.default_rng(len(name))
    for split, counts in (("train", train), ("val", (1, 1, 1)), ("test", (1, 1, 1))):
        labels = np.repeat(np.arange(3), counts)
        columns = to_columns(
            rng.integers(0, 256, (len(labels), 1, 16, 16), dtype=np.uint8),
            np.eye(3)[labels],
            class_index=labels,
            patients=[f"{name}{split}-{index}" for index in range(len(labels))],
            sources=[f"{split}/{index}.png" for index in range(len(labels))],
        )
        entries.append(write_shard(store, f"{split}-00000.parquet", columns, split))
    Manifest.of(entries, kind="real", classes=CLASSES, resolution=16, channels=1).save(store)


def write_classifier(url: str, confusion, classes: tuple[str, ...] = CLASSES) -> str:
    """An untrained network that claims this confusion matrix of its validation images."""
    spec = ModelSpec(model="test_resnet", classes=len(classes), channels=1, resolution=16)
    with torch.random.fork_rng():
        state = build(spec).state_dict()
    Classifier(
        spec=spec,
        normalization=Normalization(mean=(0.5,), std=(0.3,)),
        classes=classes,
        method="real",
        config=ClassifierConfig(model="test_resnet"),
        training_digest="0" * 64,
        history=(),
        validation={"epoch": 1, "val_macro_f2": 0.5, "val_loss": 1.0},
        state=state,
        validation_confusion=confusion,
    ).save(Store(url))
    return url


def write_workspace(folder: Path) -> Workspace:
    """Real images, and a generator of their classes whose record says that it has seen none."""
    workspace = Workspace.at(folder)
    write_real(workspace.data)
    config = GanConfig(batch=8)
    spec = TrainingSpec(
        architecture=ARCHITECTURE, config=config, classes=CLASSES, data_digest="0" * 64
    )
    save_generator(Store(workspace.gan), new_state(ARCHITECTURE, config, torch.device("cpu")), spec)
    write_provenance(Store(workspace.gan), [])
    return workspace
