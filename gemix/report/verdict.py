"""The report's verdict: whether the synthetic images helped, derived from the statistics.

The *first* method of ``synthesis.methods`` decides; it is named before the run. Choosing the method
that is best on the test set would turn chance into a finding; the others are reported beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gemix.io.results import ONLY, REAL, BelowReal, TeacherRates

SIMPLER = (REAL, "onehot")  # than the method under test

Effect = Literal["better", "worse", "open"]
Status = Literal["shown", "partly shown", "not shown", "mixed", "harmful", "not tested"]

_ANSWERS: Mapping[Status, str] = {
    "shown": "Yes, on this test set.",
    "partly shown": "In part.",
    "not shown": "Not shown.",
    "mixed": "Mixed.",
    "harmful": "No: it made things worse.",
    "not tested": "Not tested.",
}
_ONE_TRAINING = (
    "One training of each was compared, so the intervals are of these two classifiers alone and "
    "not of the training sets: with classifier.seeds=3 or more they hold for other trainings."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric that the report shows: key in the evaluation, name, direction."""

    key: str
    name: str
    higher_is_better: bool


MACRO_F2 = Metric(key="macro_f2", name="macro-F2", higher_is_better=True)
FNR = Metric(key="fnr", name="false-negative rate", higher_is_better=False)
MISSED = Metric(key="missed_disease_rate", name="missed-disease rate", higher_is_better=False)
ACCURACY = Metric(key="accuracy", name="accuracy", higher_is_better=True)
SHOWN_METRICS = (
    MACRO_F2,
    FNR,
    MISSED,
    Metric(key="macro_f1", name="macro-F1", higher_is_better=True),
    Metric(key="macro_precision", name="macro precision", higher_is_better=True),
    ACCURACY,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict at the top of the page.

    Attributes:
        status: the finding in one or two words.
        answer: a short sentence that answers "does it help?".
        summary: the numbers: macro-F2, false-negative rate, then accuracy.
        remarks: one sentence on each other method and on limits of the finding.
    """

    status: Status
    answer: str
    summary: str
    remarks: tuple[str, ...] = ()


def method_name(method: str) -> str:
    """Return the page's name of a training set: "real only", "real + softmax", "softmax only"."""
    if method.endswith(ONLY):
        return f"{method.removesuffix(ONLY)} only"
    return "real only" if method == REAL else f"real + {method}"


def signed(value: float, digits: int = 3) -> str:
    """Format with `digits` decimals and a sign, and a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def p_value(value: float) -> str:
    """Format a p-value no more precisely than it is known."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.{3 if value < 0.01 else 2}f}"


def effect(metric: Metric, difference: Mapping[str, float]) -> Effect:
    """Return on which side of zero the whole interval lies.

    Args:
        metric: whose direction decides which side is better.
        difference: `delta`, `low` and `high` of (method - real).
    """
    good, bad = difference["low"] > 0, difference["high"] < 0
    if not metric.higher_is_better:
        good, bad = bad, good
    return "better" if good else "worse" if bad else "open"


def judge(macro_f2: Effect, fnr: Effect) -> Status:
    """Return the finding from the two deciding effects."""
    effects = {macro_f2, fnr}
    if effects == {"better", "worse"}:
        return "mixed"
    if "worse" in effects:
        return "harmful"
    if effects == {"better"}:
        return "shown"
    return "partly shown" if "better" in effects else "not shown"


def decide(
    results: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    below_real: BelowReal | None = None,
    teacher: TeacherRates | None = None,
) -> Verdict:
    """Return the verdict on an evaluation.

    Args:
        results: one mapping a method, as ``evaluation.json`` has them.
        methods: the methods in the order of the configuration; the first one decides.
        below_real: of the evaluation; it is the first remark.
        teacher: of another site; the last remark says how good it is itself.
    """
    warnings = [f"Beware: {below_real}."] if below_real else []
    by_method = {result["method"]: result for result in results}
    tested = [name for name in methods if _differences(by_method.get(name))]
    if REAL not in by_method or not tested:
        missing = "real images only" if REAL not in by_method else "real and synthetic images"
        return Verdict(
            status="not tested",
            answer=_ANSWERS["not tested"],
            summary=f"There is no evaluated classifier trained on {missing}, so there is nothing "
            "to compare.",
            remarks=tuple(warnings),
        )
    ours = tested[0]
    differences = _differences(by_method[ours])
    effects = (effect(MACRO_F2, differences["macro_f2"]), effect(FNR, differences["fnr"]))
    status = judge(*effects)
    real = by_method[REAL]
    summary = f"{_numbers(ours, by_method[ours], real)} {_reading(effects)}"
    if by_method[ours].get("seeds") == 1:
        # how far other trainings would be from these is unknown, and usually no less far apart
        status, summary = "not shown", f"{_numbers(ours, by_method[ours], real)} {_ONE_TRAINING}"
    remarks = [*warnings, *(_compare(name, by_method[name]) for name in tested[1:])]
    remarks += _simpler_wins(ours, by_method)
    if teacher:
        remarks.append(_teacher(teacher, by_method[ours]["macro_f2"]))
    return Verdict(
        status=status,
        answer=_ANSWERS[status],
        summary=summary,
        remarks=tuple(remarks),
    )


def _differences(result: Mapping[str, Any] | None) -> Mapping[str, Mapping[str, float]]:
    """Return the differences to real, or nothing if the two that decide are missing."""
    differences = (result or {}).get("difference_to_real") or {}
    return differences if {"macro_f2", "fnr"} <= differences.keys() else {}


def _change(metric: Metric, result: Mapping[str, Any], real: Mapping[str, Any]) -> str:
    difference = result["difference_to_real"][metric.key]
    p = difference.get("p")
    return (
        f"{real[metric.key]:.3f} to {result[metric.key]:.3f}, a difference of "
        f"{signed(difference['delta'])} (95% interval {signed(difference['low'])} to "
        f"{signed(difference['high'])}{'' if p is None else f', {p_value(p)}'})"
    )


def _numbers(name: str, result: Mapping[str, Any], real: Mapping[str, Any]) -> str:
    text = (
        f"With {name} images added to the real ones, macro-F2 goes from "
        f"{_change(MACRO_F2, result, real)}, and the false-negative rate from "
        f"{_change(FNR, result, real)}."
    )
    if ACCURACY.key in result["difference_to_real"]:
        text += f" Accuracy goes from {_change(ACCURACY, result, real)}."
    return text


def _reading(effects: tuple[Effect, Effect]) -> str:
    words = {
        "better": "better beyond its interval",
        "worse": "worse beyond its interval",
        "open": "undecided, since its interval includes zero",
    }
    if effects == ("open", "open"):
        return (
            "Both deciding intervals include zero: this run shows neither a benefit nor a harm, "
            "and does not show that there is none."
        )
    if effects[0] == effects[1]:
        return f"Macro-F2 and the false-negative rate are both {effects[0]} beyond their intervals."
    return f"Macro-F2 is {words[effects[0]]}; the false-negative rate is {words[effects[1]]}."


def _compare(name: str, result: Mapping[str, Any]) -> str:
    differences = result["difference_to_real"]
    parts = [
        f"{metric.name} {signed(difference['delta'])}, "
        f"{signed(difference['low'])} to {signed(difference['high'])}"
        for metric in (MACRO_F2, FNR)
        for difference in [differences[metric.key]]
    ]
    status = judge(effect(MACRO_F2, differences["macro_f2"]), effect(FNR, differences["fnr"]))
    return f"{method_name(name).capitalize()}: {status} ({'; '.join(parts)})."


def _teacher(teacher: TeacherRates, reached: float) -> str:
    f2, fnr = (teacher.intervals[name] for name in (MACRO_F2.key, FNR.key))
    ends = (
        "so where a classifier may be shared, sharing it is simpler and better."
        if teacher.macro_f2 > reached
        else "less than with its images, or as much."
    )
    return (
        f"The other site's classifier that labelled the images has, as it is, macro-F2 "
        f"{teacher.macro_f2:.3f} ({f2[0]:.3f} to {f2[1]:.3f}) and a false-negative rate of "
        f"{teacher.fnr:.3f} ({fnr[0]:.3f} to {fnr[1]:.3f}) on this test set, {ends}"
    )


def _simpler_wins(ours: str, by_method: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each simpler method that reached a higher macro-F2."""
    reached = by_method[ours]["macro_f2"]
    return [
        f"A simpler method reached more: {method_name(name)} has macro-F2 "
        f"{by_method[name]['macro_f2']:.3f}, {method_name(ours)} {reached:.3f}"
        + ("." if name == REAL else " (no interval is computed for this difference).")
        for name in SIMPLER
        if name != ours and name in by_method and by_method[name]["macro_f2"] > reached
    ]
