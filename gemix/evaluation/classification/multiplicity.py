"""Several methods compared with one: p-values and intervals that hold for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr

from gemix.core.rng import Stream, sample_rng

SIMULATIONS = 20_000


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, whatever their dependence.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(corrected, 1.0).tolist()


class JointTest:
    """The smallest of several p-values, if no method differs: max-T for unequal degrees of freedom.

    Westfall and Young, "Resampling-Based Multiple Testing", 1993: methods that are judged on the
    same patients have correlated errors, which costs less than Bonferroni's correction.
    """

    def __init__(self, correlation: np.ndarray, df: Sequence[float], seed: int = 0):
        """Simulate the statistics.

        Args:
            correlation: of the estimated differences, [M, M].
            df: degrees of freedom of each one's error, [M]; infinite ones are allowed.
            seed: of the simulation.
        """
        rng = sample_rng(seed, Stream.MULTIPLICITY)
        values, vectors = np.linalg.eigh(correlation)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        normal = rng.standard_normal((SIMULATIONS, len(root))) @ root.T
        finite = np.minimum(np.asarray(df, np.float64), 1e10)
        statistics = normal / np.sqrt(rng.chisquare(finite, normal.shape) / finite)
        self._smallest = np.sort((2 * stdtr(finite, -np.abs(statistics))).min(axis=1))

    def level(self, level: float) -> float:
        """Return the level of single intervals of which all hold with probability `level`."""
        return 1.0 - float(np.quantile(self._smallest, 1.0 - level))

    def p(self, p_value: float) -> float:
        """Return the probability that the smallest of the p-values is at most this one."""
        below = int(np.searchsorted(self._smallest, p_value, side="right"))
        return max(p_value, (below + 1) / (SIMULATIONS + 1))
