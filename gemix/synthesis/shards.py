"""Sets of synthetic images of soft labels, shard by shard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

from gemix.core.device import default_device, precision_name
from gemix.core.errors import CheckpointError
from gemix.data.leakage.provenance import PROVENANCE_SHA256
from gemix.data.shards.manifest import Manifest, ShardEntry
from gemix.data.shards.schema import to_columns, write_shard
from gemix.gan.checkpoints.generator_io import GeneratorBundle
from gemix.io import resume_cache
from gemix.io.storage import Store
from gemix.labels import LabelConfig, sample_labels
from gemix.synthesis.config import SynthesisConfig
from gemix.synthesis.labelling import draw_labelled
from gemix.synthesis.teacher import TeacherRow, Teachers

SHARDS, FEWEST_ROWS = 16, 64
_MAKES_ROWS = (  # settings that images and labels depend on
    *("seed", "truncation_psi", "noise_mode"),
    *("labels", "mixture", "accept", "min_seen", "attempts", "fidelity_images"),
)


def check_generator(generator: GeneratorBundle, classes: tuple[str, ...]) -> None:
    """Check that generator and data have the same classes.

    Raises:
        CheckpointError: if they have not.
    """
    if generator.classes != classes:
        raise CheckpointError(
            f"the generator has the {len(generator.classes)} classes {list(generator.classes)}, "
            f"the data {len(classes)}, {list(classes)}; run gemix train-gan on these data"
        )


def shard_ranges(count: int, shard_rows: int) -> list[tuple[int, int]]:
    """Split a set of `count` images into shards: (start, count) each.

    Shards have at most `shard_rows` images; small sets are split too, to occupy several processes.
    """
    rows = min(shard_rows, max(FEWEST_ROWS, -(-count // SHARDS)))
    return [(start, min(rows, count - start)) for start in range(0, count, rows)]


def rows_digest(
    generator: GeneratorBundle,
    method: str,
    labels: LabelConfig,
    config: SynthesisConfig,
    teachers: Teachers | None,
) -> str:
    """Return 32 hex digits of all that the rows of a set depend on, but for their indices."""
    return resume_cache.digest_of(
        {
            "generator": generator.checksum,
            "method": method,
            "labels": labels.to_mapping(),
            "synthesis": {name: getattr(config, name) for name in _MAKES_ROWS},
            "precision": precision_name(config.precision, default_device()),
            "teachers": [row.checksum for row in teachers.rows] if teachers else [],
        }
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticShard:
    """A shard that is written: its manifest entry, and images drawn for each class asked for."""

    entry: ShardEntry
    drawn: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"entry": self.entry.to_json(), "drawn": list(self.drawn)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Return the shard of plain values."""
        return cls(entry=ShardEntry.from_json(tree["entry"]), drawn=tuple(tree["drawn"]))


def write_synthetic_shard(
    store: Store,
    name: str,
    generator: GeneratorBundle,
    method: str,
    *,
    start: int,
    count: int,
    labels: LabelConfig,
    config: SynthesisConfig,
    teachers: Teachers | None = None,
) -> SyntheticShard:
    """Write images `start` to `start + count - 1` of a method's set.

    Image i has the seed `config.seed` + i in every method's set, unless it was drawn again: sets
    differ in their labels alone, and ``gemix sample`` reproduces any image from its seed and the
    label asked for, with ``--precision`` as in the manifest's origin.

    Args:
        teachers: record what they see; needed if `config.needs_teacher`.

    Raises:
        DataError: as :func:`gemix.synthesis.labelling.draw_labelled` raises it.
    """
    asked, dominant = sample_labels(
        method,
        labels,
        count=count,
        classes=len(generator.classes),
        seed=config.seed,
        start=start,
    )
    drawn = draw_labelled(generator, asked, config, teachers, start=start)
    rows = range(start, start + count)
    columns = to_columns(
        drawn.images,
        drawn.labels,
        class_index=dominant if config.labels == "asked" else drawn.labels.argmax(axis=1),
        patients=[f"synthetic-{method}-{config.seed + row}" for row in rows],
        sources=[f"{method}:{config.seed + row}" for row in rows],
        seeds=drawn.seeds,
        generator=generator.checksum,
        asked=asked,
        seen=drawn.seen,
    )
    entry = write_shard(store, name, columns, "train", generator.classes)
    return SyntheticShard(entry=entry, drawn=tuple(drawn.drawn.tolist()))


def synthetic_manifest(
    shards: Iterable[SyntheticShard],
    generator: GeneratorBundle,
    method: str,
    *,
    labels: LabelConfig,
    class_weights: Mapping[str, float],
    config: SynthesisConfig,
    teachers: tuple[TeacherRow, ...],
    precision: str,
    provenance_sha256: str,
) -> Manifest:
    """Return the manifest of a method's set, with generator, teachers and settings as its origin.

    Args:
        labels: as configured.
        class_weights: what `labels.class_weights` came to, by class.
        teachers: those whose probabilities are recorded.
        precision: that the images were computed in.
    """
    architecture = generator.network.architecture
    shards = list(shards)
    drawn = np.sum([shard.drawn for shard in shards], axis=0).tolist()
    return Manifest.of(
        (shard.entry for shard in shards),
        kind="synthetic",
        classes=generator.classes,
        resolution=architecture.resolution,
        channels=architecture.img_channels,
        origin={
            "method": method,
            "labels": labels.to_mapping(),
            "class_weights": dict(class_weights),
            "synthesis": config.to_mapping(),
            "precision": precision,
            "generator": generator.checksum,
            "generator_kimg": generator.kimg,
            "teachers": [teacher.checksum for teacher in teachers],
            "drawn": dict(zip(generator.classes, drawn, strict=True)),
            PROVENANCE_SHA256: provenance_sha256,
        },
    )
