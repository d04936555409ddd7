"""``comparison.json``, what a comparison of methods leaves: its type, and its reader."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gemix.io.records import read_record
from gemix.io.results import EvaluatedSet
from gemix.io.storage import Store

COMPARISON = "comparison.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointDifference:
    """A difference (method - baseline) with its 95% interval, and one of all methods at once.

    Attributes:
        p: two-sided p-value, uncorrected.
        p_joint, p_holm: corrected for the number of methods.
        not_above_zero: share of the sampling distribution of the difference that is not above 0;
            None where there are too few patients or trainings to say, and in files of earlier
            versions.
    """

    delta: float
    low: float
    high: float
    joint_low: float
    joint_high: float
    p: float
    p_joint: float
    p_holm: float
    not_above_zero: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedMethod:
    """A method of a comparison on the test set; means over its trainings.

    Attributes:
        failure: why there are no rates; None if there are.
        deviations: standard deviations over the trainings.
        differences: to the baseline; empty for the baseline itself.
        finding: what is shown of it; None for the baseline.
        generator_patients: training patients that the generator of its synthetic images learned
            from; None without, or where that is unknown.
        generators: independently trained generators of its synthetic images; None without.
        over_generators: whether its intervals hold for other generators too.
    """

    method: str
    failure: str | None = None
    rates: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    deviations: Mapping[str, float] = dataclasses.field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    differences: Mapping[str, JointDifference] = dataclasses.field(default_factory=dict)
    finding: str | None = None
    helps: bool = False
    harms: bool = False
    generator_patients: int | None = None
    generators: int | None = None
    over_generators: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedBlock:
    """Methods that were compared with each other.

    Attributes:
        fraction, patients, images: of the real training set.
        draws: of those patients.
        detectable: difference in macro-F2 that is found with 80% power, by the validation images.
        failure: why nothing could be compared; None if it could.
    """

    model: str
    fraction: float
    patients: int
    images: int
    draws: int
    seeds: int
    methods: tuple[ComparedMethod, ...]
    detectable: float | None = None
    failure: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EquivalentPatients:
    """Real patients that would have gained as much, above those of the training set.

    Attributes:
        patients: negative where the method is worse.
        low, high: of the 95% interval of the method's difference to the baseline.
        fewest, most: ends of the learning curve, where the three stop: at them they are bounds.
    """

    patients: float
    low: float
    high: float
    fewest: float
    most: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodWorth:
    """Worth of a method in macro-F2.

    Attributes:
        of_ceiling: its gain as a share of that of held-back real patients.
    """

    model: str
    fraction: float
    method: str
    equivalent_patients: EquivalentPatients | None = None
    of_ceiling: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodComparison:
    """``comparison.json``.

    Attributes:
        budget: what the methods have in common: ``steps`` or ``exposures``.
        test_openings: how often this test set was predicted in the work directory.
        folds: directories of the comparisons whose test sets are pooled; empty without.
    """

    baseline: str
    budget: str
    blocks: tuple[ComparedBlock, ...]
    test: EvaluatedSet
    test_openings: int
    worth: tuple[MethodWorth, ...] = ()
    folds: tuple[str, ...] = ()


def read_comparison(store: Store) -> MethodComparison | None:
    """Read ``comparison.json``; None if nothing was compared."""
    if not store.exists(COMPARISON):
        return None
    return read_record(store, COMPARISON, MethodComparison, "run gemix compare again")
