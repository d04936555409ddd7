"""Compare the training images of a classifier with the sets of a work directory."""

from __future__ import annotations

from collections.abc import Mapping

from gemix.classifier.bundle import Classifier
from gemix.data.shards.manifest import Manifest, combine_content
from gemix.io.results import ONLY, REAL


def synthetic_set_of(method: str) -> str | None:
    """Return the synthetic set that a method of training uses; None for real images alone."""
    return None if method == REAL else method.removesuffix(ONLY)


def why_other_images(
    classifier: Classifier, real: Manifest, synthetic: Mapping[str, Manifest]
) -> str | None:
    """Return why a classifier was not trained on exactly these images; None if it was.

    Args:
        real: of the real images; its training split counts.
        synthetic: finished synthetic sets by name.
    """
    name = synthetic_set_of(classifier.method)
    if name is not None and name not in synthetic:
        return f"the synthetic set {name}, which it was trained on, is not in the work directory"
    sets = {} if classifier.method.endswith(ONLY) else {"the real images": real}
    if name is not None:
        sets[f"the synthetic set {name}"] = synthetic[name]
    expected = combine_content(one.content_digest("train", real.classes) for one in sets.values())
    if classifier.training_digest == expected:
        return None
    return (
        f"it was trained on images of the digest {classifier.training_digest[:16]}, but "
        f"{' and '.join(sets)} in the work directory have {expected[:16]}"
    )
