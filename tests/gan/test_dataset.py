"""One contract for every reader of training images, and what streaming promises beyond it."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from gemix.core.distributed import Workers
from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.partial_reading import read_rows, read_soft_labels
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.gan.data.batch_split import local_indices
from gemix.gan.data.dataset import InMemoryDataset, TrainingDataset
from gemix.gan.data.shuffle_order import ShuffleOrder
from gemix.gan.data.streaming import StreamingDataset
from gemix.io.storage import Store

SHARD_ROWS = (7, 12, 1, 9, 12, 9)  # 50 images
COUNT = sum(SHARD_ROWS)
READERS = ("memory", "stream")


def pictures(count: int = COUNT) -> np.ndarray:
    """Images uint8 [count, 1, 8, 8] whose first two pixels are their number."""
    images = np.random.default_rng(5).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count), 256)
    return images


def numbers(images: torch.Tensor) -> list[int]:
    pixels = ((images[:, 0, 0, :2] + 1) * 127.5).round().int()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def soft_labels(count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(6).dirichlet([1, 1, 1], count).astype(np.float32)


def write_set(url: str) -> Store:
    """The pictures in shards of `SHARD_ROWS`, and a test split that nobody is to see."""
    store, images, labels = Store(url), pictures(), soft_labels()
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
    seed: int = 3,
    window_rows: int = 20,
    asked: Callable[[dict], None] = lambda wanted: None,
) -> TrainingDataset:
    order = ShuffleOrder(seed, SHARD_ROWS, window_rows)
    if reader == "memory":
        real = read_images([store.url], "train")
        return InMemoryDataset(real.images, real.soft_labels, seed, order=order)
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


@pytest.fixture(params=READERS)
def opened(request, store):
    """Opens the set with one of the readers."""
    made = []

    def make(**settings) -> TrainingDataset:
        made.append(open_data(request.param, store, **settings))
        return made[-1]

    yield make
    for data in made:
        data.close()


def shown(data: TrainingDataset, steps: range, batch: int) -> list[int]:
    return [n for step in steps for n in numbers(data.real_batch(step, batch, range(batch))[0])]


@pytest.mark.parametrize("window_rows", [1, 20, 1000])
@pytest.mark.parametrize("batch", [8, 50, 130])
def test_every_epoch_holds_every_image_once_and_no_batch_is_short(opened, batch, window_rows):
    order = shown(opened(window_rows=window_rows), range(3 * COUNT // batch + 1), batch)
    epochs = [order[start : start + COUNT] for start in range(0, 3 * COUNT - COUNT + 1, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_images_and_labels_are_those_of_the_shards(opened):
    images, labels = opened().real_batch(2, 16, range(16))
    rows = numbers(images)
    assert images.dtype == torch.float32 and labels.dtype == torch.float32
    torch.testing.assert_close((images + 1) * 127.5, torch.tensor(pictures()[rows]).float())
    torch.testing.assert_close(labels, torch.tensor(soft_labels()[rows]))


def test_the_order_is_a_matter_of_the_seed(opened):
    first, again, other = (shown(opened(seed=seed), range(6), 8) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("size", [2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_workers(opened, size):
    batch, alone = 16, opened()
    shares = [local_indices(Workers(rank, size), batch, 4) for rank in range(size)]
    readers = [opened() for _ in shares]
    for step in range(8):
        images, labels = alone.real_batch(step, batch, range(batch))
        for data, positions in zip(readers, shares, strict=True):
            ours, our_labels = data.real_batch(step, batch, positions)
            assert torch.equal(ours, images[positions])
            assert torch.equal(our_labels, labels[positions])


@pytest.mark.parametrize("step", [1, 5, 6, 40])
def test_starting_at_a_step_equals_going_there(opened, step):
    undisturbed = shown(opened(), range(step + 4), 8)
    resumed = opened()
    assert shown(resumed, range(step, step + 4), 8) == undisturbed[step * 8 :]
    assert shown(resumed, range(1), 8) == undisturbed[:8]  # going back is allowed


def test_a_step_may_ask_twice(opened):
    data = opened(window_rows=1)
    for step in range(4):
        first, second = (data.real_batch(step, 16, range(16)) for _ in range(2))
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        first[0].zero_()
        assert not torch.equal(data.real_batch(step, 16, range(16))[0], first[0])


def test_labels_are_drawn_from_those_of_the_images(opened):
    evenly = (torch.arange(10 * COUNT, dtype=torch.float64) + 0.5) / (10 * COUNT)
    drawn = opened().random_labels(evenly)
    counts = {row: 10 * many for row, many in Counter(map(tuple, soft_labels().tolist())).items()}
    assert Counter(map(tuple, drawn.tolist())) == counts


def test_both_readers_give_the_same(store):
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
    assert shown(stream, range(12), 8) == shown(plain, range(12), 8)
    stream.close()


def test_windows_hold_no_more_than_they_may():
    order, seen = ShuffleOrder(1, [10] * 30, window_rows=45), set()
    sample = 0
    while sample < 300:
        window = order.window_of(sample)
        assert window.start == sample
        assert len(window.rows) == (40 if sample < 280 else 20)
        assert set(window.rows // 10) == set(window.shards)
        seen |= set(window.rows.tolist())
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
        shown(stream, range(COUNT // 8 + 1), 8)
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
    assert shown(remote, range(8), 8) == shown(open_data("memory", store), range(8), 8)
    remote.close()


def test_a_set_without_images_is_refused():
    with pytest.raises(DataError, match="no training images"):
        StreamingDataset(np.ones((0, 3)), (1, 8, 8), lambda wanted: (), ShuffleOrder(0, [], 1))
