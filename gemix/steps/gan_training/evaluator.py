"""Image metrics and copying audit of a generator, computed by all workers of a training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from gemix.classifier.bundle import Classifier
from gemix.core.distributed import Workers
from gemix.core.errors import GemixError, StoreAccessError, StoreError
from gemix.core.rng import Stream
from gemix.core.torch_rng import draw
from gemix.evaluation.image_quality.base import ImageMetricError
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.evaluation.image_quality.features.base import Extractor
from gemix.evaluation.image_quality.features.registry import open_extractor
from gemix.evaluation.image_quality.measure import ImageQuality, measure
from gemix.evaluation.image_quality.real_stats import RealStats, real_stats_name
from gemix.evaluation.label_fidelity.measure import LabelFidelity, label_fidelity
from gemix.gan.config import SamplingConfig
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.models.base import ImageGenerator
from gemix.gan.sampling import sample_images
from gemix.io.storage import Store
from gemix.steps.gan_training.memorization_view import MemorizationView, memorization_view
from gemix.steps.gan_training.real_images import RealImages

COMPARED = 1000  # samples, and held-out images, that are searched for copies
_CHUNK = 256
_PROBE = 16

Parts = Iterator[tuple[np.ndarray, np.ndarray]]  # indices of images, and the images


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SnapshotEvaluation:
    """Result of the evaluation of a generator.

    Attributes:
        features: of all samples, float32 [M, D]; the same on every worker.
        quality: the image metrics, on rank 0; None elsewhere and where a metric failed.
        fidelity: label fidelity of the samples, on rank 0; None elsewhere and without a teacher.
        failure: why a metric failed, on rank 0; None otherwise.
    """

    features: Tensor
    quality: ImageQuality | None = None
    fidelity: LabelFidelity | None = None
    failure: str | None = None


class Evaluator:
    """Evaluator of generators; every worker has one and calls each method at the same time.

    Sample i is the image of seed i with the label of a training image drawn for i. So samples
    depend neither on the number of workers nor on what the training draws. Extractor and real
    images are opened on first use.

    Args:
        shards: the real images; held-out ones are those of the val split.
        cache: where features of real images are kept.
        data: the training set, from which the samples' labels are drawn.
        teacher: says what the samples show; None for no label fidelity.
    """

    def __init__(
        self,
        config: MetricsConfig,
        shards: Store,
        cache: Store,
        data: TrainingDataset,
        workers: Workers,
        teacher: Classifier | None = None,
    ):
        self.teacher = teacher
        self.config, self.shards, self.cache = config, shards, cache
        self.data, self.workers, self.device = data, workers, data.device
        self._cached_stats: RealStats | None = None

    def evaluate(self, generator: ImageGenerator) -> SnapshotEvaluation:
        """Compute the image metrics of any generator on the workers' device.

        A metric that fails is told in the result: it never ends a training.
        """
        features, seen = self._look_at_samples(generator)
        real_features = self.real_features  # collective, so before rank 0 goes on alone
        if real_features is None:
            return SnapshotEvaluation(features=features)
        fidelity = None
        if seen is not None:
            asked = self._labels(np.arange(self.config.images))
            fidelity = label_fidelity(asked, seen.cpu().numpy())
        try:
            quality = measure(self.real_stats, features, self.extractor.identity)
        except ImageMetricError as error:
            return SnapshotEvaluation(features=features, fidelity=fidelity, failure=str(error))
        return SnapshotEvaluation(features=features, quality=quality, fidelity=fidelity)

    def memorization(self, generator: ImageGenerator, features: Tensor) -> MemorizationView | None:
        """Search the first samples of a generator for copies; return None except on rank 0.

        Args:
            generator: of the samples.
            features: of the samples, as :meth:`evaluate` returns them for this generator.

        Raises:
            ImageMetricError: on rank 0, after all communication, if the search fails.
        """
        real_features = self.real_features
        count = min(COMPARED, self.config.images)
        size = int(np.prod(self.data.shape))
        flat = self._gather(
            count,
            size,
            torch.uint8,
            self._samples(generator, count),
            lambda images: torch.from_numpy(images).flatten(1).to(self.device),
        )
        if real_features is None:
            return None
        fakes = flat.cpu().numpy().reshape(count, *self.data.shape)
        try:
            held_out = RealImages(self.shards, "val", COMPARED)
            return memorization_view(
                self.extractor, self.real, real_features, held_out, fakes, features[:count]
            )
        except (GemixError, OSError, RuntimeError, MemoryError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ImageMetricError(f"memorization view: {reason}") from error

    def expected_seconds(self, generator: ImageGenerator) -> float:
        """Estimate the seconds of a first evaluation on this worker, from a few images."""
        indices = np.arange(_PROBE)
        self.extractor(self._draw(generator, indices))  # a first call is slower than the others
        started = time.monotonic()
        images = self._draw(generator, indices)
        drawn = time.monotonic()
        self.extractor(images)
        done = time.monotonic()
        total = self.config.images * (done - started)
        if not self.cache.exists(self._stats_name):
            total += len(self.real) * (done - drawn)
        return total / _PROBE / self.workers.size

    @functools.cached_property
    def extractor(self) -> Extractor:
        """The feature extractor."""
        return open_extractor(self.config.extractor, self.data.resolution, self.device)

    @functools.cached_property
    def real(self) -> RealImages:
        """The training images that samples are compared with."""
        return RealImages(self.shards, "train", self.config.real_images)

    @functools.cached_property
    def real_features(self) -> Tensor | None:
        """Features of :attr:`real`, from the cache if they are there; None except on rank 0."""
        if self.workers.rank == 0:
            self._cached_stats = RealStats.load(self.cache, self._stats_name, self.device)
        cached = self._cached_stats
        if self.workers.broadcast_bool(cached is not None, self.device):
            return cached.features if cached else None
        features = self._extract_real_features()
        return None if self.workers.rank else features

    @functools.cached_property
    def real_stats(self) -> RealStats:
        """Statistics of :attr:`real`, on rank 0; computed once and cached.

        Raises:
            ImageMetricError: if a metric cannot compute its part.
        """
        features = self.real_features
        if self._cached_stats:
            return self._cached_stats
        stats = RealStats.of(features)
        # a full disk, a store that is away: they are computed again the next time
        with contextlib.suppress(OSError, StoreError, StoreAccessError):
            stats.save(self.cache, self._stats_name)
        return stats

    def _look_at_samples(self, generator: ImageGenerator) -> tuple[Tensor, Tensor | None]:
        """Return features of all samples, float32 [M, D], and what the teacher sees, [M, K]."""
        count, width = self.config.images, self._width
        samples = self._samples(generator, count)
        if self.teacher is None:
            rows = self._gather(count, width, torch.float32, samples, self.extractor)
            return rows, None

        def look(images: np.ndarray) -> Tensor:
            seen = torch.from_numpy(self.teacher.predict(images)).to(self.device)
            return torch.cat([self.extractor(images), seen], dim=1)

        width_of_both = width + len(self.teacher.classes)
        rows = self._gather(count, width_of_both, torch.float32, samples, look)
        return rows[:, :width].contiguous(), rows[:, width:]

    def _extract_real_features(self) -> Tensor:
        chunks = self.real.chunks(self.workers.rank, self.workers.size)
        return self._gather(len(self.real), self._width, torch.float32, chunks, self.extractor)

    @property
    def _stats_name(self) -> str:
        extractor = f"{self.extractor.name} {self.extractor.checksum}"
        return real_stats_name(self.real.digest, extractor, len(self.real))

    @functools.cached_property
    def _width(self) -> int:
        return self.extractor(np.zeros((1, *self.data.shape), np.uint8)).shape[1]

    def _draw(self, generator: ImageGenerator, indices: np.ndarray) -> np.ndarray:
        labels = self._labels(indices)
        return sample_images(generator, indices.tolist(), labels, SamplingConfig(), self.device)

    def _labels(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels that samples are asked for, float32 [N, K]."""
        sample_ids = torch.from_numpy(indices).to(self.device)
        seed, step = self.data.order.seed, torch.zeros(1, dtype=torch.int64, device=self.device)
        uniform, _ = draw(seed, Stream.METRIC, sample_ids, step, uniforms=1)
        return self.data.random_labels(uniform[:, 0]).cpu().numpy()

    def _samples(self, generator: ImageGenerator, count: int) -> Parts:
        """Yield this worker's share of the first `count` samples: indices and images."""
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
        """Return rows [count, width] that `compute` makes of the images of all workers' parts."""
        rows = torch.zeros(count, width, dtype=dtype, device=self.device)
        for indices, images in parts:
            rows[torch.from_numpy(indices).to(self.device)] = compute(images)
        return self.workers.all_reduce_sum(rows)
