"""Intervals of rates, and of differences between training methods.

Test patients vary, and so do trainings. The test set is resampled by *group* (patient): images of
one patient are nearly equal, and resampling them one by one would make every interval too narrow
(cluster bootstrap: Field and Welsh, "Bootstrapping clustered data", JRSS B 69, 2007). All methods
see the same resamples, so differences are paired.

With several training seeds the resamples give the covariances of the multi-reader multi-case
analysis (:mod:`gemix.evaluation.classification.mrmc`), whose intervals hold for other trainings and
other patients. With one seed there is nothing to tell how trainings vary: the percentile intervals
are of those trainings alone. `python -m tests.bench.coverage` measures how often intervals hold the
truth.

A rate that depends on fewer than 6 patients has no interval: nothing that they do is unlikely by
chance (:data:`FEWEST_GROUPS`).

One averaging rule: every rate, of a class or over the classes, is computed for each seed and then
averaged over the seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gemix.core.errors import DataError
from gemix.core.rng import Stream, sample_rng
from gemix.evaluation.classification.mrmc import difference_of_methods, mean_over_trainings
from gemix.evaluation.classification.rates import (
    RATES,
    ClassRates,
    class_rates,
    confusion_matrix,
    rates,
)

RESAMPLES = 2000
LEVEL = 0.95
FEWEST_GROUPS = 6  # two-sided, the sign test of 5 patients cannot fall below p = 0.06
FEW_GROUPS = 10  # patients of a class; below that a bootstrap sees too little variation


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """A paired difference (method - baseline).

    Attributes:
        delta: on the test set as it is.
        low, high: ends of the 95% interval; -1 and 1 where there are too few patients to say.
        p: two-sided p-value of no difference; with too few patients that of the exact sign test
            over them.
    """

    delta: float
    low: float
    high: float
    p: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method's rates, each the mean over its seeds; those that cannot be computed are left out.

    Attributes:
        rates: by name, as :func:`gemix.evaluation.classification.rates.rates` has them.
        intervals: 95% interval (low, high) of each; (0, 1) where there are too few patients.
        by_class: precision and recall of each class, [K] each, averaged over the seeds too.
        differences: to the baseline, for each; empty for the baseline itself.
        confusion: int64 [K, K], summed over the seeds; rows are the truth.
    """

    rates: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    by_class: ClassRates
    differences: dict[str, PairedDifference]
    confusion: np.ndarray


def compare_methods(
    labels: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    groups: Sequence[str],
    *,
    classes: int,
    normal: int | None = None,
    baseline: str = "real",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compare methods: rates with intervals, and differences to the baseline.

    Args:
        labels: true classes, int [N].
        predictions: int [S, N] of each method, one row a training seed, the same S everywhere.
        groups: N keys; rows of one key are resampled together.
        classes: K.
        normal: index of the healthy class; None if there is none.
        baseline: the method that the others are compared with; it may be absent.
        resamples, seed: of the bootstrap.

    Raises:
        DataError: for fewer than two groups, or methods of different numbers of seeds.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"{len(names)} patient(s) or groups in the test set: bootstrap intervals need two or "
            "more; add patients to the test split"
        )
    shapes = {method: np.shape(rows) for method, rows in predictions.items()}
    if len(set(shapes.values())) != 1:
        raise DataError(f"methods differ in seeds or images: {shapes}; train the missing seeds")
    weights = sample_rng(seed, Stream.BOOTSTRAP).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    )
    counts = {
        method: np.stack([_by_group(labels, row, group, len(names), classes) for row in rows])
        for method, rows in predictions.items()
    }
    sampled = {method: _Sampled.of(found, weights, normal) for method, found in counts.items()}
    deciding = _deciding_groups(counts[next(iter(counts))][0], normal)
    results = {}
    for method, found in sampled.items():
        other = sampled.get(baseline) if method != baseline else None
        results[method] = Comparison(
            rates=found.means,
            intervals={name: found.interval(name, deciding[name]) for name in found.means},
            by_class=_by_class(counts[method]),
            differences={
                name: _difference(name, found, other, deciding[name])
                for name in found.means
                if other and name in other.means
            },
            confusion=counts[method].sum(axis=(0, 1)),
        )
    return results


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Sampled:
    """A method's rates, those that can be computed, and how they vary.

    Attributes:
        counts: confusion matrices, int64 [S, G, K, K].
        by_seed: rates of each training, float64 [S] for each name.
        draws: rates of each training in each resample of the patients, float64 [R, S].
    """

    counts: np.ndarray
    by_seed: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]

    @classmethod
    def of(cls, counts: np.ndarray, weights: np.ndarray, normal: int | None) -> _Sampled:
        """Compute the rates of counts, and of resamples that draw groups as often as [R, G] say."""
        seeds, groups, classes, _ = counts.shape
        cells = counts.transpose(1, 0, 2, 3).reshape(groups, -1).astype(np.float64)
        confusion = (weights @ cells).reshape(-1, seeds, classes, classes)
        found = rates(counts.sum(axis=1), normal)
        by_seed = {name: value for name, value in found.items() if not np.isnan(value).any()}
        draws = {name: v for name, v in rates(confusion, normal).items() if name in by_seed}
        return cls(counts=counts, by_seed=by_seed, draws=draws)

    @property
    def means(self) -> dict[str, float]:
        """The mean of each rate over the trainings."""
        return {name: float(value.mean()) for name, value in self.by_seed.items()}

    def interval(self, name: str, deciding: np.ndarray) -> tuple[float, float]:
        """Return the 95% interval of a rate, which a number of groups decide, bool [G]."""
        if deciding.sum() < FEWEST_GROUPS:
            return 0.0, 1.0
        draws = _without_nan(self.draws[name])
        if len(self.counts) == 1:
            return _percentiles(draws[:, 0])
        found = mean_over_trainings(self.by_seed[name], np.cov(draws.T))
        low, high = found.interval(LEVEL)
        return max(0.0, low), min(1.0, high)


def _difference(
    name: str, method: _Sampled, baseline: _Sampled, deciding: np.ndarray
) -> PairedDifference:
    """Return the difference of a rate, method less baseline."""
    first, second = method.by_seed[name], baseline.by_seed[name]
    delta = float(first.mean() - second.mean())
    if deciding.sum() < FEWEST_GROUPS:
        p = _sign_test(method.counts[:, deciding], baseline.counts[:, deciding])
        return PairedDifference(delta=delta, low=-1.0, high=1.0, p=p)
    draws = _without_nan(np.hstack([method.draws[name], baseline.draws[name]]))
    if len(first) == 1:
        differences = draws[:, 0] - draws[:, 1]
        low, high = _percentiles(differences)
        return PairedDifference(delta=delta, low=low, high=high, p=_p_value(differences))
    found = difference_of_methods(first, second, np.cov(draws.T))
    low, high = found.interval(LEVEL)
    return PairedDifference(delta=delta, low=max(-1.0, low), high=min(1.0, high), p=found.p)


def _deciding_groups(counts: np.ndarray, normal: int | None) -> dict[str, np.ndarray]:
    """Return which groups decide each rate, bool [G]: those of its rarest class.

    Args:
        counts: confusion matrices of any classifier, int64 [G, K, K].
    """
    images = counts.sum(axis=2)  # of each class, [G, K]
    of_class = images[:, images.any(axis=0)] > 0
    rarest = of_class[:, of_class.sum(axis=0).argmin()]
    found = dict.fromkeys(RATES, rarest)
    found["accuracy"] = np.ones(len(counts), bool)
    if normal is not None:
        found["missed_disease_rate"] = np.delete(images, normal, axis=1).any(axis=1)
    return found


def _sign_test(first: np.ndarray, second: np.ndarray) -> float:
    """Return the p-value of as many patients being better one way: counts [S, G, K, K] each."""
    from scipy.stats import binomtest  # takes a second to import

    hits = [np.trace(counts, axis1=2, axis2=3).sum(axis=0) for counts in (first, second)]
    above, below = int((hits[0] > hits[1]).sum()), int((hits[0] < hits[1]).sum())
    return float(binomtest(above, above + below).pvalue) if above + below else 1.0


def groups_by_class(
    labels: np.ndarray, groups: Sequence[str], classes: Sequence[str]
) -> dict[str, int]:
    """Count the groups (patients) that have images of each class.

    Args:
        labels: class indices, int [N].
        groups: N keys.
        classes: K names.
    """
    keys = np.asarray(groups)
    return {
        name: len(np.unique(keys[np.asarray(labels) == index]))
        for index, name in enumerate(classes)
    }


def warn_of_few_groups(counts: Mapping[str, int]) -> str | None:
    """Return a warning that names the classes with fewer than 10 test patients, if there are any.

    All patients of a small class are often right, or all wrong; then the bootstrap sees no
    variation. In simulations with 30, 30 and n patients of three classes, 95% intervals of macro
    recall held the truth in 84% of the cases for n = 3, in 93% for n = 10.

    Args:
        counts: patients or groups of each class, as :func:`groups_by_class` returns them.
    """
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEW_GROUPS]
    if not few:
        return None
    return (
        f"classes with fewer than {FEW_GROUPS} test patients or groups: {', '.join(few)}; their "
        "rates, and averages over the classes, are less certain than the intervals say; add "
        "patients to the test split"
    )


def _by_group(
    labels: np.ndarray, predictions: np.ndarray, group: np.ndarray, groups: int, classes: int
) -> np.ndarray:
    """Return the confusion matrix of each group: int64 [G, K, K]."""
    confusion_matrix(labels, predictions, classes)  # checks the indices
    cells = (group * classes + labels) * classes + predictions
    return np.bincount(cells, minlength=groups * classes**2).reshape(groups, classes, classes)


def _by_class(counts: np.ndarray) -> ClassRates:
    """Return the mean rates of each class over the seeds of counts [S, G, K, K]."""
    by_seed = class_rates(counts.sum(axis=1))
    return ClassRates(precision=by_seed.precision.mean(axis=0), recall=by_seed.recall.mean(axis=0))


def _without_nan(draws: np.ndarray) -> np.ndarray:
    """Leave out resamples without a diseased image, which have no missed-disease rate: [R, n]."""
    return draws[~np.isnan(draws).any(axis=1)]


def _percentiles(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _p_value(differences: np.ndarray) -> float:
    """Return twice the share of resamples on the smaller side of zero, the sample itself included.

    Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 4.2: with the
    sample included, no p-value is 0.
    """
    below, above = (differences <= 0).sum(), (differences >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1)))
