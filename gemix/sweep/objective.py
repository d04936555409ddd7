"""What a sweep looks for: macro-F2 on validation, without missing more of the sick."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

from gemix.core.errors import DataError
from gemix.sweep.config import SweepConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Rates on the validation images, 0 .. 1, of one training or averaged over several.

    Attributes:
        missed_disease_rate: None without a healthy class.
    """

    macro_f2: float
    fnr: float
    missed_disease_rate: float | None = None

    @classmethod
    def of_row(cls, row: Mapping[str, float]) -> Self:
        """Return the scores in a row of a training's history.

        Raises:
            DataError: if it has no macro-F2 or FNR.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        found = {name: row[f"val_{name}"] for name in names if row.get(f"val_{name}") is not None}
        if not {"macro_f2", "fnr"} <= found.keys():
            raise DataError("validation: no macro-F2 and FNR, since it has no image of any class")
        return cls(**found)

    @classmethod
    def mean(cls, scores: Sequence[Scores]) -> Self:
        """Return the mean over repetitions, one or more."""
        missed = [one.missed_disease_rate for one in scores]
        return cls(
            macro_f2=sum(one.macro_f2 for one in scores) / len(scores),
            fnr=sum(one.fnr for one in scores) / len(scores),
            missed_disease_rate=None if None in missed else sum(missed) / len(missed),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """Values and constraints of a trial.

    Attributes:
        pareto: whether FNR is an objective beside macro-F2, instead of a constraint.
        margin: how far a constrained rate may exceed the reference's.
        hopeless_gap: see :meth:`is_hopeless`.
    """

    pareto: bool
    margin: float
    hopeless_gap: float | None

    @classmethod
    def of(cls, config: SweepConfig) -> Self:
        """Return the objective of a sweep's settings."""
        return cls(
            pareto=config.objective == "pareto",
            margin=config.fnr_margin,
            hopeless_gap=config.hopeless_gap,
        )

    @property
    def directions(self) -> list[str]:
        """Directions of the values, as Optuna names them."""
        return ["maximize", "minimize"] if self.pareto else ["maximize"]

    @property
    def prunes(self) -> bool:
        """Whether trials are stopped early; Optuna's studies of two objectives cannot."""
        return not self.pareto

    def values(self, scores: Scores) -> list[float]:
        """Return what is optimized."""
        return [scores.macro_f2, scores.fnr] if self.pareto else [scores.macro_f2]

    def constraints(self, scores: Scores, reference: Scores) -> dict[str, float]:
        """Return the constraints by name; a trial is feasible if none is above 0.

        Args:
            scores: of a trial.
            reference: of real images alone, trained as long and with the same seeds.
        """
        found = {} if self.pareto else {"fnr": scores.fnr - reference.fnr - self.margin}
        ours, theirs = scores.missed_disease_rate, reference.missed_disease_rate
        if ours is not None and theirs is not None:
            found["missed_disease_rate"] = ours - theirs - self.margin
        return found

    def is_hopeless(self, scores: Sequence[Scores], best: Sequence[Scores]) -> bool:
        """Return whether a trial may end after its first seeds.

        Args:
            scores: of its seeds so far.
            best: of all seeds of the best trial; only the same ones are compared, so that what
                makes a seed easy or hard cancels out.
        """
        if self.hopeless_gap is None or not self.prunes or not scores or len(best) < len(scores):
            return False
        ours, theirs = Scores.mean(scores), Scores.mean(best[: len(scores)])
        return ours.macro_f2 < theirs.macro_f2 - self.hopeless_gap
