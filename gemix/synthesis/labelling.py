"""Images of labels asked for, and the labels that they get.

A generator often shows another class than it was asked for. A teacher, a classifier of real
images, says what an image shows: its label can be taken from that, and images that do not agree
with what was asked can be drawn again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from gemix.core.errors import ConfigError, DataError
from gemix.core.rng import Stream, sample_rng
from gemix.gan.checkpoints.generator_io import GeneratorBundle
from gemix.gan.sampling import sample_images
from gemix.synthesis.config import SynthesisConfig
from gemix.synthesis.teacher import Teachers

_HOPELESS = 2000  # draws of a class without one that is accepted


def check_thresholds(config: SynthesisConfig, classes: Sequence[str]) -> None:
    """Check that `min_seen` has a number for each class.

    Raises:
        ConfigError: if it has not.
    """
    if config.min_seen is not None and len(config.min_seen) != len(classes):
        raise ConfigError(
            f"synthesis.min_seen has {len(config.min_seen)} numbers for {len(classes)} classes, "
            f"{', '.join(classes)}; give one a class"
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """Images, what was asked for and what is seen.

    Attributes:
        images: uint8 [N, C, H, W].
        seeds: of each image, int64 [N].
        labels: to train with, float32 [N, K].
        seen: class probabilities by T teachers, float32 [N, T, K], NaN where a teacher did not
            look; None without teachers.
        drawn: images drawn for each class asked, rejected ones included, int64 [K].
    """

    images: np.ndarray
    seeds: np.ndarray
    labels: np.ndarray
    seen: np.ndarray | None
    drawn: np.ndarray


def draw_labelled(
    generator: GeneratorBundle,
    asked: np.ndarray,
    config: SynthesisConfig,
    teachers: Teachers | None,
    *,
    start: int = 0,
) -> LabelledImages:
    """Draw images of a set, and again those that the teacher does not accept.

    Row i is a function of (`config.seed`, i, its label), generator and teacher alone: its first
    draw has the seed `config.seed` + i, later ones have seeds that are drawn for row and attempt.

    Args:
        asked: labels of the rows `start`, `start` + 1, …, float32 [N, K].
        teachers: the first one decides, and looks at all images where labels or acceptance need
            it; all of them look at the set's first `config.fidelity_images` images that are kept.
            None where nothing needs one.

    Raises:
        DataError: naming classes and rates, if an image is rejected in `config.attempts` draws, or
            no image of a class is ever accepted.
    """
    wanted = asked.argmax(axis=1)
    seeds = config.seed + start + np.arange(len(asked))
    tally = _Tally(generator.classes, wanted)
    images, pending = None, np.arange(len(asked))
    seen = None
    if teachers:
        seen = np.full((len(asked), len(teachers), asked.shape[1]), np.nan, np.float32)
    for attempt in range(config.attempts if config.accept == "agreeing" else 1):
        if attempt:
            seeds[pending] = [_redraw_seed(config.seed, start + row, attempt) for row in pending]
        new = sample_images(generator.network, seeds[pending].tolist(), asked[pending], config)
        images = _replaced(images, pending, new)
        is_accepted = np.ones(len(pending), bool)
        if teachers and config.needs_teacher:
            seen[pending, :1] = teachers.probabilities(new, slice(1))
            is_accepted = _accepted(seen[pending, 0], wanted[pending], config)
        tally.add(pending, is_accepted)
        pending = pending[~is_accepted]
        if not len(pending) or tally.is_hopeless(config.attempts):
            break
    if len(pending):
        raise DataError(
            f"{len(pending)} of {len(asked)} images still disagree with the label asked for "
            f"({tally}; at most synthesis.attempts={config.attempts} draws an image); train the "
            "generator longer, lower synthesis.min_seen, raise synthesis.attempts, or keep all "
            "images with synthesis.accept=all synthesis.labels=teacher"
        )
    checked = max(0, min(len(asked), config.fidelity_images - start))
    if teachers and checked:  # those that decide nothing look at some of the images that stay
        others = slice(1 if config.needs_teacher else 0, None)
        seen[:checked, others] = teachers.probabilities(images[:checked], others)
    labels = training_labels(asked, seen, config)
    return LabelledImages(images=images, seeds=seeds, labels=labels, seen=seen, drawn=tally.drawn)


def training_labels(
    asked: np.ndarray, seen: np.ndarray | None, config: SynthesisConfig
) -> np.ndarray:
    """Return the labels to train with, as `config.labels` says, float32 [N, K], rows sum to 1.

    Args:
        asked: labels that the generator was given, float32 [N, K].
        seen: class probabilities by T teachers, of which the first one counts, float32 [N, T, K];
            None where `config.labels` is "asked".
    """
    if config.labels == "asked":
        return asked
    share = 1.0 if config.labels == "teacher" else config.mixture
    mixed = share * seen[:, 0].astype(np.float64) + (1 - share) * asked
    return (mixed / mixed.sum(axis=1, keepdims=True)).astype(np.float32)


class _Tally:
    """Count draws and accepted images of each class asked for."""

    def __init__(self, classes: tuple[str, ...], wanted: np.ndarray):
        self.classes, self.wanted = classes, wanted
        self.drawn, self.accepted = (np.zeros(len(classes), np.int64) for _ in range(2))

    def add(self, rows: np.ndarray, is_accepted: np.ndarray) -> None:
        """Add the draws of some rows."""
        np.add.at(self.drawn, self.wanted[rows], 1)
        np.add.at(self.accepted, self.wanted[rows[is_accepted]], 1)

    def is_hopeless(self, attempts: int) -> bool:
        """Return whether many images of a class were drawn and none was accepted."""
        enough = min(_HOPELESS, 10 * attempts)
        return bool(((self.accepted == 0) & (self.drawn >= enough)).any())

    def __str__(self) -> str:
        rows = zip(self.classes, self.accepted, self.drawn, strict=True)
        return ", ".join(
            f"{name}: {accepted} of {drawn} accepted" for name, accepted, drawn in rows
        )


def _accepted(seen: np.ndarray, wanted: np.ndarray, config: SynthesisConfig) -> np.ndarray:
    """Return for each image whether it is kept."""
    if config.accept == "all":
        return np.ones(len(seen), bool)
    is_accepted = seen.argmax(axis=1) == wanted
    if config.min_seen is not None:
        weights = seen[np.arange(len(seen)), wanted]
        is_accepted &= weights >= np.asarray(config.min_seen)[wanted]
    return is_accepted


def _redraw_seed(seed: int, row: int, attempt: int) -> int:
    return int(sample_rng(seed, Stream.REDRAW, row, attempt).integers(2**32))


def _replaced(rows: np.ndarray | None, at: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return `rows` with new ones at these indices; the new ones where there are none yet."""
    if rows is None:
        return new
    rows[at] = new
    return rows
