"""Sets of synthetic images of soft labels, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gemix.core.errors import CheckpointError
from gemix.data.leakage.provenance import PROVENANCE_SHA256
from gemix.data.shards.manifest import Manifest, ShardEntry
from gemix.data.shards.schema import to_columns, write_shard
from gemix.gan.checkpoints.generator_io import GeneratorBundle
from gemix.gan.sampling import sample_images
from gemix.io.storage import Store
from gemix.labels import LabelConfig, sample_labels
from gemix.synthesis.config import SynthesisConfig

SHARDS, FEWEST_ROWS = 16, 64


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
) -> ShardEntry:
    """Write images `start` to `start + count - 1` of a method's set.

    Image i has the seed `config.seed` + i in every method's set: sets differ in their labels alone,
    and ``gemix sample`` reproduces any image, with ``--precision`` as in the manifest's origin.
    """
    theta, dominant = sample_labels(
        method,
        labels,
        count=count,
        classes=len(generator.classes),
        seed=config.seed,
        start=start,
    )
    seeds = [config.seed + index for index in range(start, start + count)]
    columns = to_columns(
        sample_images(generator.network, seeds, theta, config),
        theta,
        class_index=dominant,
        patients=[f"synthetic-{method}-{seed}" for seed in seeds],
        sources=[f"{method}:{seed}" for seed in seeds],
        seeds=seeds,
        generator=generator.checksum,
    )
    return write_shard(store, name, columns, "train", generator.classes)


def synthetic_manifest(
    shards: Iterable[ShardEntry],
    generator: GeneratorBundle,
    method: str,
    *,
    labels: LabelConfig,
    class_weights: Mapping[str, float],
    config: SynthesisConfig,
    precision: str,
    provenance_sha256: str,
) -> Manifest:
    """Return the manifest of a method's set, with generator and settings as its origin.

    Args:
        labels: as configured.
        class_weights: what `labels.class_weights` came to, by class.
        precision: that the images were computed in.
    """
    architecture = generator.network.architecture
    return Manifest.of(
        shards,
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
            PROVENANCE_SHA256: provenance_sha256,
        },
    )
