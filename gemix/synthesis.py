"""Sets of synthetic images of soft labels, shard by shard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from gemix.data.manifest import Manifest, ShardEntry
from gemix.data.shards import to_columns, write_shard
from gemix.errors import CheckpointError
from gemix.gan.sampling import SamplingConfig, sample_images
from gemix.gan.trained import TrainedGenerator
from gemix.labels import LabelConfig, sample_labels
from gemix.schema import Count, NonNegative, Positive, Problem
from gemix.storage import Store

SHARDS, FEWEST_ROWS = 16, 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesisConfig(SamplingConfig):
    """How many images are made, of which soft labels, sampled how.

    One set of images is made for each of `methods` and added to the real training set. `count`
    is the number N of images; where it is null N is `ratio` times the real training images.
    """

    methods: tuple[Literal["softmax", "dirichlet", "dirichlet_pair", "onehot"], ...] = (
        "softmax",
        "dirichlet",
        "onehot",
    )
    count: Positive | None = None
    ratio: NonNegative = 1.0
    shard_rows: Positive = 8192
    seed: Count = 0

    def conflicts(self) -> list[Problem]:
        """Methods are given, and each once."""
        if self.methods and len(set(self.methods)) == len(self.methods):
            return []
        return [Problem("methods", list(self.methods), "a list of one or more different methods")]

    def images(self, real_images: int) -> int:
        """The number N for a training set of `real_images` real images, at least 1."""
        return self.count or max(1, round(self.ratio * real_images))


def check_generator(generator: TrainedGenerator, classes: tuple[str, ...]) -> None:
    """Makes sure that generator and data are about the same classes.

    Raises:
        CheckpointError: if they are not.
    """
    if generator.classes != classes:
        raise CheckpointError(
            f"the generator knows the {len(generator.classes)} classes {list(generator.classes)}, "
            f"the data has the {len(classes)} classes {list(classes)}; train it on this data"
        )


def shard_ranges(count: int, shard_rows: int) -> list[tuple[int, int]]:
    """Cuts a set of `count` images into shards: (start, count) each.

    Shards are no larger than `shard_rows`, and small sets are cut into several all the same, so
    that there is work for several processes.
    """
    rows = min(shard_rows, max(FEWEST_ROWS, -(-count // SHARDS)))
    return [(start, min(rows, count - start)) for start in range(0, count, rows)]


def write_synthetic_shard(
    store: Store,
    name: str,
    generator: TrainedGenerator,
    method: str,
    *,
    start: int,
    count: int,
    labels: LabelConfig,
    config: SynthesisConfig,
) -> ShardEntry:
    """Makes and writes images `start` to `start + count - 1` of a method's set.

    Image i has the seed `config.seed` + i in every method's set, so that sets differ in their
    labels alone, and ``gemix sample`` shows any image again.
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
    return write_shard(store, name, columns, "train")


def synthetic_manifest(
    shards: Iterable[ShardEntry],
    generator: TrainedGenerator,
    method: str,
    *,
    labels: LabelConfig,
    config: SynthesisConfig,
) -> Manifest:
    """The manifest of a method's set: what was asked of which generator."""
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
            "synthesis": config.to_mapping(),
            "generator": generator.checksum,
            "generator_kimg": generator.kimg,
        },
    )
