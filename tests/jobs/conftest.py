"""A work directory with tiny prepared data, for the jobs that come after."""

from __future__ import annotations

import pytest

from gemix.config import PipelineConfig, load
from gemix.data.prepare import prepare_serial
from gemix.data.sources import open_source
from gemix.io.storage import Store
from gemix.io.workspace import Workspace

TINY = (
    "data.resolution=16",
    "data.phantom.patients_per_class=6",
    "data.phantom.slices_per_patient=2",
    "gan.kimg=0.064",
    "gan.snapshot_kimg=0.024",
    "gan.batch=8",
    "gan.z_dim=16",
    "gan.w_dim=16",
    "gan.mapping_layers=2",
    "gan.channel_base=128",
    "gan.channel_max=16",
    "gan.precision=float32",
    "metrics.images=50",
    "metrics.extractor=timm-random:test_resnet",
    "synthesis.methods=[softmax,onehot]",
    "synthesis.count=70",
    "synthesis.labels=asked",  # steps that run alone need no teacher
    "teacher.model=test_resnet",
    "teacher.epochs=1",
    "teacher.seeds=1",
    "classifier.model=test_resnet",
    "classifier.epochs=1",
    "classifier.seeds=1",
    "compute.cpus_per_worker=1",
    "compute.workers=0",  # worker processes, which take long to start, have their own tests
)


@pytest.fixture(scope="session")
def tiny_overrides() -> tuple[str, ...]:
    return TINY


@pytest.fixture(scope="session")
def tiny_config() -> PipelineConfig:
    return load("demo", TINY)


@pytest.fixture(scope="module")
def prepared(tiny_config, tmp_path_factory) -> Workspace:
    workspace = Workspace.at(tmp_path_factory.mktemp("work"))
    prepare_serial(open_source(tiny_config.data), tiny_config.data, Store(workspace.data))
    return workspace
