"""Samples of a generator held against the real images, the work shared by all workers."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from gemix.core.distributed import Workers
from gemix.core.rng import Stream
from gemix.core.torch_rng import draw
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.evaluation.image_quality.features.base import Extractor
from gemix.evaluation.image_quality.measure import ImageQuality, measure
from gemix.evaluation.image_quality.real_stats import Reference, real_stats_name
from gemix.gan.config import SamplingConfig
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.models.base import ImageGenerator
from gemix.gan.sampling import sample_images
from gemix.io.storage import Store
from gemix.steps.gan_training.extractors import open_extractor
from gemix.steps.gan_training.memorization_view import MemorizationView, memorization_view
from gemix.steps.gan_training.real_images import RealImages

COMPARED = 1000  # samples, and held-out images, that are looked at for copies
_CHUNK = 256
_PROBE = 16

Parts = Iterator[tuple[np.ndarray, np.ndarray]]  # numbers of images, and the images


class Evaluator:
    """Kept by every worker; each method is called by all of them at the same time.

    Sample i is the image of seed i with the label of a training image drawn for i. So the samples
    do not depend on the number of workers, and nothing is drawn that the training draws. What is
    opened is opened when it is first wanted.

    Args:
        shards: the real images; held-out ones are those of the val split.
        cache: where features of real images are kept.
        data: what is trained on; the samples' labels come from it.
    """

    def __init__(
        self,
        config: MetricsConfig,
        shards: Store,
        cache: Store,
        data: TrainingDataset,
        workers: Workers,
    ):
        self.config, self.shards, self.cache = config, shards, cache
        self.data, self.workers, self.device = data, workers, data.device

    @functools.cached_property
    def extractor(self) -> Extractor:
        """What makes the features."""
        return open_extractor(self.config.extractor, self.data.resolution, self.device)

    @functools.cached_property
    def real(self) -> RealImages:
        """The training images that samples are held against."""
        return RealImages(self.shards, "train", self.config.real_images)

    @functools.cached_property
    def reference(self) -> Reference | None:
        """What is to be known of them, on rank 0; from the cache where it is there."""
        cached = None
        if self.workers.rank == 0:
            cached = Reference.load(self.cache, self._reference_name, self.device)
        if self.workers.broadcast_bool(cached is not None, self.device):
            return cached
        features = self._real_features()
        if self.workers.rank:
            return None
        reference = Reference.of(features)
        with contextlib.suppress(OSError):  # on a full disk: it is made again the next time
            reference.save(self.cache, self._reference_name)
        return reference

    def sample_features(self, generator: ImageGenerator) -> Tensor:
        """Features of all samples of a generator: float32 [M, D]."""
        count = self.config.images
        return self._gather(
            count, self._width, torch.float32, self._samples(generator, count), self.extractor
        )

    def figures(self, features: Tensor) -> ImageQuality | None:
        """All figures of such samples, on rank 0; None elsewhere."""
        reference = self.reference
        return measure(reference, features, self.extractor.identity) if reference else None

    def memorization(self, generator: ImageGenerator, features: Tensor) -> MemorizationView | None:
        """What a search for copies among the first samples finds, on rank 0; None elsewhere.

        Args:
            generator: of the samples.
            features: of the samples.
        """
        reference = self.reference
        count = min(COMPARED, self.config.images)
        size = int(np.prod(self.data.shape))
        flat = self._gather(
            count,
            size,
            torch.uint8,
            self._samples(generator, count),
            lambda images: torch.from_numpy(images).flatten(1).to(self.device),
        )
        if reference is None:
            return None
        fakes = flat.cpu().numpy().reshape(count, *self.data.shape)
        held_out = RealImages(self.shards, "val", COMPARED)
        return memorization_view(
            self.extractor, self.real, reference.features, held_out, fakes, features[:count]
        )

    def expected_seconds(self, generator: ImageGenerator) -> float:
        """What a first evaluation is going to take this worker, from a few images."""
        indices = np.arange(_PROBE)
        self.extractor(self._draw(generator, indices))  # a first call is slower than the others
        started = time.monotonic()
        images = self._draw(generator, indices)
        drawn = time.monotonic()
        self.extractor(images)
        done = time.monotonic()
        total = self.config.images * (done - started)
        if not self.cache.exists(self._reference_name):
            total += len(self.real) * (done - drawn)
        return total / _PROBE / self.workers.size

    def _real_features(self) -> Tensor:
        chunks = self.real.chunks(self.workers.rank, self.workers.size)
        return self._gather(len(self.real), self._width, torch.float32, chunks, self.extractor)

    @property
    def _reference_name(self) -> str:
        extractor = f"{self.extractor.name} {self.extractor.checksum}"
        return real_stats_name(self.real.digest, extractor, len(self.real))

    @functools.cached_property
    def _width(self) -> int:
        return self.extractor(np.zeros((1, *self.data.shape), np.uint8)).shape[1]

    def _draw(self, generator: ImageGenerator, indices: np.ndarray) -> np.ndarray:
        places = torch.from_numpy(indices).to(self.device)
        seed, step = self.data.order.seed, torch.zeros(1, dtype=torch.int64, device=self.device)
        uniform, _ = draw(seed, Stream.METRIC, places, step, uniforms=1)
        labels = self.data.random_labels(uniform[:, 0]).cpu().numpy()
        return sample_images(generator, indices.tolist(), labels, SamplingConfig(), self.device)

    def _samples(self, generator: ImageGenerator, count: int) -> Parts:
        """This worker's share of the first `count` samples: their numbers and images."""
        mine = np.arange(self.workers.rank, count, self.workers.size)
        for start in range(0, len(mine), _CHUNK):
            part = mine[start : start + _CHUNK]
            yield part, self._draw(generator, part)

    def _gather(
        self,
        count: int,
        width: int,
        dtype: torch.dtype,
        parts: Parts,
        compute: Callable[[np.ndarray], Tensor],
    ) -> Tensor:
        """Rows [count, width] that `compute` makes of the images of all workers' parts."""
        rows = torch.zeros(count, width, dtype=dtype, device=self.device)
        for numbers, images in parts:
            rows[torch.from_numpy(numbers).to(self.device)] = compute(images)
        return self.workers.all_reduce_sum(rows)
