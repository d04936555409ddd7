"""Curate a synthetic set: write a copy without the images that rules remove."""

from __future__ import annotations

import functools
import itertools
import logging
from typing import Any

import numpy as np
import pyarrow as pa

from gemix.config import PipelineConfig
from gemix.core.device import default_device
from gemix.core.errors import DataError
from gemix.data.leakage.provenance import PROVENANCE_SHA256, Provenance, write_provenance
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images, read_table
from gemix.data.shards.schema import write_shard
from gemix.evaluation.image_quality.features.registry import open_extractor
from gemix.evaluation.privacy.measure import RealSample
from gemix.io.records import write_record
from gemix.io.results import LABEL_FIGURE
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.report.label_figure import draw_set
from gemix.steps.runtime.outputs import open_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.steps.sets.audited_images import list_rows
from gemix.steps.sets.discriminator_attack import discriminator_logits, load_discriminator
from gemix.steps.sets.find_sets import find_set
from gemix.synthesis.asked_labels import read_asked_labels
from gemix.synthesis.curation.base import Candidates
from gemix.synthesis.curation.discriminator import Discriminator
from gemix.synthesis.curation.record import (
    CURATION,
    NEAR_TRAINING,
    Curation,
    count_classes,
    count_removed,
    read_curation,
)
from gemix.synthesis.curation.registry import open_rule
from gemix.synthesis.fidelity import FIDELITY, measure_set, read_fidelity
from gemix.tracking import mlflow_run as tracking

log = logging.getLogger("gemix.curate")

SUFFIX = "-curated"  # of the directory beside the set's own


def curate_set(
    config: PipelineConfig, workspace: Workspace, target: str, *, overwrite: bool = False
) -> Curation:
    """Write ``<set>-curated`` beside a set: its images but those that ``curation.rules`` remove.

    The set is held in memory. What is left keeps its order, seeds and labels. A set that was
    curated with the same settings and real images is not curated again.

    Args:
        target: a method of label sampling, or the directory of any synthetic set.

    Raises:
        DataError: if a set is missing or damaged, of other images than the real ones, if nothing
            is left of it, or if its generator learned from what is held out.
        ConfigError: if a rule needs what is not there.
        AlreadyFinishedError: if a curation of other settings is there, without `overwrite`.
    """
    store, real = Store(find_set(workspace, target)), Store(workspace.data)
    manifest, of_real = Manifest.load(store), Manifest.load(real)
    if manifest.kind != "synthetic":
        raise DataError(f"{store.url}: a set of real images; name one of synthetic images")
    if manifest.image_shape != of_real.image_shape:
        raise DataError(
            f"{store.url}: images of {manifest.image_shape} (channels, height, width), "
            f"{real.url} of {of_real.image_shape}; prepare the real images in the set's resolution"
        )
    learned = Provenance(store, f"the generator of {target}")
    train, *held_out = real_splits(workspace, "train", "val", "test")
    enforce_no_overlap("curate", config, itertools.product([learned, train], held_out))
    settings = config.curation.to_mapping() | {
        "extractor": config.metrics.extractor,
        "real": of_real.content_digest("train"),
    }
    url = store.url.rstrip("/") + SUFFIX
    done = read_curation(Store(url)) if Store(url).exists(MANIFEST) and not overwrite else None
    if done and (done.parent, done.settings) == (manifest.digest, settings):
        log.info("%s: curated already; --overwrite curates it again", url)
        return done
    with tracking.start_run(config, workspace.workdir, "curate") as run:
        run.log_dataset(manifest.digest, "synthetic", "curation")
        candidates = _candidates(config, workspace, store, manifest)
        rules = [open_rule(name) for name in config.curation.rules]
        removed = {rule.name: rule.removes(candidates, config.curation) for rule in rules}
        counts, stays = count_removed(removed, {rule.name: rule.meaning for rule in rules})
        if not stays.any():
            raise DataError(
                f"{store.url}: the rules {', '.join(removed)} leave none of its {len(stays)} "
                "images; lower curation.lowest_share or curation.near_quantile, or leave out a rule"
            )
        near = [rule.name for rule in rules if rule.compares_with_training]
        out = open_step(url, MANIFEST, config, overwrite)
        curated = _write(
            out,
            store,
            manifest,
            stays,
            origin={
                "curation": {"parent": manifest.digest, **{c.rule: c.removed for c in counts}},
                NEAR_TRAINING: int(manifest.origin.get(NEAR_TRAINING, 0))
                + sum(c.removed for c in counts if c.rule in near),
                PROVENANCE_SHA256: write_provenance(out, [train], [learned]),
            },
        )
        record = Curation(
            digest=curated.digest,
            parent=manifest.digest,
            images=len(stays),
            kept=int(stays.sum()),
            rules=counts,
            by_class=count_classes(manifest.classes, candidates.asked, stays),
            settings=settings,
        )
        write_record(out, CURATION, record)
        curated.save(out)
        run.log_dataset(curated.digest, "curated", "output")
        run.log_metrics({f"removed/{c.rule}": c.removed for c in counts} | {"kept": record.kept})
    return record


def _candidates(
    config: PipelineConfig, workspace: Workspace, store: Store, manifest: Manifest
) -> Candidates:
    """Read the set, and training images to compare it with."""
    rows = list_rows([(Store(workspace.data), Manifest.load(Store(workspace.data)))], ("train",))
    sample = rows.sample(config.curation.real_images, config.curation.seed)
    _, patients = np.unique(sample.groups.astype(str), return_inverse=True)
    network = None
    if Discriminator.name in config.curation.rules:  # a checkpoint may take seconds to read
        network = load_discriminator(Store(workspace.gan), manifest.origin.get("generator"))
    return Candidates(
        images=read_images([store.url]).images,
        asked=read_asked_labels(store.url),
        training=RealSample(images=sample.read(), patients=patients.astype(np.int64)),
        extractor=open_extractor(config.metrics.extractor, manifest.resolution, default_device()),
        learned_thumbnails=Provenance(store, "the generator").thumbnails,
        discriminator=network and functools.partial(discriminator_logits, network),
    )


def _write(
    out: Store, store: Store, manifest: Manifest, stays: np.ndarray, origin: dict[str, Any]
) -> Manifest:
    """Write the shards of the images that stay, and what comes with a set; return its manifest."""
    entries, start = [], 0
    for shard in manifest.shards:
        mine = stays[start : start + shard.rows]
        start += shard.rows
        if mine.any():
            table = read_table(store, manifest, shard).filter(pa.array(mine))
            kept = {name: table[name].to_pylist() for name in table.column_names}
            entries.append(write_shard(out, shard.name, kept, shard.split, manifest.classes))
    curated = Manifest.of(
        entries,
        kind="synthetic",
        classes=manifest.classes,
        resolution=manifest.resolution,
        channels=manifest.channels,
        preprocessing=manifest.preprocessing,
        origin={**manifest.origin, **origin},
    )
    fidelity, drawn = read_fidelity(store), manifest.origin.get("drawn")
    if fidelity and drawn:
        of_class = np.array([drawn[name] for name in manifest.classes])
        measured = measure_set(out, curated, fidelity.teachers, of_class)
        if measured:  # else nothing is left at which all teachers looked
            write_record(out, FIDELITY, measured)
    if store.exists(LABEL_FIGURE):  # not of sets that others made
        out.write_bytes(LABEL_FIGURE, draw_set(out, curated))
    return curated


def describe(record: Curation) -> str:
    """Return what was removed, in lines for readers."""
    lines = [f"{record.kept} of {record.images} images kept"]
    lines += [
        f"  {count.rule}: {count.removed} removed ({count.alone} by itself), {count.meaning}"
        for count in record.rules
    ]
    lines += [f"  {name}: {one.kept} of {one.before} kept" for name, one in record.by_class.items()]
    return "\n".join(lines)
