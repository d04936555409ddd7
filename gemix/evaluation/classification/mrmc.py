"""Variance of a mean over trainings and patients: the multi-reader multi-case analysis.

Trainings (seeds) are like readers and patients like cases: every training judges the same patients,
and each belongs to one method, as in a split-plot study whose readers are nested in the tests. The
model is that of Obuchowski and Rockette ("Hypothesis testing of diagnostic accuracy for multiple
readers and multiple tests", Communications in Statistics 24, 1995), for nested readers of Hillis
("A marginal-mean ANOVA approach for analyzing multireader multicase radiological imaging data",
Statistics in Medicine 33, 2014), with Satterthwaite's degrees of freedom. What it concludes holds
for other trainings and other patients of the same kind.

Trainings of one seed are not paired: a seed does not make trainings on other images alike, and with
few trainings the variance of few differences is known so badly that intervals become twice as wide.

Where trainings are nested in generators, whose images they learned from, the generators are the
readers, and their values the means over their trainings: what is concluded holds for other
generators.

Resampling S trainings from S, as a bootstrap of both levels does, takes their variance for
(S - 1) / S of what it is, and quantiles of so few draws for normal.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr, stdtrit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """An estimate with its standard error.

    Attributes:
        value: a mean, or a difference of two.
        error: its standard error over trainings and patients.
        df: degrees of freedom of the error, infinite where trainings do not differ.
    """

    value: float
    error: float
    df: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval of Student's t distribution."""
        half = float(_t_quantile(self.df, (1 + level) / 2)) * self.error
        return self.value - half, self.value + half

    @property
    def not_above_zero(self) -> float:
        """The share of that distribution around the value which is not above 0."""
        if self.error == 0:
            return float(self.value <= 0)
        return float(_t_cdf(self.df, -self.value / self.error))

    @property
    def p(self) -> float:
        """The two-sided p-value of the value 0."""
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * _t_cdf(self.df, -abs(self.value) / self.error))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the variance of a mean, estimated with some degrees of freedom."""

    variance: float
    df: int


def mean_over_trainings(
    values: np.ndarray, covariance: np.ndarray, more: Sequence[Part] = (), least: float = 0.0
) -> Estimate:
    """Return the mean of one method's values.

    Args:
        values: one a training (or a generator, or a draw), float64 [S], S at least 2.
        covariance: of the values over draws of patients, [S, S].
        more: parts of the mean's variance that all values share, which their spread does not show.
        least: variance that the values are known to have at least.
    """
    parts = [part_of(values, covariance, least), *more]
    return _estimate(values.mean(), parts, _off_diagonal_mean(covariance))


def difference_of_methods(
    first: np.ndarray,
    second: np.ndarray,
    covariance: np.ndarray,
    least: tuple[float, float] = (0.0, 0.0),
) -> Estimate:
    """Return the mean of `first` less the mean of `second`.

    Args:
        first, second: one value a training (or a generator), float64 [S] and [T], each at least 2.
        covariance: of both over draws of patients, [S + T, S + T], those of `first` first.
        least: variance that the values of either are known to have at least.
    """
    count = len(first)
    of_first, of_second = covariance[:count, :count], covariance[count:, count:]
    # twice Cov2 - Cov3 of Obuchowski and Rockette: what trainings share through the patients, those
    # of one method beyond those of different methods
    shared = _off_diagonal_mean(of_first) + _off_diagonal_mean(of_second)
    shared -= 2 * covariance[:count, count:].mean()
    parts = [part_of(first, of_first, least[0]), part_of(second, of_second, least[1])]
    return _estimate(first.mean() - second.mean(), parts, shared)


def part_of(values: np.ndarray, covariance: np.ndarray, least: float = 0.0) -> Part:
    """Return the part of the variance of a mean that trainings on these patients make.

    It is at least what the patients alone make of it: two trainings may be near by chance.

    Args:
        values, covariance, least: as of :func:`mean_over_trainings`.
    """
    count = len(values)
    of_patients = float(np.trace(covariance)) / count - _off_diagonal_mean(covariance)
    variance = max(float(values.var(ddof=1)), of_patients, least)
    return Part(variance=variance / count, df=count - 1)


def _estimate(value: float, parts: Sequence[Part], shared: float) -> Estimate:
    """Return an estimate, its degrees of freedom by Satterthwaite.

    Args:
        parts: independent parts of its variance.
        shared: covariance of two values over draws of patients, which means do not average away.
    """
    total = sum(part.variance for part in parts) + max(shared, 0.0)
    squares = sum(part.variance**2 / part.df for part in parts)
    df = math.inf if squares == 0 else total**2 / squares
    return Estimate(value=float(value), error=math.sqrt(total), df=df)


def _off_diagonal_mean(matrix: np.ndarray) -> float:
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def _t_quantile(df: float, share: float) -> float:
    return stdtrit(min(df, 1e10), share)


def _t_cdf(df: float, value: float) -> float:
    return stdtr(min(df, 1e10), value)
