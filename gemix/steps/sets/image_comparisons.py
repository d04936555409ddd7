"""Image metrics of a synthetic set against the real images of the work directory."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from gemix.core.device import default_device
from gemix.evaluation.image_quality.base import ImageMetricError
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.evaluation.image_quality.features.base import Extractor
from gemix.evaluation.image_quality.features.registry import open_extractor
from gemix.evaluation.image_quality.measure import measure
from gemix.evaluation.image_quality.real_stats import RealStats, real_stats_name
from gemix.io.storage import Store
from gemix.steps.gan_training.real_images import RealImages as Sample
from gemix.synthesis.set_card.record import SYNTHETIC, ImageComparison


def compare_images(
    config: MetricsConfig, synthetic: Store, real: Store, cache: Store
) -> tuple[ImageComparison, ...]:
    """Compare a set with real training and validation images, and these with one another.

    Features of real images are kept in `cache`, where the evaluations of a GAN training keep
    theirs, or find them there.

    Args:
        config: extractor, and how many images of the set and of each real split at most; images
            are drawn at random.

    Returns:
        One comparison for each pair that has images; none where `config.images` is 0. A metric
        that cannot be computed is told in its comparison.

    Raises:
        ConfigError: for an extractor that cannot be opened.
        DataError: if a shard is missing or damaged.
    """
    if not config.images:
        return ()
    device = default_device()
    made = Sample(synthetic, "train", config.images)
    extractor = open_extractor(config.extractor, made.manifest.resolution, device)
    splits = {name: Sample(real, name, config.real_images) for name in ("train", "val")}
    splits = {name: sample for name, sample in splits.items() if len(sample)}
    features = {SYNTHETIC: _features(made, extractor)}
    stats: dict[str, RealStats] = {}
    for name, sample in splits.items():
        stats[name] = _real_stats(sample, extractor, cache)
        features[name] = stats[name].features
    pairs = [(SYNTHETIC, name) for name in splits]
    if len(splits) == 2:
        pairs.append(("val", "train"))
    return tuple(
        _compare(
            ImageComparison(
                of=of,
                against=against,
                digest=splits[against].digest,
                images=len(features[of]),
                real_images=len(features[against]),
                extractor=extractor.identity,
                metrics={},
            ),
            stats[against],
            features[of],
        )
        for of, against in pairs
    )


def _compare(comparison: ImageComparison, real: RealStats, features: Tensor) -> ImageComparison:
    try:
        found = measure(real, features, comparison.extractor)
    except ImageMetricError as error:
        return dataclasses.replace(comparison, problem=str(error))
    return dataclasses.replace(comparison, metrics=found.values)


def _real_stats(sample: Sample, extractor: Extractor, cache: Store) -> RealStats:
    name = real_stats_name(sample.digest, f"{extractor.name} {extractor.checksum}", len(sample))
    cached = RealStats.load(cache, name, extractor.device)
    if cached is not None:
        return cached
    stats = RealStats.of(_features(sample, extractor))
    stats.save(cache, name)
    return stats


def _features(sample: Sample, extractor: Extractor) -> Tensor:
    """Return the features of a sample in its random order, float32 [N, D]."""
    width = extractor(np.zeros((1, *sample.manifest.image_shape), np.uint8)).shape[1]
    rows = torch.empty(len(sample), width, device=extractor.device)
    for positions, images in sample.chunks():
        rows[torch.from_numpy(positions).to(extractor.device)] = extractor(images)
    return rows
