"""The contract of training datasets, and what streaming guarantees beyond it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch

from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.partial_reading import read_rows, read_soft_labels
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.gan.data.dataset import InMemoryDataset, TrainingDataset
from gemix.gan.data.shuffle_order import ShuffleOrder
from gemix.gan.data.streaming import StreamingDataset
from gemix.gan.data.testing import (
    COUNT,
    SHARD_ROWS,
    TrainingDatasetContract,
    make_images,
    make_labels,
    rows_of_steps,
)
from gemix.io.storage import Store

READERS = ("memory", "stream")


def write_set(url: str) -> Store:
    """Write the images in shards of `SHARD_ROWS`, and a test split that nobody is to see."""
    store, images, labels = Store(url), make_images(), make_labels()
    shards, start = [], 0
    for number, rows in enumerate((*SHARD_ROWS, 5)):
        split = "train" if number < len(SHARD_ROWS) else "test"
        part = slice(start, start + rows) if split == "train" else slice(0, rows)
        columns = to_columns(
            images[part],
            labels[part],
            class_index=labels[part].argmax(axis=1),
            patients=["p"] * rows,
            sources=["s"] * rows,
        )
        shards.append(write_shard(store, f"{split}-{number}.parquet", columns, split))
        start += rows
    settings = {"kind": "real", "classes": ("a", "b", "c"), "resolution": 8, "channels": 1}
    Manifest.of(shards, **settings).save(store)
    return store


def open_data(
    reader: str,
    store: Store,
    *,
    order: ShuffleOrder | None = None,
    window_rows: int = 20,
    asked: Callable[[dict], None] = lambda wanted: None,
) -> TrainingDataset:
    order = order or ShuffleOrder(3, SHARD_ROWS, window_rows)
    if reader == "memory":
        real = read_images([store.url], "train")
        return InMemoryDataset(real.images, real.soft_labels, order.seed, order=order)
    manifest = Manifest.load(store)
    shards = [shard for shard in manifest.shards if shard.split == "train"]

    def read(wanted):
        asked(wanted)
        for number in reversed(wanted):
            yield number, read_rows(store, manifest, shards[number], wanted[number])

    return StreamingDataset(read_soft_labels(store, manifest, "train"), (1, 8, 8), read, order)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_set(str(tmp_path_factory.mktemp("set")))


class TestInMemoryDataset(TrainingDatasetContract):
    def open_dataset(self, order):
        return InMemoryDataset(make_images(), make_labels(), order.seed, order=order)


class TestStreamingDataset(TrainingDatasetContract):
    @pytest.fixture(autouse=True)
    def _shards(self, store):
        self.store = store

    def open_dataset(self, order):
        return open_data("stream", self.store, order=order)


def test_both_datasets_give_the_same(store):
    for window_rows in (20, COUNT):
        memory, stream = (open_data(r, store, window_rows=window_rows) for r in READERS)
        for step in range(8):
            ours, theirs = (data.real_batch(step, 16, range(16)) for data in (memory, stream))
            assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
        some = torch.tensor([0.1, 0.7], dtype=torch.float64)
        assert torch.equal(*(data.random_labels(some) for data in (memory, stream)))
        stream.close()


def test_a_set_of_one_window_is_shuffled_as_a_whole(store):
    real = read_images([store.url], "train")
    plain = InMemoryDataset(real.images, real.soft_labels, seed=3)
    stream = open_data("stream", store, window_rows=COUNT)
    assert rows_of_steps(stream, range(12), 8) == rows_of_steps(plain, range(12), 8)
    stream.close()


def test_windows_hold_no_more_than_they_may():
    order, seen = ShuffleOrder(1, [10] * 30, window_rows=45), set()
    sample = 0
    while sample < 300:
        window = order.window_of(sample)
        assert window.start == sample
        assert len(window.dataset_rows) == (40 if sample < 280 else 20)
        assert set(window.dataset_rows // 10) == set(window.shards)
        seen |= set(window.dataset_rows.tolist())
        sample = window.stop
    assert seen == set(range(300))


def test_resuming_reads_nothing_of_what_came_before(store):
    asked: list[dict] = []
    data = open_data("stream", store, asked=asked.append)
    data.real_batch(40, 8, range(8))
    data.close()
    assert sum(len(rows) for wanted in asked for rows in wanted.values()) <= 2 * 20


def test_a_worker_reads_the_images_of_its_share_alone(store):
    asked: list[dict] = []
    data = open_data("stream", store, window_rows=COUNT, asked=asked.append)
    for step in range(8):
        data.real_batch(step, 10, [0, 5])
    data.close()
    per_window = [sum(map(len, wanted.values())) for wanted in asked]
    assert per_window[0] == per_window[1] == COUNT / 5


def test_memory_is_bounded_by_the_window_and_not_by_the_set():
    shards, rows, side, window_rows = 64, 64, 32, 256
    pixels = lambda: np.zeros((rows, 1, side, side), np.uint8)  # noqa: E731
    read = lambda wanted: ((shard, pixels()[: len(rows)]) for shard, rows in wanted.items())  # noqa: E731
    labels, order = (
        np.ones((shards * rows, 1), np.float32),
        ShuffleOrder(0, [rows] * shards, window_rows),
    )
    tracemalloc.start()
    data = StreamingDataset(labels, (1, side, side), read, order)
    for step in range(order.total // 16):
        data.real_batch(step, 16, range(16))
    data.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    held_rows = peak / side**2
    assert 2 * window_rows < held_rows < 3.5 * window_rows < order.total / 4


def test_a_damaged_shard_is_named_while_streaming(tmp_path):
    store = write_set(str(tmp_path))
    file = tmp_path / "train-3.parquet"
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)
    stream = open_data("stream", store)
    with pytest.raises(DataError, match=r"train-3\.parquet.*--overwrite"):
        rows_of_steps(stream, range(COUNT // 8 + 1), 8)
    stream.close()


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_labels_that_cannot_be_read_are_named(tmp_path, harm):
    store, file = write_set(str(tmp_path)), tmp_path / "train-2.parquet"
    data = file.read_bytes()
    file.unlink() if harm == "gone" else file.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"train-2\.parquet.*labels"):
        open_data("stream", store)


def test_shards_stream_from_a_bucket(bucket, store):
    remote = open_data("stream", write_set(f"{bucket}/data"))
    assert rows_of_steps(remote, range(8), 8) == rows_of_steps(
        open_data("memory", store), range(8), 8
    )
    remote.close()


def test_a_set_without_images_is_refused():
    with pytest.raises(DataError, match="no training images"):
        StreamingDataset(np.ones((0, 3)), (1, 8, 8), lambda wanted: (), ShuffleOrder(0, [], 1))
