"""The loss of soft targets, and what each class counts in it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.core.errors import DataError


def soft_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    row_weights: Tensor | None = None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean over n rows of -v sum_k w_k ((1 - e) y_k + e / K) log p_k.

    Args:
        logits: of the probabilities p, float32 [n, K].
        targets: soft labels y, float32 [n, K].
        row_weights: v, float32 [n]; None for ones.
        class_weights: w, float32 [K]; None for ones.
        label_smoothing: e, 0 to 1.
    """
    loss = functools.partial(
        F.cross_entropy, logits, targets, weight=class_weights, label_smoothing=label_smoothing
    )
    if row_weights is None:
        return loss()
    return (row_weights * loss(reduction="none")).mean()


def balanced_class_weights(labels: np.ndarray, classes: Sequence[str]) -> Tensor:
    """Return weights of K classes with which all count alike: N / (K n_k), float32 [K].

    Their mean over `labels` is 1.

    Args:
        labels: int64 [N]; class k has n_k of them.
        classes: the K names.

    Raises:
        DataError: if a class has no image, and would have no finite weight.
    """
    counts = np.bincount(labels, minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if missing:
        raise DataError(
            f"classifier.balance=loss: no training image of class {missing[0]!r} to weight it by; "
            "set classifier.balance to none or sampler, or add images of it"
        )
    weights = len(labels) / (len(classes) * counts)
    return torch.from_numpy(weights.astype(np.float32))
