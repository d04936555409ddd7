"""Classifiers whose answer to every image is chosen: real networks, whose head is fitted to it.

An image shows one of 12 patterns with a little noise. The features of an untrained network tell
them apart, and a linear head gives each pattern the class that the test wants.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import ModelSpec, build
from gemix.classifier.normalization import Normalization
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.evaluation.label_fidelity.measure import label_fidelity
from gemix.io.records import write_record
from gemix.io.storage import Store
from gemix.synthesis.teacher import TEACHER, TeacherRow

CLASSES = ("normal", "pneumonia", "cancer")
PATTERNS = 12
SIDE = 32
SPEC = ModelSpec(model="test_resnet", classes=3, channels=1, resolution=SIDE)
NORMALIZATION = Normalization(mean=(0.5,), std=(0.3,))


def images_of(patterns: Sequence[int], seed: int) -> np.ndarray:
    """Images of these patterns: uint8 [N, 1, 32, 32]."""
    blocks = np.random.default_rng(0).integers(40, 216, (PATTERNS, 4, 4))
    whole = blocks.repeat(8, axis=1).repeat(8, axis=2)
    noise = np.random.default_rng(seed).normal(0, 2, (len(patterns), SIDE, SIDE))
    return (whole[list(patterns)] + noise).clip(0, 255).astype(np.uint8)[:, None]


def write_set(
    url: str, splits: Mapping[str, Sequence[tuple[int, int]]], *, kind: str = "real", seed: int = 0
) -> Manifest:
    """A shard set of (pattern, class) pairs by split, each image of a patient of its own."""
    store, entries = Store(url), []
    for number, (split, pairs) in enumerate(splits.items()):
        patterns, labels = (np.array(column) for column in zip(*pairs, strict=True))
        names = [f"{kind}-{split}-{row}" for row in range(len(pairs))]
        columns = to_columns(
            images_of(patterns, 10 * seed + number),
            np.eye(len(CLASSES))[labels],
            class_index=labels,
            patients=names,
            sources=names,
        )
        entries.append(write_shard(store, f"{split}.parquet", columns, split, CLASSES))
    manifest = Manifest.of(entries, kind=kind, classes=CLASSES, resolution=SIDE, channels=1)
    manifest.save(store)
    return manifest


def planted(
    answers: Sequence[int],
    *,
    method: str = "real",
    training_digest: str,
    seed: int = 0,
    score: float = 0.9,
    classes: Sequence[str] = CLASSES,
) -> Classifier:
    """A classifier that gives pattern i the class ``answers[i]`` and claims a validation score."""
    state, features = _body()
    targets = np.eye(len(CLASSES))[np.repeat(answers, 8)] - 1 / len(CLASSES)
    with_one = np.hstack([features, np.ones((len(features), 1))])
    fitted = 6 * np.linalg.lstsq(with_one, targets, rcond=1e-6)[0]
    head = {
        "fc.weight": torch.tensor(fitted[:-1].T, dtype=torch.float32),
        "fc.bias": torch.tensor(fitted[-1], dtype=torch.float32),
    }
    validation = {"epoch": 1, "val_macro_f2": score, "val_macro_recall": score, "val_loss": 1.0}
    return Classifier(
        spec=SPEC,
        normalization=NORMALIZATION,
        classes=tuple(classes),
        method=method,
        config=ClassifierConfig(model=SPEC.model, seed=seed),
        training_digest=training_digest,
        history=(validation,),
        validation=validation,
        state=state | {name: value.contiguous() for name, value in head.items()},
    )


def write_teacher(store: Store, teacher: Classifier) -> None:
    """Write a finished directory of one teacher, which claims to make no mistake."""
    teacher.save(store / "seed0")
    perfect = np.eye(len(teacher.classes))
    real = label_fidelity(perfect, perfect)
    row = TeacherRow(name="seed0", seed=0, checksum=teacher.checksum, real=real)
    write_record(store, TEACHER, [row])


@functools.cache
def _body() -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Weights of an untrained network, and its features of 8 images a pattern."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(SPEC).eval()
    images = images_of(np.repeat(np.arange(PATTERNS), 8), seed=999)
    pixels = (torch.from_numpy(images) / 255 - NORMALIZATION.mean[0]) / NORMALIZATION.std[0]
    with torch.no_grad():
        features = network.forward_head(network.forward_features(pixels), pre_logits=True)
    return network.state_dict(), features.double().numpy()
