"""The healthy class of a data set, which the missed-disease rate needs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gemix.core.errors import DataError

_HEALTHY = {"normal", "normals", "healthy"}
_NEGATIONS = {
    *("ab", "hardly", "isn", "near", "nearly", "never", "nicht", "no", "non", "none", "not"),
    *("other", "pas", "sub", "un", "without"),
}


def normal_class(classes: Sequence[str], name: str | None = None) -> int | None:
    """Return the index of the healthy class.

    Args:
        classes: the class names.
        name: the healthy class, ``data.normal_class``; None finds the only class whose name has
            "normal" or "healthy" as a word, in any case, without a negation before it: "Normal
            cases", but neither "abnormal", "non-normal", "NotNormal" nor "normalised".

    Returns:
        The index; None if no class, or more than one, is found.

    Raises:
        DataError: if `name` is none of the classes.
    """
    if name is not None:
        if name not in classes:
            raise DataError(
                f"data.normal_class {name!r} is none of the classes: {', '.join(classes)}"
            )
        return list(classes).index(name)
    found = [index for index, text in enumerate(classes) if _is_healthy(text)]
    return found[0] if len(found) == 1 else None


def describe_normal_class(classes: Sequence[str], index: int | None) -> str:
    """Return a sentence on the choice of the healthy class, and how to change it."""
    if index is None:
        return (
            f"healthy class: none of {', '.join(classes)}, so there is no missed-disease rate; "
            "set data.normal_class to choose one"
        )
    return f"healthy class: {classes[index]} (data.normal_class)"


def _is_healthy(name: str) -> bool:
    words = _words(name)
    first = next((index for index, word in enumerate(words) if word in _HEALTHY), None)
    return first is not None and not _NEGATIONS & set(words[:first])


def _words(name: str) -> list[str]:
    """Split a name at everything but letters, and at the humps of camel case."""
    humps = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[^\W\d_]+", humps.lower())
