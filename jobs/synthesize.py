"""Makes the synthetic image sets with Ray Data: one task a shard, one generator an actor."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import ray.data
import torch
from ray.data import ActorPoolStrategy

from gemix.config import PipelineConfig
from gemix.core.progress import Progress
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.shards.manifest import MANIFEST, Manifest, ShardEntry
from gemix.gan.checkpoints.generator_io import GeneratorBundle, load_generator
from gemix.io.storage import Store
from gemix.io.workspace import Layout
from gemix.steps.outputs import open_step
from gemix.steps.overlap import enforce_no_overlap, real_splits
from gemix.synthesis.shards import (
    check_generator,
    shard_ranges,
    synthetic_manifest,
    write_synthetic_shard,
)
from gemix.tracking import mlflow_run as tracking
from jobs._runtime.command import Command, Request
from jobs._runtime.ray_cluster import connect, worker_resources


def synthesize(
    config: PipelineConfig,
    layout: Layout,
    *,
    methods: Sequence[str] | None = None,
    overwrite: bool = False,
) -> dict[str, Manifest]:
    """Writes one set for each method, by default of ``config.synthesis.methods``.

    Returns:
        The manifests, by method.

    Raises:
        CheckpointError: without a generator of these classes.
        DataError: if the generator learned from what is held out, unless ``data.allow_overlap`` is
            set.
    """
    data = Manifest.load(Store(layout.data))
    generator = load_generator(Store(layout.gan))
    check_generator(generator, data.classes)
    pairs = itertools.product([_seen(layout)], real_splits(layout, "val", "test"))
    overlap = enforce_no_overlap("synthesize", config, pairs)
    connect()
    count = config.synthesis.images(data.images("train"))
    with tracking.start_run(config, layout.workdir, "synthesize") as run:
        run.set_tags(overlap.tags)
        manifests = {}
        for method in methods or config.synthesis.methods:
            manifests[method] = _make_set(config, layout, generator, method, count, overwrite)
            run.log_dataset(manifests[method].digest, f"synthetic-{method}", "output")
        run.log_metrics({"images_per_method": count})
    return manifests


def _seen(layout: Layout) -> Provenance:
    return Provenance(Store(layout.gan), "the generator")


def _make_set(
    config: PipelineConfig,
    layout: Layout,
    generator: GeneratorBundle,
    method: str,
    count: int,
    overwrite: bool,
) -> Manifest:
    store = open_step(layout.synthetic(method), MANIFEST, config, overwrite)
    write_provenance(store, [], [_seen(layout)])
    ranges = shard_ranges(count, config.synthesis.shard_rows)
    plans = [
        {"name": f"{index:05d}.parquet", "start": start, "count": size}
        for index, (start, size) in enumerate(ranges)
    ]
    resources = worker_resources(config.compute)
    made = ray.data.from_items(plans).map(
        ShardMaker,
        fn_constructor_args=(config.to_mapping(), layout.gan, method, store.url),
        compute=ActorPoolStrategy(size=min(config.compute.ranks, len(plans))),
        num_cpus=resources["CPU"],
        num_gpus=resources.get("GPU"),
    )
    shards = []
    with Progress(f"synthesize {method}", count, "images") as progress:
        for row in made.iter_rows():
            shards.append(ShardEntry.from_json(row["entry"]))
            progress.update(shards[-1].rows)
    manifest = synthetic_manifest(
        shards, generator, method, labels=config.labels, config=config.synthesis
    )
    manifest.save(store)
    return manifest


class ShardMaker:
    """An actor that holds the generator and writes shards."""

    def __init__(self, config: dict[str, Any], gan_url: str, method: str, url: str):
        self.config = PipelineConfig.from_mapping(config)
        torch.set_num_threads(self.config.compute.cpus_per_worker)
        self.generator = load_generator(Store(gan_url))
        self.method, self.store = method, Store(url)

    def __call__(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Writes one shard; only its manifest entry comes back."""
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
        return {"entry": entry.to_json()}


def _run(request: Request) -> None:
    manifests = synthesize(request.config, request.layout, overwrite=request.overwrite)
    for method, manifest in manifests.items():
        print(f"synthesize: {manifest.images()} images in {request.layout.synthetic(method)}")


COMMAND = Command(
    name="synthesize",
    summary="Makes N images of soft labels for each method in synthesis.methods.",
    reads="<workdir>/data (classes, size of the train split), <workdir>/gan",
    writes="<workdir>/synthetic/<method>: Parquet shards of the same schema as the real ones",
    costs="one generator pass an image: some 100 images/s at 64 x 64 on 2 CPU cores",
    run=_run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
