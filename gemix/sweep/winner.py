"""Which of a sweep's candidates wins, when they have been trained again on fresh seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemix.evaluation.classification.bootstrap import compare_methods
from gemix.io.sweep_record import PUBLISHED, REFERENCE
from gemix.sweep.objective import Objective, Scores
from gemix.sweep.records import TrialRecord, ranking

TOP = 3  # trials that are run again


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trial that is trained again.

    Attributes:
        name: "real only", "published default", or "trial <number>".
        searched: its scores in the search.
    """

    name: str
    trial: int
    params: Mapping[str, Any]
    searched: Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrained:
    """A candidate's trainings on fresh seeds.

    Attributes:
        predicted: classes of the validation images, int64 [seeds, N].
        scores: of each training on them.
    """

    candidate: Candidate
    predicted: np.ndarray
    scores: tuple[Scores, ...]

    @property
    def fresh(self) -> Scores:
        """Means over the seeds."""
        return Scores.mean(self.scores)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better than the incumbent a candidate is in macro-F2.

    Attributes:
        error: standard error over validation patients and trainings; None where there are too few
            patients to say.
        reason: why it does not replace the incumbent; None if it does.
    """

    over: str
    delta: float
    error: float | None
    reason: str | None


def candidates(records: Sequence[TrialRecord]) -> list[Candidate]:
    """Return real images alone, the published default, and the best three trials."""
    named = {record.name: record for record in records if record.state == "complete"}
    chosen = [named[name] for name in (REFERENCE, PUBLISHED) if name in named]
    numbers = {record.number for record in chosen}
    chosen += [record for record in ranking(records)[:TOP] if record.number not in numbers]
    return [
        Candidate(
            name=record.name or f"trial {record.number}",
            trial=record.number,
            params=record.params,
            searched=record.scores,
        )
        for record in chosen
    ]


def choose_winner(
    retrained: Sequence[Retrained],
    labels: np.ndarray,
    groups: Sequence[str],
    *,
    classes: int,
    normal: int | None,
    objective: Objective,
) -> tuple[Retrained, dict[str, Gain]]:
    """Return the winner, and the gain of each candidate that was held against an incumbent.

    The incumbent is real images alone; the published default and then the others, the best on fresh
    seeds first, replace it if they are feasible on fresh seeds, and better by more than one
    standard error (the one-standard-error rule: Breiman et al., "Classification and regression
    trees", 1984, section 3.4.3). So what is simpler wins ties.

    Args:
        retrained: real images alone first; of as many seeds each.
        labels, groups: of the validation images, int [N] and N.
        classes: K.
        normal: index of the healthy class, if there is one.
        objective: says what is feasible; the false-negative rate is bounded in a Pareto sweep, too.
    """
    bounded = dataclasses.replace(objective, pareto=False)
    winner = reference = retrained[0]
    gains: dict[str, Gain] = {}
    order = sorted(
        retrained[1:],
        key=lambda one: (one.candidate.name != PUBLISHED, -one.fresh.macro_f2, one.candidate.trial),
    )
    for one in order:
        pair = {"incumbent": winner.predicted, "candidate": one.predicted}
        compared = compare_methods(
            labels, pair, groups, classes=classes, normal=normal, baseline="incumbent"
        )
        difference = compared["candidate"].differences["macro_f2"]
        constraints = bounded.constraints(one.fresh, reference.fresh)
        broken = [name for name, value in constraints.items() if value > 0]
        reason = None
        if broken:
            reason = f"more of the sick are missed than by {REFERENCE} ({', '.join(broken)})"
        elif difference.error is None:
            reason = "too few validation patients to tell them apart"
        elif difference.delta <= difference.error:
            reason = f"no better than {winner.candidate.name} by more than one standard error"
        gains[one.candidate.name] = Gain(
            over=winner.candidate.name,
            delta=difference.delta,
            error=difference.error,
            reason=reason,
        )
        if reason is None:
            winner = one
    return winner, gains
