"""Workers that stream read every shard once between them and get the batches of one worker."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from gemix.core.distributed import Workers
from gemix.gan.data.batch_split import local_indices
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.data.gloo_channel import GlooChannel
from gemix.gan.data.shuffle_order import ShuffleOrder
from gemix.gan.data.streaming import StreamingDataset
from gemix.gan.data.testing import (
    SHAPE,
    SHARD_ROWS,
    dataset_rows_of,
    make_images,
    make_labels,
)
from tests.processes import run_processes

BATCH = 16
FORWARD = [0, 1, 2, 3, 4, 5]  # two epochs of 50 images in windows of 20, which end within batches
JUMPS = [2, 3, 9]  # as a training that diverged goes back


def order() -> ShuffleOrder:
    return ShuffleOrder(3, SHARD_ROWS, window_rows=20)


def run_worker(rank: int, size: int, folder: str) -> None:
    """Write the batches of each step, and how many rows of which shards were read."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    images, bounds, asked = make_images(), order().bounds, []

    def read(wanted):
        asked.extend((int(shard), len(rows)) for shard, rows in wanted.items())
        for shard in reversed(wanted):
            yield shard, images[bounds[shard] : bounds[shard + 1]][wanted[shard]]

    def show(data: StreamingDataset, steps: list[int]) -> list:
        batches = [data.real_batch(step, BATCH, batch_index) for step in steps]
        return [(dataset_rows_of(batch), labels.tolist()) for batch, labels in batches]

    batch_index = local_indices(Workers.from_process_group(), BATCH, 4)
    open_data = lambda: StreamingDataset(  # noqa: E731
        make_labels(), SHAPE, read, order(), channel=GlooChannel.from_process_group()
    )
    data = open_data()
    forward = show(data, FORWARD)
    data.close()
    read_forward, data = list(asked), open_data()
    # the stages of a training, one after the other
    jumps = show(data.unconditional(), JUMPS) + show(data, JUMPS)
    data.close()
    told = {"forward": forward, "jumps": jumps, "read": read_forward}
    Path(folder, f"{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_workers_read_each_shard_once_and_get_what_one_worker_gets(tmp_path, size):
    run_processes(run_worker, args=(size, str(tmp_path)), nprocs=size)
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(size)]
    memory = InMemoryDataset(make_images(), make_labels(), seed=3, order=order())
    for rank, worker in enumerate(told):
        batch_index = local_indices(Workers(rank, size), BATCH, 4)
        for data, steps, shown in [
            (memory, FORWARD, worker["forward"]),
            (memory.unconditional(), JUMPS, worker["jumps"][: len(JUMPS)]),
            (memory, JUMPS, worker["jumps"][len(JUMPS) :]),
        ]:
            for step, (images, labels) in zip(steps, shown, strict=True):
                expected = data.real_batch(step, BATCH, batch_index)
                assert images == dataset_rows_of(expected[0]) and labels == expected[1].tolist()
    read = [tuple(part) for worker in told for part in worker["read"]]
    assert {rows for shard, rows in read if rows != SHARD_ROWS[shard]} == set()
    opened = Counter(shard for shard, _ in read)
    # once an epoch, of which there were two; the window after them is read ahead
    assert opened.keys() == set(range(len(SHARD_ROWS)))
    assert set(opened.values()) <= {2, 3}
    assert all(worker["read"] for worker in told)
