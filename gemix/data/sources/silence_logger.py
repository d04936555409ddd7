"""Silence libraries whose warnings and log lines quote the headers of files."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silence_logger(name: str) -> Iterator[None]:
    """Suppress all warnings, and the log lines of one logger and its children.

    Not thread-safe: filters of warnings and levels of loggers are global.
    """
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # children inherit it, unlike `disabled`
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
