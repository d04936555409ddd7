"""The trials of a study as plain records, and the best of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from optuna.trial import FrozenTrial, TrialState

from gemix.sweep.objective import Scores
from gemix.sweep.samplers import INTERRUPTED

NAME, REASON, REPEATS = "name", "reason", "repeats"
SEED_SCORES, CURVE = "scores", "curve"
"""Attributes of a trial: of its first point, why it ended early, the number of the interrupted
trial that it repeats, the scores of its seeds and, for the reference, those of every epoch."""

State = Literal["complete", "pruned", "failed", "running", "interrupted"]
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: in the study.
        name: of one of the first points, else None.
        params: of the parameters that it reads.
        seed_scores: of each of its seeds; empty unless it is complete.
        constraints: by name; a trial is feasible if none is above 0.
        reason: why it ended early or failed.
        curve: scores by step; of the reference only.
        seconds: from its beginning to its end.
    """

    number: int
    name: str | None
    state: State
    params: Mapping[str, Any]
    seed_scores: tuple[Scores, ...]
    constraints: Mapping[str, float]
    reason: str | None
    curve: Mapping[int, Scores]
    seconds: float | None

    @classmethod
    def of(cls, trial: FrozenTrial) -> Self:
        """Return the record of one of Optuna's trials."""
        attributes = trial.user_attrs
        return cls(
            number=trial.number,
            name=attributes.get(NAME),
            state="interrupted" if INTERRUPTED in attributes else _STATES[trial.state],
            params=trial.params,
            seed_scores=tuple(Scores(**one) for one in attributes.get(SEED_SCORES, ())),
            constraints=trial.constraints,
            reason=attributes.get(REASON),
            curve={int(s): Scores(**one) for s, one in attributes.get(CURVE, {}).items()},
            seconds=trial.duration.total_seconds() if trial.duration else None,
        )

    @property
    def scores(self) -> Scores:
        """Means over its seeds; of a complete trial."""
        return Scores.mean(self.seed_scores)

    @property
    def counts(self) -> bool:
        """Whether it is one of the ``sweep.trials``: ended, and not to be repeated."""
        return self.state in ("complete", "pruned", "failed")

    @property
    def is_feasible(self) -> bool:
        """Whether it is complete and keeps all constraints."""
        return self.state == "complete" and all(v <= 0 for v in self.constraints.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain values, but for the curve."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["curve"]
        return values | {
            "params": dict(self.params),
            "constraints": dict(self.constraints),
            "seed_scores": [scores_to_json(one) for one in self.seed_scores],
            "scores": scores_to_json(self.scores) if self.seed_scores else None,
            "feasible": self.is_feasible,
        }


def ranking(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the feasible trials, the best first: by macro-F2, then FNR, then the earlier one."""
    feasible = [record for record in records if record.is_feasible]
    return sorted(feasible, key=lambda r: (-r.scores.macro_f2, r.scores.fnr, r.number))


def best_record(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """Return the feasible trial of the highest macro-F2, None if there is none."""
    return next(iter(ranking(records)), None)


def pareto_front(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the feasible trials that none beats in macro-F2 and FNR at once, by macro-F2."""
    front: list[TrialRecord] = []
    for record in ranking(records):
        if not front or record.scores.fnr < front[-1].scores.fnr:
            front.append(record)
    return front


def scores_to_json(scores: Scores) -> dict[str, float | None]:
    """Return plain values, of which ``Scores(**values)`` is made again."""
    return dataclasses.asdict(scores)


def format_params(params: Mapping[str, Any]) -> str:
    """Return parameters as text, for logs and tables."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )
