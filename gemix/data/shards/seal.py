"""Splits that this process must not open, as the test split while settings are chosen."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from gemix.core.errors import DataError

_sealed: Counter[str] = Counter()


@contextlib.contextmanager
def sealed(split: str) -> Iterator[None]:
    """Let every attempt of this process to read a split fail within the block."""
    _sealed[split] += 1
    try:
        yield
    finally:
        _sealed[split] -= 1


def check_not_sealed(split: str, where: str) -> None:
    """Refuse to open a sealed split.

    Args:
        where: the file or set, for the message.

    Raises:
        DataError: if it is sealed.
    """
    if _sealed[split]:
        raise DataError(
            f"{where}: the {split} split is out of reach while settings are chosen; it scores what "
            "was chosen, once (gemix evaluate)"
        )
