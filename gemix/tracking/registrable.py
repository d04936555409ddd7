"""The gate of the model registry: which classifiers may be registered."""

from __future__ import annotations

import math

from gemix.classifier.bundle import Classifier
from gemix.core.errors import GemixError
from gemix.evaluation.classification.rates import chance_macro_f2


class NotRegistrableError(GemixError):
    """A classifier that is not good enough to be registered; the evaluation goes on without."""


def check_registrable(classifier: Classifier) -> None:
    """Check that a classifier is finite and better than guessing on the validation set.

    Raises:
        NotRegistrableError: otherwise.
    """
    bad = [name for name, value in classifier.state.items() if not value.isfinite().all()]
    if bad:
        raise NotRegistrableError(
            f"{classifier.name}: not registered, since {len(bad)} weights are not finite, "
            f"{bad[0]!r} for one; train it again with a lower classifier.lr"
        )
    score = classifier.validation.get("val_macro_f2", math.nan)
    chance = chance_macro_f2(len(classifier.classes))
    if not score > chance:
        raise NotRegistrableError(
            f"{classifier.name}: not registered, since its macro-F2 of {score:.3f} on validation "
            f"is not above {chance:.3f}, which guessing reaches; train longer (classifier.epochs) "
            "or on more images"
        )
