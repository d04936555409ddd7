"""Progress on anything that takes more than a few seconds: a bar, or plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import Self

from tqdm import tqdm


class Progress:
    """A bar on a terminal; elsewhere a line at the start, every `every` seconds and at the end.

    Args:
        title: what is going on.
        total: how many units there are; 0 where it is not known.
        unit: what is counted.
        every: seconds between lines where there is no terminal.
    """

    def __init__(self, title: str, total: int, unit: str, every: float = 5.0):
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.done = 0
        self.started = self.last = time.monotonic()
        self.bar = tqdm(total=total or None, desc=title, unit=unit) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        if self.bar:
            self.bar.close()
        elif kind is None:
            seconds = time.monotonic() - self.started
            self._line(f"{self.done} {self.unit} in {seconds:.1f} s")

    def update(self, count: int = 1, note: str = "") -> None:
        """Counts `count` more units; `note` is shown behind the count."""
        self.done += count
        if self.bar:
            self.bar.update(count)
            self.bar.set_postfix_str(note)
        elif time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            of = f" of {self.total}" if self.total else ""
            self._line(f"{self.done}{of} {self.unit} {note}".rstrip())

    def _line(self, text: str) -> None:
        print(f"{self.title}: {text}", file=sys.stderr, flush=True)
