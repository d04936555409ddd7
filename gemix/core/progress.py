"""Progress of anything that takes more than a few seconds: a bar, or lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Self

from tqdm import tqdm


class Progress:
    """A bar on a terminal; elsewhere a log record every `every` seconds and one at the end.

    Args:
        title: name of the step, which is also that of its logger: "prepare".
        total: how many units there are; 0 where it is not known.
        unit: what is counted, in the plural.
        every: seconds between records.
    """

    def __init__(self, title: str, total: int, unit: str, every: float = 5.0):
        self.log = logging.getLogger(f"gemix.{title}")
        self.total, self.unit, self.every = total, unit, every
        self.done = 0
        self.started = self.last = time.monotonic()
        bar = sys.stderr.isatty() and self.log.isEnabledFor(logging.INFO)
        self.bar = tqdm(total=total or None, desc=title, unit=unit) if bar else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        if self.bar is not None:
            self.bar.close()
        elif kind is None:
            seconds = time.monotonic() - self.started
            self.log.info("%d %s in %.1f s", self.done, self.unit, seconds)

    def update(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units; show `note` behind the count."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
            self.bar.set_postfix_str(note)
        elif time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            of = f" of {self.total}" if self.total else ""
            self.log.info("%s", f"{self.done}{of} {self.unit} {note}".rstrip())
