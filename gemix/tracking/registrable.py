"""The gate of the model registry: which classifiers may be registered."""

from __future__ import annotations

import math

from gemix.classifier.bundle import Classifier
from gemix.core.errors import GemixError

_ROUNDING = 1e-9


class NotRegistrableError(GemixError):
    """A classifier that is not good enough to be registered; the evaluation goes on without."""


def check_registrable(classifier: Classifier) -> None:
    """Check that a classifier is finite and not below chance on the validation set.

    Chance is what a constant answer reaches: a macro recall of 1/K for any class frequencies, and
    for equal ones a macro-F2 of 5 / (K (K + 4)). A classifier that reaches neither is below.

    Raises:
        NotRegistrableError: otherwise.
    """
    bad = [name for name, value in classifier.state.items() if not value.isfinite().all()]
    if bad:
        raise NotRegistrableError(
            f"{classifier.name}: not registered, since {len(bad)} weights are not finite, "
            f"{bad[0]!r} for one; train it again with a lower classifier.lr"
        )
    classes = len(classifier.classes)
    score = classifier.validation.get("val_macro_f2", math.nan)
    recall = classifier.validation.get("val_macro_recall", 0.0)
    constant = 5 / (classes * (classes + 4))
    below = score < constant - _ROUNDING and recall < 1 / classes - _ROUNDING
    if below or not math.isfinite(score):
        raise NotRegistrableError(
            f"{classifier.name}: not registered, since its macro-F2 of {score:.3f} on validation "
            f"is below chance ({constant:.3f}); train longer (classifier.epochs) or on more images"
        )
