"""Steps of the random stream of an audit, one for each kind of draw, so that none repeats."""

from __future__ import annotations

import enum


class Draw(enum.IntEnum):
    """A purpose of random numbers; :data:`gemix.core.rng.Stream.AUDIT` is the stream."""

    IMAGES = 0
    BOOTSTRAP = 1
    CONTROL = 2
    NEAR = 3
    HALVES = 4
    REFERENCES = 5
