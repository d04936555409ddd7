"""Synthesize image sets of soft labels, shard by shard."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Sequence
from typing import Any

import torch

from gemix.config import PipelineConfig
from gemix.core.device import compute_dtype, default_device
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.shards.manifest import MANIFEST, Manifest, ShardEntry
from gemix.gan.checkpoints.generator_io import GeneratorBundle, load_generator
from gemix.io.results import LABEL_FIGURE
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.labels import LabelConfig
from gemix.report.label_figure import draw_set
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.runtime.outputs import open_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.synthesis.class_weights import class_shares, recall_provenance, resolve_class_weights
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
            set, or for class weights that do not fit the classes.
    """
    data = Manifest.load(Store(workspace.data))
    generator = load_generator(Store(workspace.gan))
    check_generator(generator, data.classes)
    labels = resolve_class_weights(config.labels, data)
    pairs = [
        *itertools.product(
            [_generator_provenance(workspace)], real_splits(workspace, "val", "test")
        ),
        # its validation images, whose recall is used, may be those of this run
        *itertools.product(recall_provenance(config.labels), real_splits(workspace, "test")),
    ]
    overlap = enforce_no_overlap("synthesize", config, pairs)
    shares = class_shares(labels, data.classes)
    log.info("dominant classes: %s", ", ".join(f"{n} {p:.1%}" for n, p in shares.items()))
    executor = executor or LocalExecutor()
    executor.require(config.compute)
    count = config.synthesis.images(data.images("train"))
    with tracking.start_run(config, workspace.workdir, "synthesize") as run:
        run.set_tags(overlap.tags)
        manifests = {}
        for method in methods or config.synthesis.methods:
            manifests[method] = _make_set(
                config, workspace, executor, generator, method, labels, count, overwrite
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
    labels: LabelConfig,
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
    drawn = dataclasses.replace(config, labels=labels)
    build = functools.partial(ShardWriter, drawn.to_mapping(), workspace.gan, method, store.url)
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
        class_weights=class_shares(labels, generator.classes),
        config=config.synthesis,
        precision=" and ".join(sorted(precisions)),
        provenance_sha256=provenance_sha256,
    )
    store.write_bytes(LABEL_FIGURE, draw_set(store, manifest))
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
        wanted, device = self.config.synthesis.precision, default_device()
        if wanted == "tf32" and device.type == "cuda":
            return entry.to_json(), wanted
        return entry.to_json(), str(compute_dtype(wanted, device)).removeprefix("torch.")
