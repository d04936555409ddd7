"""A map of features in two dimensions, into which further images are projected.

t-SNE (van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 9, 2008), computed by
openTSNE, an optional package (the extra `explain`): unlike scikit-learn's it can place new points
in a map without moving the others (Poličar, Stražar and Zupan, "Embedding to reference t-SNE space
addresses batch effects in single-cell classification", Machine Learning 112, 2023).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from gemix.core.errors import DataError

PERPLEXITY = 30.0  # openTSNE's default, and scikit-learn's
_PROJECTED = 5.0  # openTSNE's default for points that are projected
FEWEST = 10


def is_installed() -> bool:
    """Return whether openTSNE can be imported."""
    return importlib.util.find_spec("openTSNE") is not None


def project(reference: np.ndarray, others: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Fit a map to some features, and project others into it.

    Args:
        reference: float [N, D], N at least 10.
        others: float [M, D] each.
        seed: of the optimization.

    Returns:
        Places of the reference, float64 [N, 2], then of the others, float64 [M, 2] each.

    Raises:
        DataError: for too few images, or features that are all the same or not finite.
        ModuleNotFoundError: without openTSNE.
    """
    from openTSNE import TSNE

    count = len(reference)
    if count < FEWEST:
        raise DataError(f"{count} images: a t-SNE map needs {FEWEST} or more")
    if not all(np.isfinite(rows).all() for rows in (reference, *others)):
        raise DataError("features that are not finite: no t-SNE map shows them")
    if not np.ptp(reference, axis=0).any():
        raise DataError(f"the features of {count} images are all the same: no map shows them")
    neighbors = (count - 1) / 3  # openTSNE looks at three times the perplexity
    # exact neighbours and one process: the same numbers every time
    tsne = TSNE(
        perplexity=min(PERPLEXITY, neighbors), neighbors="exact", random_state=seed, n_jobs=1
    )
    places = tsne.fit(np.asarray(reference, np.float64))
    projected = [
        np.asarray(places.transform(np.asarray(rows, np.float64), min(_PROJECTED, neighbors)))
        if len(rows)
        else np.empty((0, 2))
        for rows in others
    ]
    return [np.asarray(places), *projected]
