"""How work on many inputs is spread: here one after another, in ``jobs/`` by Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol


class MapFn(Protocol):
    """Applies a function to many inputs, in any places and order."""

    def __call__(
        self, function: Callable[[Any], Any], inputs: Sequence[Any], what: str
    ) -> Iterator[Any]:
        """Results in the order of their inputs, each as soon as it and those before it are there.

        Args:
            function: picklable; an error of it ends the whole.
            inputs: picklable.
            what: the work in one word, for progress reports: "slices".
        """


def here(function: Callable[[Any], Any], inputs: Sequence[Any], what: str) -> Iterator[Any]:
    """A :class:`MapFn` of this process alone."""
    del what
    return map(function, inputs)
