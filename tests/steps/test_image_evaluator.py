"""Real images by position, evaluations shared among workers, and the memorization view."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from gemix.core.distributed import Workers
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.evaluation.image_quality.base import ImageMetricError
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.evaluation.image_quality.features.base import Extractor
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.generator import Generator
from gemix.io.storage import Store
from gemix.steps.gan_training.evaluator import Evaluator
from gemix.steps.gan_training.memorization_view import memorization_view
from gemix.steps.gan_training.real_images import RealImages
from tests.processes import run_processes
from tests.steps.untrained_networks import ARCHITECTURE

ROWS = {"train": (40, 33), "val": (30,)}
CONFIG = MetricsConfig(images=60, real_images=60, extractor="timm-random:test_resnet")
PIXELS = Extractor(
    name="pixels",
    checksum="0" * 64,
    forward=lambda images: images[:, 0].float().flatten(1),
    device=torch.device("cpu"),
)


def write_set(store: Store) -> None:
    rng, entries = np.random.default_rng(5), []
    for split, sizes in ROWS.items():
        for number, rows in enumerate(sizes):
            labels = np.eye(3, dtype=np.float32)[np.arange(rows) % 3]
            columns = to_columns(
                rng.integers(0, 256, (rows, 1, 16, 16), dtype=np.uint8),
                labels,
                class_index=labels.argmax(axis=1),
                patients=[f"{split}{number}{row}" for row in range(rows)],
                sources=[f"{split} {number} {row}.png" for row in range(rows)],
            )
            entries.append(write_shard(store, f"{split}-{number:05d}.parquet", columns, split))
    Manifest.of(entries, kind="real", classes="abc", resolution=16, channels=1).save(store)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("set"))
    write_set(store)
    return store


def generator() -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Generator(ARCHITECTURE).requires_grad_(False).eval()


def evaluator(folder: Store, cache: Store, workers: Workers) -> Evaluator:
    real = read_images([folder.url], "train")
    data = InMemoryDataset(real.images, real.soft_labels, 0)
    return Evaluator(CONFIG, folder, cache, data, workers)


def evaluate(folder: Store, cache: Store, workers: Workers) -> dict:
    """Features, metrics and memorization as plain values; nothing but features off rank 0."""
    ours, network = evaluator(folder, cache, workers), generator()
    found = ours.evaluate(network)
    view = ours.memorization(network, found.features)
    assert found.failure is None
    told = {}
    if found.quality:
        told = {"quality": found.quality.to_json(), "view": view.summary, "png": view.png}
    return {"features": found.features, **told}


def run_worker(rank: int, size: int, folder: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=size
    )
    torch.save(
        evaluate(Store(folder), Store(out), Workers.from_process_group()), f"{out}/{rank}.pt"
    )
    dist.destroy_process_group()


def test_positions_name_images_whatever_the_way_they_are_read(shards):
    everything = read_images([shards.url], "train").images
    real = RealImages(shards, "train", 50)
    assert len(real) == 50 == len(set(real.rows.tolist())) and real.total == 73
    assert (real.read([7, 3, 7]) == everything[real.rows[[7, 3, 7]]]).all()
    for size in (1, 2, 3):
        found = {}
        for rank in range(size):
            for positions, images in real.chunks(rank, size):
                found |= dict(zip(positions.tolist(), images, strict=True))
        assert sorted(found) == list(range(50))
        assert all((image == everything[real.rows[at]]).all() for at, image in found.items())


def test_no_split_is_no_images(shards):
    assert len(RealImages(shards, "test", 50)) == 0


def test_samples_are_asked_for_labels_of_training_images_and_draw_nothing_else(shards, tmp_path):
    torch.manual_seed(4)
    np.random.seed(4)
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    evaluate(shards, Store(tmp_path), Workers())
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == legacy).all()


def test_real_features_are_read_from_the_cache(shards, tmp_path, monkeypatch):
    first = evaluate(shards, Store(tmp_path), Workers())
    monkeypatch.setattr(Evaluator, "_extract_real_features", None)
    again = evaluate(shards, Store(tmp_path), Workers())
    assert first["quality"] == again["quality"]


@pytest.mark.slow
def test_two_workers_measure_what_one_measures(shards, tmp_path):
    run_processes(run_worker, args=(2, shards.url, str(tmp_path)), nprocs=2)
    load = lambda rank: torch.load(tmp_path / f"{rank}.pt", weights_only=True)  # noqa: E731
    alone = evaluate(shards, Store(tmp_path / "alone"), Workers())
    for rank in (0, 1):
        torch.testing.assert_close(load(rank)["features"], alone["features"])
    assert "quality" not in load(1)
    together = load(0)
    assert together["quality"].pop("extractor") == alone["quality"].pop("extractor")
    assert together["quality"] == pytest.approx(alone["quality"], rel=1e-3, abs=1e-5)
    assert together["view"] == alone["view"] and together["png"] == alone["png"]


def test_copies_are_found_and_shown_beside_their_originals(shards):
    real, held_out = RealImages(shards, "train", 60), RealImages(shards, "val", 60)
    originals = np.array([3, 11, 20, 5, 8, 40, 41, 42, 59])
    images = real.read(np.arange(60))
    # near copies, the last one an exact one
    noise = np.random.default_rng(0).integers(0, 9, images[originals].shape).astype(np.uint8)
    noise[-1] = 0
    fakes = images[originals] ^ noise
    view = memorization_view(PIXELS, real, PIXELS(images), held_out, fakes, PIXELS(fakes))
    for space in ("by_features", "by_pixels"):
        assert view.summary[space] == {"copying_auc": 1.0, "near_fraction": 1.0}
    assert view.summary["samples"] == 9 and view.summary["held_out"] == 30
    rows = view.summary["rows"]
    assert [row["sample"] for row in rows[:4]] == [0, 1, 2, 3]
    assert rows[4] == {"sample": 8, "shown_as": "nearest"}
    with Image.open(io.BytesIO(view.png)) as image:
        pixels = np.asarray(image).reshape(8, 16, 7, 16).swapaxes(1, 2)
    for row, shown in zip(rows, pixels, strict=True):
        original = images[originals[row["sample"]], 0]
        assert (shown[0] == fakes[row["sample"], 0]).all()
        assert (shown[1] == original).all() and (shown[4] == original).all()


def test_unseen_patients_are_no_copies_and_without_them_nothing_is_claimed(shards):
    real, unseen = RealImages(shards, "train", 60), RealImages(shards, "val", 60)
    features = PIXELS(real.read(np.arange(60)))
    fakes = np.random.default_rng(1).integers(0, 256, (50, 1, 16, 16), dtype=np.uint8)
    view = memorization_view(PIXELS, real, features, unseen, fakes, PIXELS(fakes))
    assert 0.3 < view.summary["by_features"]["copying_auc"] < 0.7
    none = RealImages(shards, "test", 60)
    view = memorization_view(PIXELS, real, features, none, fakes, PIXELS(fakes))
    assert view.summary["by_features"] is None and view.summary["held_out"] == 0


def test_the_expected_time_is_that_of_a_first_evaluation(shards, tmp_path):
    ours = evaluator(shards, Store(tmp_path), Workers())
    once = ours.expected_seconds(generator())
    assert once > 0
    more = dataclasses.replace(CONFIG, images=60_000)
    ours.config = more
    assert ours.expected_seconds(generator()) > 20 * once


def test_a_metric_that_fails_is_told_and_costs_nothing_else(shards, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "svdvals", fail)
    ours, network = evaluator(shards, Store(tmp_path), Workers()), generator()
    found = ours.evaluate(network)
    assert found.quality is None
    assert found.failure == "image metric fid: the algorithm failed to converge"
    assert ours.memorization(network, found.features).summary["samples"] == 60
    monkeypatch.undo()
    assert ours.evaluate(network).quality["fid"] > 0


def test_a_search_for_copies_that_fails_is_one_clear_error(shards, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of memory\nmore lines")

    ours, network = evaluator(shards, Store(tmp_path), Workers()), generator()
    features = ours.evaluate(network).features
    monkeypatch.setattr("gemix.steps.gan_training.evaluator.memorization_view", fail)
    with pytest.raises(ImageMetricError, match=r"memorization view: out of memory$"):
        ours.memorization(network, features)
