"""Synthesize image sets of soft labels, shard by shard."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gemix
from gemix.config import PipelineConfig
from gemix.core.device import default_device, precision_name
from gemix.core.errors import DataError
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.gan.checkpoints.generator_io import GeneratorBundle, load_generator
from gemix.gan.sampling import sample_images
from gemix.io import resume_cache
from gemix.io.records import write_record
from gemix.io.results import LABEL_FIGURE
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.labels import LabelConfig
from gemix.report.label_figure import draw_set
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.runtime.outputs import open_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.synthesis.class_weights import class_shares, recall_provenance, resolve_class_weights
from gemix.synthesis.fidelity import FIDELITY, SetFidelity, measure_set
from gemix.synthesis.labelling import check_thresholds
from gemix.synthesis.shards import (
    SyntheticShard,
    check_generator,
    rows_digest,
    shard_ranges,
    synthetic_manifest,
    write_synthetic_shard,
)
from gemix.synthesis.teacher import Teachers
from gemix.tracking import mlflow_run as tracking

log = logging.getLogger("gemix.synthesize")

_LARGE = 20_000  # images; size and time of smaller sets are not worth a line
_PROBE = 32


def synthesize(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    methods: Sequence[str] | None = None,
    into: Callable[[str], str] | None = None,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> dict[str, Manifest]:
    """Write one set for each method, by default of ``config.synthesis.methods``.

    Args:
        into: the directory of a method's set; by default ``workspace.synthetic``.

    Returns:
        The manifests, by method.

    Raises:
        CheckpointError: without a generator of these classes, or a teacher where one is needed.
        DataError: if the generator or the teacher learned from what is held out, unless
            ``data.allow_overlap`` is set; if images keep disagreeing with their labels
            (`synthesis.accept`); for class weights that do not fit the classes; if the set does not
            fit on the disk.
        ConfigError: for a number of thresholds that is not that of the classes.
    """
    data = Manifest.load(Store(workspace.data))
    gan_url = config.synthesis.generator or workspace.gan
    generator = load_generator(Store(gan_url))
    check_generator(generator, data.classes)
    teacher = _teacher(config, workspace, generator)
    labels = resolve_class_weights(config.labels, data)
    learned = [Provenance(Store(gan_url), "the generator")]
    if teacher:
        learned.append(Provenance(Store(teacher.url), "the teacher"))
    pairs = [
        *itertools.product(learned, real_splits(workspace, "val", "test")),
        # its validation images, whose recall is used, may be those of this run
        *itertools.product(recall_provenance(config.labels), real_splits(workspace, "test")),
    ]
    overlap = enforce_no_overlap("synthesize", config, pairs)
    shares = class_shares(labels, data.classes)
    log.info("dominant classes: %s", ", ".join(f"{n} {p:.1%}" for n, p in shares.items()))
    executor = executor or LocalExecutor()
    executor.require(config.compute)
    count = config.synthesis.images(data.images("train"))
    plan = _Plan(config, labels, gan_url, generator, teacher, learned, count)
    _announce(plan, len(methods or config.synthesis.methods), workspace)
    with tracking.start_run(config, workspace.workdir, "synthesize") as run:
        run.set_tags(overlap.tags)
        manifests = {}
        for method in methods or config.synthesis.methods:
            url = (into or workspace.synthetic)(method)
            store = open_step(url, MANIFEST, config, overwrite)
            manifests[method], fidelity = _make_set(plan, method, store, executor)
            run.log_dataset(manifests[method].digest, f"synthetic-{method}", "output")
            if fidelity:
                _report(run, method, fidelity)
        run.log_metrics({"images_per_method": count})
    return manifests


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Inputs that the sets of all methods share; `labels` has its class weights as numbers."""

    config: PipelineConfig
    labels: LabelConfig
    gan_url: str
    generator: GeneratorBundle
    teacher: Teachers | None
    learned: list[Provenance]
    count: int


def _announce(plan: _Plan, sets: int, workspace: Workspace) -> None:
    """Say how large and how long in making a large set is, from a few images made here.

    Raises:
        DataError: if the disk has not half of the room that its pixels take uncompressed.
    """
    size = plan.generator.network.architecture
    each = math.prod(size.image_shape)
    total = sets * plan.count
    if total < _LARGE:
        return
    asked = np.eye(size.label_dim, dtype=np.float32)[np.arange(_PROBE) % size.label_dim]
    for _ in range(2):  # a first call is slower than the others
        started = time.monotonic()
        sample_images(plan.generator.network, range(_PROBE), asked, plan.config.synthesis)
    seconds = (time.monotonic() - started) / _PROBE * total / plan.config.compute.ranks
    log.info(
        "%s images of %d KB: %.3g GB before compression, about %.3g hours on %d worker(s) like "
        "this process, without what teachers take",
        *(f"{total:,}", each // 1024, total * each / 1e9, seconds / 3600),
        plan.config.compute.ranks,
    )
    store = Store(workspace.workdir)
    if store.is_local:
        free = shutil.disk_usage(_existing(Path(store.path("")))).free
        if free < total * each / 2:
            raise DataError(
                f"{store.url}: {free / 1e9:.3g} GB are free, and {total:,} images take up to "
                f"{total * each / 1e9:.3g} GB; lower synthesis.count or synthesis.ratio "
                f"({plan.count:,} images a set), or choose another --workdir"
            )


def _existing(path: Path) -> Path:
    """Return the nearest folder above that is there."""
    return path if path.exists() else _existing(path.parent)


def _teacher(
    config: PipelineConfig, workspace: Workspace, generator: GeneratorBundle
) -> Teachers | None:
    """Return the teachers; None if there are none and nothing depends on them."""
    settings, url = config.synthesis, config.synthesis.teacher or workspace.teacher
    check_thresholds(settings, generator.classes)
    teachers = Teachers.load_if_there(
        url,
        generator.classes,
        generator.network.architecture.image_shape,
        required=settings.needs_teacher or settings.teacher is not None,
    )
    if teachers is None:
        log.info("no teacher in %s: label fidelity is not measured", url)
    elif settings.labels != "asked" and teachers.weak_classes:
        log.warning(
            "the teacher misses more than half of the real validation images of %s: with "
            "synthesis.labels=%s images of it get other labels, and classifiers learn to miss it; "
            "compare with synthesis.labels=asked, or train the teacher on more patients",
            ", ".join(teachers.weak_classes),
            settings.labels,
        )
    return teachers


def _make_set(
    plan: _Plan, method: str, store: Store, executor: Executor
) -> tuple[Manifest, SetFidelity | None]:
    """Write a method's set, going on with one that was interrupted."""
    config = plan.config
    provenance_sha256 = write_provenance(store, [], plan.learned)
    ranges = shard_ranges(plan.count, config.synthesis.shard_rows)
    teacher_url = plan.teacher and plan.teacher.url
    settings = dataclasses.replace(config, labels=plan.labels).to_mapping()
    results = executor.map_with_state(
        functools.partial(ShardWriter, settings, plan.gan_url, teacher_url, method, store.url),
        [
            {"name": f"{index:05d}.parquet", "start": start, "count": size}
            for index, (start, size) in enumerate(ranges)
        ],
        title=f"synthesize {method}",
        unit="images",
        compute=config.compute,
        weights=[size for _, size in ranges],
    )
    shards, precisions = [], set()
    for shard, precision in results:
        shards.append(SyntheticShard.from_json(shard))
        precisions.add(precision)
    rows = plan.teacher.rows if plan.teacher else ()
    manifest = synthetic_manifest(
        shards,
        plan.generator,
        method,
        labels=config.labels,
        class_weights=class_shares(plan.labels, plan.generator.classes),
        config=config.synthesis,
        teachers=rows,
        precision=" and ".join(sorted(precisions)),
        provenance_sha256=provenance_sha256,
    )
    fidelity = None
    if rows:
        drawn = np.sum([shard.drawn for shard in shards], axis=0)
        fidelity = measure_set(store, manifest, rows, drawn)
        if fidelity:
            write_record(store, FIDELITY, fidelity)
    store.write_bytes(LABEL_FIGURE, draw_set(store, manifest))
    manifest.save(store)
    resume_cache.clear(store)
    return manifest, fidelity


def _report(run: tracking.Run, method: str, fidelity: SetFidelity) -> None:
    """Log how far the images of a set show the labels that were asked for."""
    seen = fidelity.teachers[0]
    run.log_metrics(
        {
            f"{method}/label_agreement": seen.synthetic.agreement.value,
            f"{method}/label_calibration_error": seen.synthetic.calibration_error,
            f"{method}/teacher_agreement_on_real": seen.real.agreement.value,
        }
    )
    log.info(
        "%s: %.1f%% of %d images show the class most asked for (%.1f%% if labels were calibrated; "
        "the teacher is right on %.1f%% of real validation images)",
        method,
        100 * seen.synthetic.agreement.value,
        seen.synthetic.agreement.images,
        100 * seen.synthetic.expected_agreement,
        100 * seen.real.agreement.value,
    )


class ShardWriter:
    """Hold the generator and the teachers, and write shards that are not there yet."""

    def __init__(
        self, config: dict[str, Any], gan_url: str, teacher_url: str | None, method: str, url: str
    ):
        self.config = PipelineConfig.from_mapping(config)
        torch.set_num_threads(self.config.compute.cpus_per_worker)
        self.generator = load_generator(Store(gan_url))
        self.teachers = Teachers.load(teacher_url) if teacher_url else None
        self.method, self.store = method, Store(url)

    def __call__(self, plan: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Write one shard; return it as plain values, and the precision that it was made in."""
        rows = self.method, self.config.labels, self.config.synthesis, self.teachers
        digest = resume_cache.digest_of(gemix.__version__, plan, rows_digest(self.generator, *rows))
        result = resume_cache.load(self.store, plan["name"], digest)
        if result is None:
            shard = write_synthetic_shard(
                self.store,
                plan["name"],
                self.generator,
                self.method,
                start=plan["start"],
                count=plan["count"],
                labels=self.config.labels,
                config=self.config.synthesis,
                teachers=self.teachers,
            )
            result = shard.to_json()
            resume_cache.save(self.store, plan["name"], digest, shard.entry.sha256, result)
        return result, precision_name(self.config.synthesis.precision, default_device())
