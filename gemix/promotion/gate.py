"""The gate: which classifier may become the champion.

By the ends of 95% intervals of paired differences over the test patients, a candidate must be not
inferior in what it misses by more than ``promotion.fnr_margin`` *and* above 0 in macro-F2; its
weights, its training images and its card must be in order, too. It may miss more, by less than the
margin. No point estimate promotes, and neither does accuracy or any F-score alone. Where fewer than
six patients are answered differently, an interval above 0 is not believed: the sign test of five
cannot fall below p = 0.06.

One training of each is compared: what is found holds for these two trained networks on other
patients of the same kind, and not for the methods that they were trained by.

Non-inferiority by the end of an interval: Piaggio et al., "Reporting of noninferiority and
equivalence randomized trials", JAMA 308, 2012.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gemix.evaluation.classification.bootstrap import Comparison
from gemix.evaluation.classification.differences import FEWEST_GROUPS, PairedDifference
from gemix.evaluation.classification.rates import chance_macro_f2
from gemix.promotion.ledger import Finding

FNR, MISSED, MACRO_F2 = "fnr", "missed_disease_rate", "macro_f2"
FIRST, FITNESS, CARD = "first champion", "fitness", "card"
IMAGES, AUDIT, TEST = "training images", "audit", "test images"
ONE_TRAINING = (
    "One training of a method: figures and comparisons hold for the trained networks on other "
    "patients of the same kind, and say nothing of the methods that they were trained by."
)
_NAMES = {FNR: "false-negative rate", MISSED: "missed-disease rate", MACRO_F2: "macro-F2"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that the gate looks at.

    Attributes:
        found: rates of the candidate on the test images, with differences to the reference; no
            differences where the candidate is the reference itself.
        reference: what it is compared with, in words.
        is_reference: whether there is no champion, and the candidate is the best classifier of real
            images alone.
        differing: test patients whose images the two do not answer alike.
        classes: their number.
        has_healthy: whether there is a healthy class.
        unfit: why the candidate may not even be registered; None if it may.
        other_images: why the images at hand are not those that it was trained on; None if they are.
        synthetic: the synthetic set that it was trained on; None for real images alone.
        no_audit: why this set has no passed audit; None if it has one.
        audit_target: what ``gemix audit`` takes to audit it; None without a set.
        shared: what its training images share with the test images, a sentence each.
        card_lacks: what the model card lacks.
    """

    found: Comparison
    reference: str
    is_reference: bool
    differing: int
    classes: int
    has_healthy: bool
    unfit: str | None
    other_images: str | None
    synthetic: str | None
    no_audit: str | None
    audit_target: str | None
    shared: Sequence[str]
    card_lacks: Sequence[str]


def judge(evidence: Evidence, fnr_margin: float) -> tuple[Finding, ...]:
    """Return what was found by each rule; the candidate is promoted if all of them are passed.

    Args:
        fnr_margin: how far above the reference the false-negative rate may be.
    """
    return (
        *_comparison(evidence, fnr_margin),
        _fitness(evidence),
        _finding(IMAGES, evidence.other_images, "it was trained on exactly the images at hand"),
        _audit(evidence),
        _finding(TEST, "; ".join(evidence.shared), "it learned from no test image on record"),
        _card(evidence.card_lacks),
    )


def _comparison(evidence: Evidence, margin: float) -> list[Finding]:
    if evidence.is_reference:
        text = (
            "there is no champion yet, and the candidate is the best classifier of real images "
            "alone in this evaluation, so there is nothing that it could be better than"
        )
        return [Finding(rule=FIRST, passed=True, text=text)]
    missing = [FNR, MISSED] if evidence.has_healthy else [FNR]
    return [
        *(_not_inferior(name, evidence, margin) for name in missing),
        _better(evidence),
    ]


def _not_inferior(name: str, evidence: Evidence, margin: float) -> Finding:
    difference = evidence.found.differences.get(name)
    if difference is None:
        text = f"the {_NAMES[name]} cannot be computed: no diseased test image; add patients"
        return Finding(rule=name, passed=False, text=text)
    passed = difference.high <= margin
    reading = (
        f"not inferior by more than promotion.fnr_margin, {margin:g}: its 95% interval ends there "
        "or below"
        if passed
        else f"may be worse by more than promotion.fnr_margin, {margin:g}"
    )
    return Finding(rule=name, passed=passed, text=_text(name, difference, evidence, reading))


def _better(evidence: Evidence) -> Finding:
    difference = evidence.found.differences[MACRO_F2]
    enough = evidence.differing >= FEWEST_GROUPS
    passed = difference.low > 0 and enough
    if passed:
        reading = "better: its 95% interval is above 0"
    elif enough:
        reading = "not shown to be better: its 95% interval reaches 0 or less"
    else:
        reading = (
            f"not shown to be better: {evidence.differing} patients are answered differently, and "
            f"fewer than {FEWEST_GROUPS} may be chance"
        )
    text = _text(MACRO_F2, difference, evidence, reading)
    return Finding(rule=MACRO_F2, passed=passed, text=text)


def _text(name: str, difference: PairedDifference, evidence: Evidence, reading: str) -> str:
    delta, low, high = map(_signed, (difference.delta, difference.low, difference.high))
    few = (
        f" (fewer than {FEWEST_GROUPS} patients decide it, which is too few for an interval)"
        if difference.error is None
        else ""
    )
    return f"{_NAMES[name]} {delta} ({low} to {high}) against {evidence.reference}: {reading}{few}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _fitness(evidence: Evidence) -> Finding:
    chance = chance_macro_f2(evidence.classes)
    low, high = evidence.found.intervals[MACRO_F2]
    value = evidence.found.rates[MACRO_F2]
    above = f"macro-F2 {value:.3f} ({low:.3f} to {high:.3f}) on the test images"
    if evidence.unfit:
        return Finding(rule=FITNESS, passed=False, text=evidence.unfit)
    if low <= chance:
        text = f"{above}: its 95% interval is not above guessing ({chance:.3f})"
        return Finding(rule=FITNESS, passed=False, text=text)
    text = f"weights are finite, and {above} is above guessing ({chance:.3f})"
    return Finding(rule=FITNESS, passed=True, text=text)


def _audit(evidence: Evidence) -> Finding:
    name = evidence.synthetic
    if name is None:
        return _finding(AUDIT, None, "it was trained on real images alone, which need no audit")
    text = f"the {name} images have no passed privacy audit: {evidence.no_audit}; run gemix audit"
    return _finding(
        AUDIT,
        f"{text} {evidence.audit_target}" if evidence.no_audit else None,
        f"the {name} images that it was trained on have a passed privacy audit",
    )


def _card(lacks: Sequence[str]) -> Finding:
    text = f"the model card lacks {', '.join(lacks)}" if lacks else ""
    return _finding(CARD, text, "the model card is complete")


def _finding(rule: str, problem: str | None, passed: str) -> Finding:
    return Finding(rule=rule, passed=not problem, text=problem or passed)
