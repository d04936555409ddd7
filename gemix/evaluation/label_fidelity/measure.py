"""Compare labels asked for with the class probabilities that a classifier sees in the images.

The classifier is called the teacher. What it sees is only as good as it is itself: the same
comparison on real validation images, whose labels are known, is the ceiling.
"""

from __future__ import annotations

import dataclasses
from statistics import NormalDist

import numpy as np

BINS = 10  # of equal width, of weights and of entropies
_Z = NormalDist().inv_cdf(0.975)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proportion:
    """A share of images with its 95% interval (Wilson, 1927); None without images."""

    images: int
    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, hits: int, images: int) -> Proportion:
        """Return the share `hits` / `images`."""
        if not images:
            return cls(images=0, value=None, low=None, high=None)
        from scipy.stats import binomtest  # takes a second to import

        found = binomtest(hits, images).proportion_ci(method="wilson")
        return cls(images=images, value=hits / images, low=found.low, high=found.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bin:
    """Mean asked and mean seen of the values that fall into one bin, with a 95% interval of seen.

    Attributes:
        count: of values.
    """

    count: int
    asked: float
    seen: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelFidelity:
    """How far labels seen agree with labels asked, over one set of images.

    Attributes:
        agreement: share of images whose largest weight seen is that of the class with the largest
            weight asked.
        expected_agreement: the share if the classes of images were drawn from their labels: the
            mean of the largest weight asked.
        agreement_by_class: of the images of each class asked (by its largest weight).
        seen_by_class: mean weights seen, a row for each class asked: [K][K]; rows without images
            are zeros.
        calibration_error: expected calibration error (Guo et al., 2017) over all classes: mean
            distance between mean asked and mean seen weight of `weights`, 0 to 1.
        weights: asked and seen weights of all classes, by asked weight; intervals over images.
        weights_by_class: the same of each class alone.
        entropies: asked and seen entropy in nats, by asked entropy; each from 0 to log K.
        entropy_correlation: of asked and seen entropy (Pearson); None if either is constant.
    """

    agreement: Proportion
    expected_agreement: float
    agreement_by_class: tuple[Proportion, ...]
    seen_by_class: tuple[tuple[float, ...], ...]
    calibration_error: float
    weights: tuple[Bin, ...]
    weights_by_class: tuple[tuple[Bin, ...], ...]
    entropies: tuple[Bin, ...]
    entropy_correlation: float | None


class LabelFidelityMeter:
    """Accumulate label fidelity over parts of a set, in constant memory.

    Args:
        classes: K.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self._agreeing = np.zeros((classes, 2), np.int64)  # agreeing, all
        self._largest = 0.0
        self._seen = np.zeros((classes, classes))
        self._weights = _Bins(1.0)
        self._by_class = [_Bins(1.0) for _ in range(classes)]
        self._entropies = _Bins(float(np.log(classes)))
        self._moments = np.zeros(5)  # of asked and seen entropy

    def add(self, asked: np.ndarray, seen: np.ndarray) -> None:
        """Add images.

        Args:
            asked: labels, [N, K].
            seen: class probabilities by the teacher, [N, K].
        """
        asked, seen = np.asarray(asked, np.float64), np.asarray(seen, np.float64)
        wanted = asked.argmax(axis=1)
        is_agreeing = seen.argmax(axis=1) == wanted
        np.add.at(self._agreeing, wanted, np.stack([is_agreeing, np.ones_like(is_agreeing)], 1))
        self._largest += asked.max(axis=1).sum()
        np.add.at(self._seen, wanted, seen)
        self._weights.add(asked, seen)
        for k, bins in enumerate(self._by_class):
            bins.add(asked[:, [k]], seen[:, [k]])
        x, y = entropy(asked), entropy(seen)
        self._entropies.add(x[:, None], y[:, None])
        self._moments += [x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]

    def result(self) -> LabelFidelity:
        """Return the label fidelity of all images added.

        Raises:
            ValueError: if there are none.
        """
        hits, images = self._agreeing.sum(axis=0).tolist()
        if not images:
            raise ValueError("label fidelity of no image")
        counts = np.maximum(self._agreeing[:, 1], 1)[:, None]
        weights = self._weights.result()
        return LabelFidelity(
            agreement=Proportion.of(hits, images),
            expected_agreement=self._largest / images,
            agreement_by_class=tuple(Proportion.of(*row) for row in self._agreeing.tolist()),
            seen_by_class=tuple(map(tuple, (self._seen / counts).tolist())),
            calibration_error=sum(b.count * abs(b.asked - b.seen) for b in weights)
            / (images * self.classes),
            weights=weights,
            weights_by_class=tuple(bins.result() for bins in self._by_class),
            entropies=self._entropies.result(),
            entropy_correlation=self._correlation(images),
        )

    def _correlation(self, images: int) -> float | None:
        x, y, xx, yy, xy = self._moments / images
        spread = (xx - x * x) * (yy - y * y)
        return float((xy - x * y) / np.sqrt(spread)) if spread > 1e-12 else None


def label_fidelity(asked: np.ndarray, seen: np.ndarray) -> LabelFidelity:
    """Return the label fidelity of a set: labels asked and probabilities seen, [N, K] each."""
    meter = LabelFidelityMeter(asked.shape[1])
    meter.add(asked, seen)
    return meter.result()


def entropy(weights: np.ndarray) -> np.ndarray:
    """Return the entropy of each row in nats: [N, K] to [N]."""
    return -(weights * np.log(np.maximum(weights, 1e-30))).sum(axis=1)


class _Bins:
    """Means of seen values by asked value, with intervals over images.

    A bin's mean is a ratio of sums over images, sum_i s_i / sum_i m_i, where m_i values of image i
    are in the bin and s_i is their sum of seen values. Its variance is that of ratio estimators,
    sum_i (s_i - R m_i)^2 / (sum_i m_i)^2, so that weights of one image, which depend on one
    another, are not taken for independent ones.
    """

    def __init__(self, largest: float):
        self.largest = largest
        self.sums = np.zeros((BINS, 6))  # count, asked, seen, m^2, s m, s^2

    def add(self, asked: np.ndarray, seen: np.ndarray) -> None:
        """Add values of images, [N, M] each."""
        index = np.clip((asked / self.largest * BINS).astype(int), 0, BINS - 1)
        for number in range(BINS):
            inside = index == number
            m, s = inside.sum(axis=1), np.where(inside, seen, 0).sum(axis=1)
            a = np.where(inside, asked, 0).sum()
            self.sums[number] += [m.sum(), a, s.sum(), (m * m).sum(), (s * m).sum(), (s * s).sum()]

    def result(self) -> tuple[Bin, ...]:
        """Return the bins that hold values."""
        found = []
        for count, asked, seen, mm, sm, ss in self.sums[self.sums[:, 0] > 0].tolist():
            ratio = seen / count
            spread = max(0.0, ss - 2 * ratio * sm + ratio * ratio * mm)
            half = float(_Z * np.sqrt(spread) / count)
            found.append(
                Bin(
                    count=int(count),
                    asked=asked / count,
                    seen=ratio,
                    low=max(0.0, ratio - half),
                    high=min(self.largest, ratio + half),
                )
            )
        return tuple(found)
