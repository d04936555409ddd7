"""Log records on the terminal: one format for every command and worker.

Each step logs to a logger named after it: ``logging.getLogger("gemix.train-gan")``.
"""

from __future__ import annotations

import logging
import sys

ROOT = logging.getLogger("gemix")


class _Formatter(logging.Formatter):
    """Format a record as ``12:34:56 train-gan: text``, with the level from WARNING on."""

    def format(self, record: logging.LogRecord) -> str:
        step = record.name.removeprefix("gemix.")
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        text = f"{self.formatTime(record, '%H:%M:%S')} {step}: {level}{record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure_logging(level: int = logging.INFO) -> None:
    """Write the records of gemix to stderr, from `level` on; call again to change the level."""
    ROOT.setLevel(level)
    if not any(isinstance(handler.formatter, _Formatter) for handler in ROOT.handlers):
        handler = _StderrHandler()
        handler.setFormatter(_Formatter())
        ROOT.addHandler(handler)


class _StderrHandler(logging.StreamHandler):
    """Write to what ``sys.stderr`` is at the moment, which notebooks and tests replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stderr

    @stream.setter
    def stream(self, value: object) -> None:
        del value
