"""``sweep.json``, what a sweep leaves: its type, and its reader."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gemix.io.records import read_record
from gemix.io.results import SWEEP, Overlap
from gemix.io.storage import Store

CONFIRMED = "confirmed"  # directory of the classifiers on fresh seeds, inside that of the sweep
REFERENCE, PUBLISHED = "real only", "published default"
"""Names of the first two trials: without synthetic images, and T = 1, b = 2, ratio 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepScores:
    """Rates on the validation images, means over seeds.

    Attributes:
        missed_disease_rate: None without a healthy class.
    """

    macro_f2: float
    fnr: float
    missed_disease_rate: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepTrial:
    """A trial.

    Attributes:
        name: of one of the first points, else None.
        state: complete, pruned, failed or running.
        params: of the search space, those that it reads.
        scores: None unless it is complete.
        reason: why it ended early or failed.
        seconds: from its beginning to its end.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    feasible: bool
    name: str | None = None
    scores: SweepScores | None = None
    reason: str | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfirmedCandidate:
    """A trial on fresh seeds; `outcome` says why it won or lost."""

    name: str
    trial: int
    searched: SweepScores
    fresh: SweepScores
    outcome: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepDifference:
    """A paired difference to real images alone, with its 95% interval."""

    delta: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatesOnTest:
    """The winner, or real images alone, on the test set."""

    macro_f2: float
    fnr: float
    difference_to_real: Mapping[str, SweepDifference] = dataclasses.field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepTest:
    """The test of the winner.

    Attributes:
        openings: how often this test set was predicted so far.
        digest: of its content; None where an earlier version tested it.
    """

    images: int
    groups: int
    openings: int
    seeds: int
    results: Mapping[str, RatesOnTest]
    digest: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepWinner:
    """The winner.

    Attributes:
        overfitted: macro-F2 in the search less that on fresh seeds.
        settings: what it changes, values by dotted path.
        classifier: that of its trainings which is the best on validation, a directory below
            ``sweep/confirmed``; its synthetic images are in ``sweep/winner``. None where an earlier
            version wrote the file.
    """

    name: str
    trial: int
    overfitted: float
    settings: Mapping[str, Any]
    classifier: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Results of the candidates on fresh seeds, and of the winner on the test set.

    Attributes:
        real_only: as `winner.classifier`, of real images alone.
        overlap: what the test set shares with what was learned from.
    """

    candidates: tuple[ConfirmedCandidate, ...]
    winner: SweepWinner
    test: SweepTest
    real_only: str | None = None
    overlap: Overlap | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepResults:
    """``sweep.json``.

    Attributes:
        best: number of the best feasible trial; None without one.
        front: trials of the Pareto front; None where one value is searched for.
        reference: number of the trial of real images alone.
        importance: of each parameter, 0 to 1, among the trials of a label sampler; by sampler.
        confirmed: None where nothing was trained on fresh seeds.
    """

    study: str
    objective: str
    trials: tuple[SweepTrial, ...]
    best: int | None = None
    front: tuple[int, ...] | None = None
    reference: int | None = None
    importance: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    confirmed: Confirmation | None = None


def read_sweep(store: Store) -> SweepResults | None:
    """Read ``sweep.json``; None if no sweep has ended."""
    if not store.exists(SWEEP):
        return None
    return read_record(store, SWEEP, SweepResults, "run gemix sweep --overwrite")
