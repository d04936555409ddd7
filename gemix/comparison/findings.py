"""Judge the methods of a comparison by rules that are fixed before it is run.

A method *helps* if its macro-F2 is better than that of the baseline and of every control that was
compared, by the lower ends of intervals that hold for all methods at once. Its *false-negative rate
falls* if that of the baseline is higher likewise, and the method also ranks the sick above the
healthy better (AUROC): a lower threshold alone misses fewer, too. One training a method shows
nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from gemix.evaluation.classification.bootstrap import Comparison

THRESHOLD_MOVED = "threshold moved"  # the row of the baseline at a lower threshold


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Finding on one method of a comparison.

    Attributes:
        helps: whether macro-F2 is better than that of the baseline and of all controls.
        harms: whether it is worse than the baseline's.
        fnr_falls: whether it misses fewer, and not by a lower threshold.
        excluded: gains in macro-F2 over the baseline above this are excluded; None if it helps.
        text: the finding in a sentence.
    """

    helps: bool
    harms: bool
    fnr_falls: bool
    excluded: float | None
    text: str


def judge(
    method: str,
    against: Mapping[str, Mapping[str, Comparison]],
    *,
    trainings: int,
    failed_controls: Sequence[str] = (),
) -> Finding:
    """Return what the differences of a method show.

    Args:
        against: comparisons with the baseline, which is the first, and with each control, by name.
        trainings: of each method.
        failed_controls: that were to be compared, and of which a training failed.
    """
    names = [name for name in against if name != method]
    first = against[names[0]][method].differences
    f2, fnr = first["macro_f2"], first["fnr"]
    ranking = first.get("disease_auroc", first.get("macro_auroc"))
    enough = trainings > 1
    beaten = [n for n in names if against[n][method].differences["macro_f2"].joint_low > 0]
    helps = enough and beaten == names and not failed_controls
    harms = enough and f2.joint_high < 0
    misses_fewer = enough and fnr.joint_high < 0
    falls = misses_fewer and ranking is not None and ranking.joint_low > 0
    if not enough:
        parts = ["one training of each: nothing can be said of other trainings"]
    elif harms:
        parts = [f"harms: macro-F2 is below that of {names[0]}"]
    elif helps:
        parts = [f"helps: macro-F2 is above that of {' and of '.join(names)}"]
    elif names[0] in beaten:
        missing = [name for name in names if name not in beaten]
        reasons = [f"not above that of {' and of '.join(missing)}"] if missing else []
        reasons += [f"{name} failed" for name in failed_controls]
        parts = [f"macro-F2 is above that of {names[0]}, but {', and '.join(reasons)}"]
    elif f2.joint_high >= 1:
        parts = ["too few patients or trainings to say"]
    else:
        gain = max(0.0, f2.joint_high)
        parts = [f"not shown to help: a gain in macro-F2 above {gain:.3f} is excluded"]
    if misses_fewer:
        rate = "the false-negative rate falls"
        parts.append(rate if falls else f"{rate}, but the sick are not ranked better")
    return Finding(
        helps=helps,
        harms=harms,
        fnr_falls=falls,
        excluded=None if helps else max(0.0, f2.joint_high),
        text="; ".join(parts),
    )
