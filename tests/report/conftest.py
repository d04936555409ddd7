"""A small work directory as the steps leave it, made up, so that the report can be built."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemix.config import PipelineConfig
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.report.content import gather
from gemix.report.label_figure import draw_set
from gemix.report.page import render

CLASSES = ("normal", "pneumonia", "cancer")
METHODS = ("softmax", "dirichlet", "onehot")
SIZE = 32


def draw(rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """A toy slice, uint8 [1, SIZE, SIZE]: a body, two lungs, lesions as bright as the label."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    wide = 0.9 + 0.05 * rng.standard_normal()
    body = (x / wide) ** 2 + (y / 0.7) ** 2 < 1
    lungs = ((np.abs(x) - 0.42) / 0.3) ** 2 + (y / 0.5) ** 2 < 1
    image = 150.0 * body - 110.0 * lungs + 8 * rng.standard_normal(x.shape)
    image += label[1] * 90 * lungs * (y > 0.1)
    image += label[2] * 170 * ((x - 0.4) ** 2 + (y + 0.1) ** 2 < 0.012)
    return image.clip(0, 255).astype(np.uint8)[None]


def write_set(url: str, labels: dict[str, np.ndarray], *, kind: str, **origin: object) -> None:
    """A shard set with the given soft labels by split."""
    store, rng, entries = Store(url), np.random.default_rng(0), []
    for split, theta in labels.items():
        columns = to_columns(
            np.stack([draw(rng, row) for row in theta]),
            theta,
            class_index=theta.argmax(axis=1),
            patients=[f"{split}-{row // 2}" for row in range(len(theta))],
            sources=[f"scans/{split} {row}.png" for row in range(len(theta))],
            seeds=range(len(theta)) if kind == "synthetic" else None,
            generator="ab" * 16 if kind == "synthetic" else None,
            asked=theta if kind == "synthetic" else None,
        )
        entries.append(write_shard(store, f"{split}-00000.parquet", columns, split))
    Manifest.of(
        entries, kind=kind, classes=CLASSES, resolution=SIZE, channels=1, origin=origin
    ).save(store)


def result(method: str, shift: float) -> dict:
    """One row of ``evaluation.json``; `shift` moves every metric to its good side."""
    values = {
        "accuracy": 0.71 + shift,
        "macro_precision": 0.66 + shift,
        "macro_recall": 0.64 + shift,
        "macro_f1": 0.63 + shift,
        "macro_f2": 0.64 + shift,
        "fnr": 0.36 - shift,
        "missed_disease_rate": 0.21 - shift,
    }
    differences = {
        name: {"delta": delta, "low": delta - 0.04, "high": delta + 0.04, "p": 0.14}
        for name in values
        for delta in [-shift if name in ("fnr", "missed_disease_rate") else shift]
    }
    return {
        "method": method,
        **values,
        "per_class": {},
        "confusion": [[30, 6, 4], [7, 25, 8], [5, 3, 32]],
        "seeds": 2,
        "intervals": {name: [value - 0.06, value + 0.05] for name, value in values.items()},
        "difference_to_real": {} if method == "real" else differences,
    }


def history(rng: np.random.Generator, epochs: int = 12) -> list[dict]:
    """Epochs of a classifier that learns."""
    rise = 1 - np.exp(-np.arange(1, epochs + 1) / 4)
    return [
        {
            "epoch": epoch + 1,
            "train_loss": 1.1 - 0.8 * float(rise[epoch]),
            "val_loss": 1.1 - 0.5 * float(rise[epoch]) + 0.04 * rng.standard_normal(),
            "val_macro_f2": 0.25 + 0.42 * float(rise[epoch]) + 0.02 * rng.standard_normal(),
        }
        for epoch in range(epochs)
    ]


def layout(folder: Path) -> Workspace:
    """Directories of a run that has not begun."""
    return Workspace.at(folder / "run-7")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return layout(tmp_path)


@pytest.fixture(scope="session")
def config() -> PipelineConfig:
    return PipelineConfig.from_mapping({"synthesis": {"methods": list(METHODS)}})


@pytest.fixture
def finished(tmp_path: Path) -> Workspace:
    return fabricate(layout(tmp_path))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, config: PipelineConfig) -> str:
    """The page of a finished run."""
    return render(gather(fabricate(layout(tmp_path_factory.mktemp("page"))), config))


def image_quality(kimg: float) -> dict:
    """Metrics of a generator that improves."""
    return {
        "kimg": kimg,
        "kid": 0.1 / kimg,
        "kid_error": 0.012,
        "fid": 8 / kimg,
        "precision": 0.2 * kimg,
        "recall": 0.1 * kimg,
        "density": 0.24 * kimg,
        "coverage": 0.15 * kimg,
        "images": 500,
        "real_images": 60,
        "extractor": "timm-random:resnet18d of seed 0 at 64 x 64 (0123456789ab)",
    }


def write_png(store: Store, name: str, pixels: np.ndarray) -> None:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    store.write_bytes(name, stream.getvalue())


def write_image_metrics(gan: Store, rng: np.random.Generator) -> None:
    """What an evaluation at the end of a training leaves: five rows of 1 + 3 + 3 images."""
    onehot = np.eye(3)
    rows = [np.hstack([draw(rng, onehot[row % 3])[0] for _ in range(7)]) for row in range(5)]
    write_png(gan, "memorization.png", np.vstack(rows))
    audit = {"copying_auc": 0.25, "near_fraction": 0.015}
    gan.write_json(
        "metrics.json",
        {
            "primary_metric": "kid",
            "last": image_quality(4.0),
            "generator": image_quality(4.0),
            "best": {"kimg": 3.0, "score": 0.0234},
            "used": "last",
            "memorization": {
                "by_features": audit,
                "by_pixels": audit,
                "samples": 500,
                "held_out": 12,
                "neighbors": 3,
                "rows": [
                    {"sample": row, "shown_as": "first" if row < 3 else "nearest"}
                    for row in range(5)
                ],
            },
        },
    )


def fabricate(workspace: Workspace) -> Workspace:
    """Fills the directories as all steps would."""
    rng = np.random.default_rng(1)
    onehot = np.eye(3, dtype=np.float32)
    write_set(
        workspace.data,
        {split: onehot[np.arange(count) % 3] for split, count in (("train", 60), ("test", 12))},
        kind="real",
        notes=["72 of 80 listed files were found."],
    )
    Store(workspace.data).write_json(
        "quarantine.json",
        [{"source": f"scans/<b>{i}</b>.png", "reason": "truncated image"} for i in range(23)],
    )
    for method in METHODS:
        theta = onehot if method == "onehot" else np.full((3, 3), 0.12) + 0.64 * onehot
        labels = {"train": theta[np.arange(30) % 3]}
        write_set(workspace.synthetic(method), labels, kind="synthetic", method=method)
        store = Store(workspace.synthetic(method))
        if method != "dirichlet":  # as if an earlier version had made it
            store.write_bytes("labels.svg", draw_set(store, Manifest.load(store)))
    for method in ("real", *METHODS):
        for seed in range(2):
            Store(workspace.classifiers).write_json(
                f"{method}-seed{seed}/model.json", {"history": history(rng)}
            )
    kimg = np.linspace(0.1, 4, 40)
    log = [
        {
            "kimg": float(k),
            "loss_g": 1.2 + 0.2 * rng.standard_normal(),
            "loss_d": 1.0 + 0.1 * rng.standard_normal(),
            "augment_p": float(k) / 40,
            "r_t": None if index < 3 else 0.6 + 0.1 * rng.standard_normal(),
        }
        | (image_quality(float(k)) if index % 10 == 9 else {})
        for index, k in enumerate(kimg)
    ]
    gan = Store(workspace.gan)
    gan.write_bytes("log.jsonl", "".join(json.dumps(line) + "\n" for line in log).encode())
    steps = np.linspace(0, 1, 11)[:, None]
    strips = [
        np.hstack([draw(rng, label)[0] for label in (1 - steps) * onehot[a] + steps * onehot[b]])
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    write_png(gan, "label_path.png", np.vstack(strips))
    write_image_metrics(gan, rng)
    shifts = {"real": 0.0, "softmax": 0.03, "dirichlet": 0.06, "onehot": 0.035}
    Store(workspace.evaluation).write_json(
        "evaluation.json",
        {
            "results": [result(method, shift) for method, shift in reversed(shifts.items())],
            "best": "dirichlet",
            "registered_model": {"name": "gemix-classifier", "version": "3"},
        },
    )
    Store(workspace.workdir).write_json(
        "steps.json", {"prepare": 12.3, "train-gan": 301.0, "synthesize": 20.1, "evaluate": 3.0}
    )
    return workspace
