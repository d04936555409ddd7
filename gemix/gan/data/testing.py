"""The contract of training datasets as a test suite.

Subclass it in a test module for pytest to collect::

    class TestMyDataset(TrainingDatasetContract):
        def open_dataset(self, order):
            return MyDataset(make_images(), make_labels(), order)
"""

from __future__ import annotations

import abc
import contextlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gemix.core.distributed import Workers
from gemix.gan.data.batch_split import local_indices
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.data.shuffle_order import ShuffleOrder

SHARD_ROWS = (7, 12, 1, 9, 12, 9)
COUNT = sum(SHARD_ROWS)
SHAPE = (1, 8, 8)


def make_images() -> np.ndarray:
    """Return the images of the contract, uint8 [COUNT, *SHAPE]; the first pixel is the row."""
    images = np.random.default_rng(5).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(COUNT)
    return images


def make_labels() -> np.ndarray:
    """Return the labels of the contract, of frequent and rare classes, float32 [COUNT, 3]."""
    return np.random.default_rng(6).dirichlet([3, 2, 1], COUNT).astype(np.float32)


def dataset_rows_of(images: Tensor) -> list[int]:
    """Return the dataset rows of images as :meth:`TrainingDataset.real_batch` returns them."""
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def rows_of_steps(data: TrainingDataset, steps: range, batch: int) -> list[int]:
    """Return the dataset rows of consecutive global batches."""
    batches = (data.real_batch(step, batch, range(batch))[0] for step in steps)
    return [row for images in batches for row in dataset_rows_of(images)]


class TrainingDatasetContract(abc.ABC):
    """Contract of a :class:`TrainingDataset`."""

    @abc.abstractmethod
    def open_dataset(self, order: ShuffleOrder) -> TrainingDataset:
        """Return a dataset of :func:`make_images` and :func:`make_labels` in this order.

        A dataset of shards has shards of `SHARD_ROWS`.
        """

    @contextlib.contextmanager
    def opened(
        self, *, seed: int = 3, window_rows: int = 20, balance: float = 0.0
    ) -> Iterator[TrainingDataset]:
        """Open a dataset, and close it at the end."""
        classes = make_labels().argmax(axis=1)
        data = self.open_dataset(
            ShuffleOrder(seed, SHARD_ROWS, window_rows, classes=classes, balance=balance)
        )
        try:
            yield data
        finally:
            data.close()

    def test_every_epoch_holds_every_image_once_and_no_batch_is_short(self) -> None:
        """Batches of any size cross the ends of epochs and windows."""
        for window_rows in (1, 20, 1000):
            for batch in (8, 50, 130):
                with self.opened(window_rows=window_rows) as data:
                    rows = rows_of_steps(data, range(3 * COUNT // batch + 1), batch)
                assert len(rows) == (3 * COUNT // batch + 1) * batch
                epochs = [rows[start : start + COUNT] for start in (0, COUNT, 2 * COUNT)]
                assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
                assert epochs[0] != epochs[1] != epochs[2]

    def test_batches_follow_the_order(self) -> None:
        """Sample `step * batch + batch_index` is the image that the order maps it to."""
        order = ShuffleOrder(3, SHARD_ROWS, 20)
        with self.opened() as data:
            rows = rows_of_steps(data, range(8), 16)
        for sample_id, row in enumerate(rows):
            window = order.window_of(sample_id)
            assert row == window.dataset_rows[sample_id - window.start]

    def test_the_order_is_a_function_of_the_seed(self) -> None:
        """One seed gives one order, another seed another one."""
        rows = []
        for seed in (3, 3, 4):
            with self.opened(seed=seed) as data:
                rows.append(rows_of_steps(data, range(6), 8))
        assert rows[0] == rows[1] != rows[2]

    def test_images_and_labels_belong_together(self) -> None:
        """Pixels come as float32 from -1 to 1, each image with its own label."""
        with self.opened() as data:
            images, labels = data.real_batch(2, 16, range(16))
        rows = dataset_rows_of(images)
        assert images.dtype == labels.dtype == torch.float32
        torch.testing.assert_close((images + 1) * 127.5, torch.tensor(make_images()[rows]).float())
        torch.testing.assert_close(labels, torch.tensor(make_labels()[rows]))

    def test_workers_together_get_the_batch_of_one(self) -> None:
        """The global batch does not depend on how it is split."""
        batch = 16
        for size in (2, 4):
            with contextlib.ExitStack() as stack:
                alone, *workers = (stack.enter_context(self.opened()) for _ in range(size + 1))
                for step in range(8):
                    images, labels = alone.real_batch(step, batch, range(batch))
                    for rank, data in enumerate(workers):
                        batch_index = local_indices(Workers(rank, size), batch, 4)
                        ours, our_labels = data.real_batch(step, batch, batch_index)
                        assert torch.equal(ours, images[batch_index])
                        assert torch.equal(our_labels, labels[batch_index])

    def test_a_training_resumes_at_any_step(self) -> None:
        """A new dataset returns any step's batch, also after a later one."""
        for step in (1, 5, 6, 40):
            with self.opened() as data:
                expected = rows_of_steps(data, range(step + 4), 8)
            with self.opened() as resumed:
                assert rows_of_steps(resumed, range(step, step + 4), 8) == expected[step * 8 :]
                assert rows_of_steps(resumed, range(1), 8) == expected[:8]

    def test_a_step_may_ask_twice(self) -> None:
        """Every call returns tensors of its own."""
        with self.opened(window_rows=1) as data:
            for step in range(4):
                first, second = (data.real_batch(step, 16, range(16)) for _ in range(2))
                assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
                first[0].zero_()
                assert torch.equal(data.real_batch(step, 16, range(16))[0], second[0])

    def test_random_labels_are_those_of_the_images(self) -> None:
        """Each image's label is as likely as the others'."""
        evenly = (torch.arange(10 * COUNT, dtype=torch.float64) + 0.5) / (10 * COUNT)
        with self.opened() as data:
            drawn = Counter(map(tuple, data.random_labels(evenly).tolist()))
        assert drawn == {tuple(label): 10 for label in make_labels().tolist()}

    def test_rare_classes_are_shown_as_often_as_others_where_that_is_asked_for(self) -> None:
        """Images and random labels alike, for any number of workers; the rest is as before."""
        classes = make_labels().argmax(axis=1)
        sizes = np.bincount(classes)
        assert sizes.max() > 1.3 * sizes.min()
        batch, steps = 10, 50
        for balance in (0.5, 1.0):
            wanted = sizes ** (1 - balance) / (sizes ** (1 - balance)).sum()
            with self.opened(window_rows=1000, balance=balance) as data:
                rows = rows_of_steps(data, range(steps), batch)
                images, labels = data.real_batch(7, batch, range(batch))
                evenly = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
                drawn = data.random_labels(evenly).argmax(dim=1).numpy()
            shown = np.bincount(classes[rows]) / len(rows)
            np.testing.assert_allclose(shown, wanted, atol=0.5 / COUNT * len(sizes))
            np.testing.assert_allclose(np.bincount(drawn) / 10_000, wanted, atol=1e-3)
            assert dataset_rows_of(images) == rows[7 * batch : 8 * batch]
            torch.testing.assert_close(
                labels, torch.tensor(make_labels()[rows[7 * batch :][:batch]])
            )
            # no image again before all of its class
            epoch = Counter(rows[:COUNT])
            for name in range(len(sizes)):
                times = [epoch[row] for row in np.flatnonzero(classes == name)]
                assert max(times) - min(times) <= 1
            with self.opened(window_rows=1000, balance=balance) as data:
                parts = [data.real_batch(7, batch, [5, 0]), data.real_batch(7, batch, [3])]
            assert [dataset_rows_of(part[0]) for part in parts] == [
                [rows[7 * batch + 5], rows[7 * batch]],
                [rows[7 * batch + 3]],
            ]
        with self.opened(window_rows=1, balance=1.0) as data:  # windows that lack classes
            assert len(rows_of_steps(data, range(2 * COUNT // 8), 8)) == 2 * COUNT // 8 * 8

    def test_an_unconditional_view_has_the_same_images_and_no_labels(self) -> None:
        """The view changes nothing in the dataset."""
        with self.opened() as data:
            images, labels = data.unconditional().real_batch(1, 8, range(8))
            expected = data.real_batch(1, 8, range(8))
        assert labels.shape == (8, 0) and expected[1].shape == (8, 3)
        assert torch.equal(images, expected[0])
