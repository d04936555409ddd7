"""Parallel map over many inputs; ``jobs/`` binds it to Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol


class MapFn(Protocol):
    """Apply a function to many inputs, on any machines and in any order."""

    def __call__(
        self, function: Callable[[Any], Any], inputs: Sequence[Any], unit: str
    ) -> Iterator[Any]:
        """Yield results in the order of their inputs, each as soon as those before it are there.

        Args:
            function: picklable; an error that it raises ends the map.
            inputs: picklable.
            unit: name of the inputs in progress reports: "slices".
        """


def serial_map(function: Callable[[Any], Any], inputs: Sequence[Any], unit: str) -> Iterator[Any]:
    """Map in this process; see :class:`MapFn`."""
    del unit
    return map(function, inputs)
