"""What an audit draws at random: steps of its random stream, so that no two draws are alike."""

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
