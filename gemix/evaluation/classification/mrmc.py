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
    def p(self) -> float:
        """The two-sided p-value of the value 0."""
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * _t_cdf(self.df, -abs(self.value) / self.error))


def mean_over_trainings(values: np.ndarray, covariance: np.ndarray) -> Estimate:
    """Return the mean of one method's values.

    Args:
        values: one a training, float64 [S], S at least 2.
        covariance: of the values over draws of patients, [S, S].
    """
    return _estimate(
        values.mean(), [_variance(values, covariance)], _off_diagonal_mean(covariance), len(values)
    )


def difference_of_methods(
    first: np.ndarray, second: np.ndarray, covariance: np.ndarray
) -> Estimate:
    """Return the mean of `first` less the mean of `second`.

    Args:
        first, second: one value a training, float64 [S] each, S at least 2.
        covariance: of both over draws of patients, [2 S, 2 S], those of `first` first.
    """
    count = len(first)
    of_first, of_second = covariance[:count, :count], covariance[count:, count:]
    # twice Cov2 - Cov3 of Obuchowski and Rockette: what trainings share through the patients, those
    # of one method beyond those of different methods
    shared = _off_diagonal_mean(of_first) + _off_diagonal_mean(of_second)
    shared -= 2 * covariance[:count, count:].mean()
    variances = [_variance(first, of_first), _variance(second, of_second)]
    return _estimate(first.mean() - second.mean(), variances, shared, count)


def _variance(values: np.ndarray, covariance: np.ndarray) -> float:
    """Return the variance of trainings on these patients.

    It is at least what the patients alone make of it: two trainings may be near by chance.
    """
    of_patients = float(np.trace(covariance)) / len(values) - _off_diagonal_mean(covariance)
    return max(float(values.var(ddof=1)), of_patients)


def _estimate(value: float, variances: Sequence[float], shared: float, count: int) -> Estimate:
    """Return the estimate of a mean of `count` values, or of a difference of such means.

    Args:
        variances: of the values of each method, over trainings.
        shared: covariance of two values over draws of patients, which means do not average away.
    """
    variance = sum(variances)
    total = variance + count * max(shared, 0.0)
    squares = sum(one**2 for one in variances)
    df = math.inf if squares == 0 else (count - 1) * total**2 / squares
    return Estimate(value=float(value), error=math.sqrt(total / count), df=df)


def _off_diagonal_mean(matrix: np.ndarray) -> float:
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def _t_quantile(df: float, share: float) -> float:
    return stdtrit(min(df, 1e10), share)


def _t_cdf(df: float, value: float) -> float:
    return stdtr(min(df, 1e10), value)
