"""Rates of trainings on resamples of the patients; intervals of them and of their differences."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from gemix.evaluation.classification.mrmc import (
    Estimate,
    Part,
    difference_of_methods,
    mean_over_trainings,
    part_of,
)
from gemix.evaluation.classification.multiplicity import JointTest, holm
from gemix.evaluation.classification.rates import rates

LEVEL = 0.95
FEWEST_GROUPS = 6  # two-sided, the sign test of 5 patients cannot fall below p = 0.06
FEWEST_GENERATORS = 3  # 2 have a spread of one degree of freedom: intervals would say nothing


def largest_value(rate: str) -> float:
    """Return what a rate is at most; the least is 0."""
    return 2.0 if rate == "brier" else 1.0


def by_draw(values: np.ndarray, draws: int) -> np.ndarray:
    """Return means over the trainings of each draw of training patients: [..., S] to [..., D]."""
    return values.reshape(*values.shape[:-1], draws, -1).mean(axis=-1)


def by_generator(values: np.ndarray, generators: int) -> np.ndarray:
    """Return means over the trainings of each generator, [..., S] to [..., G].

    Training s learned from images of generator s % G. Where these are fewer than
    `FEWEST_GENERATORS`, the values as they are: trainings count as independent.
    """
    if generators < FEWEST_GENERATORS:
        return values
    return values.reshape(*values.shape[:-1], -1, generators).mean(axis=-2)


def spread_of_means(values: np.ndarray, generators: int) -> float:
    """Return the variance that the means of :func:`by_generator` have by their trainings alone.

    It is what they vary at least: the means of three generators may be near by chance. 0 where
    there is one training a generator, or fewer than `FEWEST_GENERATORS`.

    Args:
        values: one a training, float64 [S].
    """
    each = len(values) // generators
    if generators < FEWEST_GENERATORS or each == 1:
        return 0.0
    return float(values.reshape(each, generators).var(axis=0, ddof=1).mean()) / each


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """A paired difference (method - baseline).

    Attributes:
        delta: on the test set as it is.
        low, high: ends of the 95% interval; -1 and 1 where there are too few patients to say.
        p: two-sided p-value of no difference; with too few patients that of the exact sign test
            over them.
        error: standard error; None where there are too few patients to say.
        df: its degrees of freedom; None where they are infinite.
        joint_low, joint_high: ends of intervals that hold for all methods at once with 95%
            probability (max-T).
        p_joint: p-value corrected likewise.
        p_holm: p-value corrected by Holm's method, which assumes nothing of their dependence.
        not_above_zero: share of the sampling distribution, Student's t as of the interval, which is
            not above 0; None where there are too few patients, or one training, to say.
    """

    delta: float
    low: float
    high: float
    p: float
    error: float | None
    df: float | None
    joint_low: float
    joint_high: float
    p_joint: float
    p_holm: float
    not_above_zero: float | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampledRates:
    """A method's rates, those that can be computed, and how they vary.

    Attributes:
        counts: confusion matrices, int64 [S, G, K, K].
        by_seed: rates of each training, float64 [S] for each name.
        draws: rates of each training in each resample of the patients, float64 [R, S].
        generators: independently trained generators whose images the trainings learned from in
            turn; with `FEWEST_GENERATORS` or more, intervals hold for other generators too.
    """

    counts: np.ndarray
    by_seed: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    generators: int = 1

    @classmethod
    def of(
        cls,
        counts: np.ndarray,
        weights: np.ndarray,
        normal: int | None,
        extra: Mapping[str, tuple[np.ndarray, np.ndarray]],
        generators: int = 1,
    ) -> SampledRates:
        """Compute the rates of counts, and of resamples that draw groups as often as [R, G] say.

        Args:
            extra: other rates, [S] each, and those of the resamples, [R, S].
            generators: the attribute.
        """
        seeds, groups, classes, _ = counts.shape
        cells = counts.transpose(1, 0, 2, 3).reshape(groups, -1).astype(np.float64)
        confusion = (weights @ cells).reshape(-1, seeds, classes, classes)
        found = rates(counts.sum(axis=1), normal)
        found |= {name: value for name, (value, _) in extra.items()}
        sampled = rates(confusion, normal) | {name: draws for name, (_, draws) in extra.items()}
        by_seed = {name: value for name, value in found.items() if not np.isnan(value).any()}
        draws = {name: value for name, value in sampled.items() if name in by_seed}
        return cls(counts=counts, by_seed=by_seed, draws=draws, generators=generators)

    @property
    def means(self) -> dict[str, float]:
        """The mean of each rate over the trainings."""
        return {name: float(value.mean()) for name, value in self.by_seed.items()}

    @property
    def deviations(self) -> dict[str, float]:
        """The standard deviation of each rate over the trainings, if there are several."""
        if len(self.counts) == 1:
            return {}
        return {name: float(value.std(ddof=1)) for name, value in self.by_seed.items()}

    def interval(self, name: str, deciding: np.ndarray, draws: int = 1) -> tuple[float, float]:
        """Return the 95% interval of a rate, which a number of groups decide, bool [G].

        Args:
            draws: of training patients.
        """
        largest = largest_value(name)
        if deciding.sum() < FEWEST_GROUPS:
            return 0.0, largest
        sampled = _without_nan(self.draws[name])
        if len(self.counts) == 1:
            return _percentiles(sampled[:, 0])
        values = self.by_seed[name]
        if draws > 1:
            values, sampled = by_draw(values, draws), by_draw(sampled, draws)
            estimate = mean_over_trainings(values, np.cov(sampled.T), self.of_generators(name))
        else:
            estimate = mean_over_trainings(
                by_generator(values, self.generators),
                np.cov(by_generator(sampled, self.generators).T),
                least=spread_of_means(values, self.generators),
            )
        low, high = estimate.interval(LEVEL)
        return max(0.0, low), min(largest, high)

    def of_generators(self, name: str) -> list[Part]:
        """Return what generators make of the variance of a mean; empty with too few.

        Every draw of training patients has the same generators, so that the spread of draws does
        not show it. It has the trainings in it once more, which makes intervals wider, if anything.
        """
        if self.generators < FEWEST_GENERATORS:
            return []
        sampled = by_generator(_without_nan(self.draws[name]), self.generators)
        return [part_of(by_generator(self.by_seed[name], self.generators), np.cov(sampled.T))]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """One rate's difference between a method and the baseline.

    Attributes:
        estimate: with its standard error and degrees of freedom; None with too few patients.
        draws: of the difference over resamples of the patients, float64 [R].
        p: of no difference.
        percentiles: whether intervals are those of `draws`.
        largest: what the rate is at most.
    """

    delta: float
    estimate: Estimate | None
    draws: np.ndarray
    p: float
    percentiles: bool
    largest: float

    def interval(self, level: float) -> tuple[float, float]:
        if self.estimate is None:
            return -self.largest, self.largest
        if self.percentiles:
            return _percentiles(self.draws, level)
        low, high = self.estimate.interval(level)
        return max(-self.largest, low), min(self.largest, high)


def differences_to(
    sampled: Mapping[str, SampledRates],
    others: Sequence[str],
    baseline: str,
    deciding: Mapping[str, np.ndarray],
    draws: int,
    seed: int,
) -> dict[str, dict[str, PairedDifference]]:
    """Return the differences of each method by rate, corrected for the number of methods."""
    found: dict[str, dict[str, PairedDifference]] = {method: {} for method in others}
    for name in sampled[baseline].means if others else ():
        pairs = {
            method: _pair(name, sampled[method], sampled[baseline], deciding[name], draws)
            for method in others
            if name in sampled[method].means
        }
        for method, difference in _corrected(pairs, seed).items():
            found[method][name] = difference
    return found


def _pair(
    name: str, method: SampledRates, baseline: SampledRates, deciding: np.ndarray, draws: int
) -> _Pair:
    first, second = method.by_seed[name], baseline.by_seed[name]
    count = len(first)
    both = np.hstack([method.draws[name], baseline.draws[name]])
    make = functools.partial(
        _Pair, delta=float(first.mean() - second.mean()), largest=largest_value(name)
    )
    if deciding.sum() < FEWEST_GROUPS:
        p = _sign_test(method.counts[:, deciding], baseline.counts[:, deciding])
        return make(estimate=None, draws=np.empty(0), p=p, percentiles=False)
    both = _without_nan(both)
    of_means = both[:, :count].mean(axis=1) - both[:, count:].mean(axis=1)
    if count == 1:
        error = float(of_means.std(ddof=1))
        estimate = Estimate(value=float(first[0] - second[0]), error=error, df=np.inf)
        return make(estimate=estimate, draws=of_means, p=_p_value(of_means), percentiles=True)
    if draws > 1:
        resampled = by_draw(both[:, :count] - both[:, count:], draws)
        more = method.of_generators(name) + baseline.of_generators(name)
        estimate = mean_over_trainings(by_draw(first - second, draws), np.cov(resampled.T), more)
    else:
        rows = [
            by_generator(both[:, :count], method.generators),
            by_generator(both[:, count:], baseline.generators),
        ]
        estimate = difference_of_methods(
            by_generator(first, method.generators),
            by_generator(second, baseline.generators),
            np.cov(np.hstack(rows).T),
            (
                spread_of_means(first, method.generators),
                spread_of_means(second, baseline.generators),
            ),
        )
    return make(estimate=estimate, draws=of_means, p=estimate.p, percentiles=False)


def _corrected(pairs: Mapping[str, _Pair], seed: int) -> dict[str, PairedDifference]:
    """Return one rate's differences, with joint intervals and p-values.

    The correlation of two differences is that over the patients. What trainings of the baseline add
    to it is left out, which makes joint intervals wider, if anything.
    """
    by_holm = dict(zip(pairs, holm([pair.p for pair in pairs.values()]), strict=True))
    known = [method for method, pair in pairs.items() if pair.estimate is not None]
    level, joint = LEVEL, None
    varying = [m for m in known if pairs[m].estimate.error > 0]
    if len(varying) > 1:
        errors = np.array([pairs[m].estimate.error for m in varying])
        rows = np.stack([pairs[m].draws for m in varying], axis=1)
        covariance = np.atleast_2d(np.cov(rows.T))
        correlation = np.clip(covariance / np.outer(errors, errors), -1.0, 1.0)
        np.fill_diagonal(correlation, 1.0)
        joint = JointTest(correlation, [pairs[m].estimate.df for m in varying], seed)
        level = joint.level(LEVEL)
    found = {}
    for method, pair in pairs.items():
        low, high = pair.interval(LEVEL)
        joint_low, joint_high = pair.interval(level)
        found[method] = PairedDifference(
            delta=pair.delta,
            low=low,
            high=high,
            p=pair.p,
            error=None if pair.estimate is None else pair.estimate.error,
            df=None if pair.estimate is None or np.isinf(pair.estimate.df) else pair.estimate.df,
            joint_low=joint_low,
            joint_high=joint_high,
            p_joint=joint.p(pair.p) if joint and method in varying else by_holm[method],
            p_holm=by_holm[method],
            not_above_zero=None
            if pair.estimate is None or pair.percentiles
            else pair.estimate.not_above_zero,
        )
    return found


def _sign_test(first: np.ndarray, second: np.ndarray) -> float:
    """Return the p-value of as many patients being better one way: counts [S, G, K, K] each."""
    from scipy.stats import binomtest  # takes a second to import

    hits = [np.trace(counts, axis1=2, axis2=3).sum(axis=0) for counts in (first, second)]
    above, below = int((hits[0] > hits[1]).sum()), int((hits[0] < hits[1]).sum())
    return float(binomtest(above, above + below).pvalue) if above + below else 1.0


def _without_nan(draws: np.ndarray) -> np.ndarray:
    """Leave out resamples without a diseased image, which have no missed-disease rate: [R, n]."""
    return draws[~np.isnan(draws).any(axis=1)]


def _percentiles(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _p_value(differences: np.ndarray) -> float:
    """Return twice the share of resamples on the smaller side of zero, the sample itself included.

    Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 4.2: with the
    sample included, no p-value is 0.
    """
    below, above = (differences <= 0).sum(), (differences >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1)))
