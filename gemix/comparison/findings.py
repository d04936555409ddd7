"""What a comparison shows, by rules that are fixed before it is run.

A method *helps* if its macro-F2 is better than that of the baseline and of every control that was
compared, by the lower ends of intervals that hold for all methods at once. Its *false-negative rate
falls* if that of the baseline is higher likewise, and the method also ranks better or finds more at
the baseline's specificity: a lower threshold alone misses fewer, too. One training a method shows
nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from gemix.evaluation.classification.bootstrap import Comparison

THRESHOLD_MOVED = "threshold moved"  # the row of the baseline at a lower threshold
RANKING = ("sensitivity", "disease_auroc", "macro_auroc")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What a comparison shows of one method.

    Attributes:
        helps: whether macro-F2 is better than that of all of `against`.
        harms: whether it is worse than the baseline's.
        fnr_falls: whether it misses fewer, not by a lower threshold.
        against: the baseline and the controls.
        excluded: gains in macro-F2 over the baseline above this are excluded; None if it helps.
        text: the finding in a sentence.
    """

    method: str
    helps: bool
    harms: bool
    fnr_falls: bool
    against: tuple[str, ...]
    excluded: float | None
    text: str


def judge(method: str, against: Mapping[str, Mapping[str, Comparison]], trainings: int) -> Finding:
    """Return what the differences of a method show.

    Args:
        against: comparisons with each baseline, by its name; the first one is the baseline.
        trainings: of each method.
    """
    names = tuple(name for name in against if name != method)
    differences = {name: against[name][method].differences for name in names}
    first = differences[names[0]]
    f2, fnr = first["macro_f2"], first["fnr"]
    enough = trainings > 1
    helps = enough and all(found["macro_f2"].joint_low > 0 for found in differences.values())
    harms = enough and f2.joint_high < 0
    ranks = any(first[rate].joint_low > 0 for rate in RANKING if rate in first)
    falls = enough and fnr.joint_high < 0 and ranks
    excluded = None if helps else max(0.0, f2.joint_high)
    text = _sentence(names, helps, harms, falls, fnr.joint_high < 0, f2.joint_high, enough)
    return Finding(
        method=method,
        helps=helps,
        harms=harms,
        fnr_falls=falls,
        against=names,
        excluded=excluded,
        text=text,
    )


def _sentence(
    names: Sequence[str],
    helps: bool,
    harms: bool,
    falls: bool,
    misses_fewer: bool,
    high: float,
    enough: bool,
) -> str:
    if not enough:
        return "one training of each: nothing can be said of other trainings"
    if harms:
        return f"harms: macro-F2 is below that of {names[0]}"
    rate = "the false-negative rate falls"
    if helps:
        parts = [f"helps: macro-F2 is above that of {' and of '.join(names)}"]
    elif high >= 1:
        parts = ["too few patients to say"]
    else:
        parts = [f"not shown to help: a gain in macro-F2 above {max(0.0, high):.3f} is excluded"]
    if falls:
        parts.append(rate)
    elif misses_fewer:
        parts.append(f"{rate}, but no more is found at the same specificity")
    return "; ".join(parts)
