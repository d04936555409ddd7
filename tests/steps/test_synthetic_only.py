"""Train on synthetic images alone, test on real ones, beside real on real."""

from __future__ import annotations

import numpy as np
import pytest

from gemix.classifier.bundle import Classifier
from gemix.config import PipelineConfig
from gemix.data.leakage.provenance import write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.results import read_evaluation
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.report.verdict import method_name
from gemix.steps.evaluate import evaluate
from gemix.steps.train_classifier import train_classifiers

CONFIG = PipelineConfig.from_mapping(
    {
        "synthesis": {"methods": ["softmax", "onehot"]},
        "classifier": {"model": "test_resnet", "epochs": 3, "batch": 8, "seeds": 1, "lr": 3e-3},
        "compute": {"cpus_per_worker": 1, "workers": 0},
    }
)


CLASSES = ("cancer", "normal")


def write_set(
    url: str,
    splits: dict[str, int],
    *,
    mirrored: bool = False,
    classes: tuple[str, str] = CLASSES,
    **origin,
) -> None:
    """Dark images of cancer and bright normal ones; mirrored: the other way round.

    Args:
        classes: in the order of the set's labels.
    """
    store, entries = Store(url), []
    rng = np.random.default_rng(3)
    for split, count in splits.items():
        labels = np.arange(count) % 2
        bright = 60 + 120 * (1 - labels if mirrored else labels)
        images = rng.normal(bright[:, None, None, None], 10, size=(count, 1, 16, 16))
        numbers = np.array([classes.index(name) for name in CLASSES])[labels]
        columns = to_columns(
            images.clip(0, 255).astype(np.uint8),
            np.eye(2)[numbers],
            class_index=numbers,
            patients=[f"{split}-{index}{'s' * bool(origin)}" for index in range(count)],
            sources=[f"{split}/{index}.png" for index in range(count)],
        )
        entries.append(write_shard(store, f"{split}-00000.parquet", columns, split))
    kind = "synthetic" if origin else "real"
    Manifest.of(entries, kind=kind, classes=classes, resolution=16, channels=1, origin=origin).save(
        store
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Synthetic images that show what they say, and some that show the contrary.

    The former have their classes in another order than the real ones.
    """
    workspace = Workspace.at(tmp_path_factory.mktemp("work"))
    write_set(workspace.data, {"train": 24, "val": 12, "test": 24})
    write_set(
        workspace.synthetic("softmax"), {"train": 40}, classes=CLASSES[::-1], method="softmax"
    )
    write_set(workspace.synthetic("onehot"), {"train": 40}, mirrored=True, method="onehot")
    for method in ("softmax", "onehot"):
        write_provenance(Store(workspace.synthetic(method)), [])
    train_classifiers(CONFIG, workspace, synthetic_only=True)
    evaluate(CONFIG, workspace)
    return workspace


def test_synthetic_images_alone_are_a_method_of_training_with_as_many_steps(workspace):
    stores = {
        name: Store(workspace.classifiers) / f"{name}-seed0"
        for name in ("real", "softmax", "onehot", "softmax-only", "onehot-only")
    }
    found = {name: Classifier.load(store) for name, store in stores.items()}
    assert {name: one.method for name, one in found.items()} == {name: name for name in stores}
    assert {one.config.epoch_images for one in found.values()} == {24}
    for method in ("softmax", "onehot"):
        manifest = Manifest.load(Store(workspace.synthetic(method)))
        synthetic = manifest.content_digest("train", CLASSES)
        assert found[f"{method}-only"].training_digest == synthetic
        assert found[method].training_digest != synthetic


def test_they_are_tested_on_real_images_beside_real_on_real(workspace):
    rows = {row.method: row for row in read_evaluation(Store(workspace.evaluation)).results}
    assert list(rows) == ["real", "softmax", "onehot", "softmax-only", "onehot-only"]
    assert rows["real"].rates["accuracy"] == rows["softmax-only"].rates["accuracy"] == 1
    assert rows["onehot-only"].rates["accuracy"] < 0.5  # real images have the other brightness
    assert rows["onehot-only"].difference_to_real["accuracy"].delta < -0.5
    assert {sum(map(sum, row.confusion)) for row in rows.values()} == {24}


def test_the_report_names_them():
    names = [method_name(method) for method in ("real", "softmax", "softmax-only")]
    assert names == ["real only", "real + softmax", "softmax only"]
