"""Training images through Ray Data: the choice of the reader, and trainings that stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.data.prepare import prepare_serial
from gemix.data.shards.manifest import Manifest
from gemix.data.sources import open_source
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.data.streaming import StreamingDataset
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.gan_training.data import open_training_data
from gemix.steps.runtime.executor import WorkerContext
from gemix.steps.train_gan import train_gan
from jobs._runtime.ray_cluster import connect
from jobs._runtime.ray_data import map_unordered
from jobs._runtime.ray_executor import RayExecutor

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TEN_IMAGES_GB = 10 * 16 * 16 / 1e9


@pytest.fixture(scope="module")
def sharded(tiny_config, tmp_path_factory) -> Workspace:
    """Tiny data in shards of four images."""
    connect()
    workspace = Workspace.at(tmp_path_factory.mktemp("work"))
    four = 4 * tiny_config.data.resolution**2 * len(tiny_config.data.windows) / 1e6
    data = dataclasses.replace(tiny_config.data, shard_mb=four)
    prepare_serial(open_source(data), data, Store(workspace.data))
    assert len(Manifest.load(Store(workspace.data)).shards) > 6
    return workspace


def with_gan(config: PipelineConfig, **changes) -> PipelineConfig:
    return dataclasses.replace(config, gan=dataclasses.replace(config.gan, **changes))


def opened(config: PipelineConfig, workspace: Workspace, **changes):
    gan = with_gan(config, shuffle_gb=TEN_IMAGES_GB, **changes).gan
    context = WorkerContext(local_workers=1, memory_bytes=2**32, map_unordered=map_unordered)
    return open_training_data(gan, workspace.data, CPU, context, readers=2, verbose=True)


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_ray_data_reads_what_memory_holds(sharded, tiny_config, balance):
    memory = opened(tiny_config, sharded, data_loading="memory", class_balance=balance)
    stream = opened(tiny_config, sharded, data_loading="stream", class_balance=balance)
    for step in (0, 1, 2, 3, 4, 0):
        ours, theirs = (data.real_batch(step, 8, [0, 1, 4, 5]) for data in (memory, stream))
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    stream.close()


def test_the_size_chooses_and_a_setting_overrules_it(sharded, tiny_config, caplog):
    assert isinstance(opened(tiny_config, sharded), InMemoryDataset)
    assert "in memory (cpu); gan.data_loading=auto" in caplog.text
    assert isinstance(opened(tiny_config, sharded, data_memory_gb=1e-6), StreamingDataset)
    assert "streamed, 2.56e-06 GB at a time; gan.data_loading=auto" in caplog.text
    forced = opened(tiny_config, sharded, data_loading="memory", data_memory_gb=1e-6)
    assert isinstance(forced, InMemoryDataset)


@pytest.fixture
def damaged(sharded) -> Iterator[str]:
    """The name of a shard that is damaged for a test."""
    file = next(iter(sorted(Path(sharded.data).glob("train-*.parquet"))))
    whole = file.read_bytes()
    file.write_bytes(whole[:300] + b"\x00damaged" + whole[308:])
    yield file.name
    file.write_bytes(whole)


def test_a_damaged_shard_is_named_through_ray_data(sharded, tiny_config, damaged):
    stream = opened(tiny_config, sharded, data_loading="stream")
    with pytest.raises(DataError, match=rf"{damaged}.*gemix prepare --overwrite"):
        for step in range(10):
            stream.real_batch(step, 8, range(8))
    stream.close()


@pytest.fixture
def two_workers(tiny_config) -> PipelineConfig:
    # a pass of Ray Data for each window takes seconds, so there are few
    config = with_gan(tiny_config, data_loading="stream", shuffle_gb=2 * TEN_IMAGES_GB)
    return dataclasses.replace(
        config,
        compute=dataclasses.replace(config.compute, workers=2),
        metrics=dataclasses.replace(config.metrics, images=0),
    )


def test_a_damaged_shard_ends_a_training_whose_other_worker_waits_for_it(
    sharded, two_workers, damaged
):
    """An error that the user must correct is not retried."""
    with pytest.raises(DataError, match=rf"{damaged}.*gemix prepare --overwrite"):
        train_gan(two_workers, sharded, executor=RayExecutor(), overwrite=True)


def test_streaming_workers_read_where_they_take_every_processor(sharded, two_workers):
    """That they train on what memory holds is in tests/gan/test_streaming_workers.py."""
    result = train_gan(two_workers, sharded, executor=RayExecutor(), overwrite=True)
    assert result["kimg"] == two_workers.gan.kimg
