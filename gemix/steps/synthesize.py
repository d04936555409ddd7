"""Synthesize image sets of soft labels, shard by shard."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Sequence
from typing import Any

import torch

from gemix.config import PipelineConfig
from gemix.core.device import default_device, precision_name
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.shards.manifest import MANIFEST, Manifest, ShardEntry
from gemix.gan.checkpoints.generator_io import GeneratorBundle, load_generator
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.runtime.outputs import open_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.synthesis.shards import (
    check_generator,
    shard_ranges,
    synthetic_manifest,
    write_synthetic_shard,
)
from gemix.tracking import mlflow_run as tracking

log = logging.getLogger("gemix.synthesize")


def synthesize(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    methods: Sequence[str] | None = None,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> dict[str, Manifest]:
    """Write one set for each method, by default of ``config.synthesis.methods``.

    Returns:
        The manifests, by method.

    Raises:
        CheckpointError: without a generator of these classes.
        DataError: if the generator learned from what is held out, unless ``data.allow_overlap`` is
            set.
    """
    data = Manifest.load(Store(workspace.data))
    generator = load_generator(Store(workspace.gan))
    check_generator(generator, data.classes)
    pairs = itertools.product(
        [_generator_provenance(workspace)], real_splits(workspace, "val", "test")
    )
    overlap = enforce_no_overlap("synthesize", config, pairs)
    executor = executor or LocalExecutor()
    executor.require(config.compute)
    count = config.synthesis.images(data.images("train"))
    with tracking.start_run(config, workspace.workdir, "synthesize") as run:
        run.set_tags(overlap.tags)
        manifests = {}
        for method in methods or config.synthesis.methods:
            manifests[method] = _make_set(
                config, workspace, executor, generator, method, count, overwrite
            )
            run.log_dataset(manifests[method].digest, f"synthetic-{method}", "output")
        run.log_metrics({"images_per_method": count})
    return manifests


def _generator_provenance(workspace: Workspace) -> Provenance:
    return Provenance(Store(workspace.gan), "the generator")


def _make_set(
    config: PipelineConfig,
    workspace: Workspace,
    executor: Executor,
    generator: GeneratorBundle,
    method: str,
    count: int,
    overwrite: bool,
) -> Manifest:
    store = open_step(workspace.synthetic(method), MANIFEST, config, overwrite)
    provenance_sha256 = write_provenance(store, [], [_generator_provenance(workspace)])
    ranges = shard_ranges(count, config.synthesis.shard_rows)
    plans = [
        {"name": f"{index:05d}.parquet", "start": start, "count": size}
        for index, (start, size) in enumerate(ranges)
    ]
    build = functools.partial(ShardWriter, config.to_mapping(), workspace.gan, method, store.url)
    results = executor.map_with_state(
        build,
        plans,
        title=f"synthesize {method}",
        unit="images",
        compute=config.compute,
        weights=[size for _, size in ranges],
    )
    shards, precisions = [], set()
    for entry, precision in results:
        shards.append(ShardEntry.from_json(entry))
        precisions.add(precision)
    manifest = synthetic_manifest(
        shards,
        generator,
        method,
        labels=config.labels,
        config=config.synthesis,
        precision=" and ".join(sorted(precisions)),
        provenance_sha256=provenance_sha256,
    )
    manifest.save(store)
    return manifest


class ShardWriter:
    """Hold the generator and write shards."""

    def __init__(self, config: dict[str, Any], gan_url: str, method: str, url: str):
        self.config = PipelineConfig.from_mapping(config)
        torch.set_num_threads(self.config.compute.cpus_per_worker)
        self.generator = load_generator(Store(gan_url))
        self.method, self.store = method, Store(url)

    def __call__(self, plan: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Write one shard; return its manifest entry, and the precision that it was made in."""
        entry = write_synthetic_shard(
            self.store,
            plan["name"],
            self.generator,
            self.method,
            start=plan["start"],
            count=plan["count"],
            labels=self.config.labels,
            config=self.config.synthesis,
        )
        precision = precision_name(self.config.synthesis.precision, default_device())
        return entry.to_json(), precision
