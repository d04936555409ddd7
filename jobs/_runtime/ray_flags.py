"""Flags between the driver and the workers of a training, in the key-value store of the cluster.

An actor would do the same and cost a process; a few bytes are looked at twice a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator

import ray
from ray.experimental import internal_kv as kv

_NAMESPACE = "gemix"
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclasses.dataclass(frozen=True)
class TrainingFlags:
    """The flags of one training; picklable.

    Attributes:
        name: unique on the cluster.
    """

    name: str

    def set(self, flag: str) -> None:
        """Set ``started`` or ``polling`` (by rank 0) or ``stop`` (by the driver)."""
        kv._internal_kv_put(self._key(flag), b"1", namespace=_NAMESPACE)

    def is_set(self, flag: str) -> bool:
        """Return whether a flag is set; False once the cluster is gone."""
        return ray.is_initialized() and kv._internal_kv_exists(
            self._key(flag), namespace=_NAMESPACE
        )

    def clear(self, *flags: str) -> None:
        """Remove flags."""
        for flag in flags:
            if ray.is_initialized():
                kv._internal_kv_del(self._key(flag), namespace=_NAMESPACE)

    @contextlib.contextmanager
    def polling(self) -> Iterator[Callable[[], bool]]:
        """On rank 0: yield a function that returns whether the driver has set ``stop``."""
        stop, ended = threading.Event(), threading.Event()

        def look() -> None:
            while not ended.wait(_SECONDS_BETWEEN_LOOKS):
                if self.is_set("stop"):
                    stop.set()
                    return

        self.set("polling")
        threading.Thread(target=look, name="stop-flag", daemon=True).start()
        try:
            yield stop.is_set
        finally:
            ended.set()
            self.clear("polling")

    def _key(self, flag: str) -> bytes:
        return f"{self.name}/{flag}".encode()


@contextlib.contextmanager
def never() -> Iterator[Callable[[], bool]]:
    """On other ranks, which do as rank 0 does."""
    yield lambda: False
