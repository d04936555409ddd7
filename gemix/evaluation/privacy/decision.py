"""The verdict of an audit, derived from its findings and the thresholds.

Distances can fail a set and never pass it: sets whose distances look well have given members away
(Yao et al., "The DCR delusion", 2025, arXiv 2505.01524). What passes a set is membership inference
whose intervals end below ``pass_auc``, for enough patients, and for all that the generator learned
from. What is neither is undecided, with what would decide it.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemix.evaluation.privacy.config import AuditConfig
from gemix.io.audit_record import (
    FAILED,
    PASSED,
    UNDECIDED,
    Auc,
    AuditFindings,
    MembershipAttack,
    read_audit,
)
from gemix.io.storage import Store

_CHANCE = 0.5


def decide(found: AuditFindings, thresholds: AuditConfig) -> tuple[str, tuple[str, ...]]:
    """Return the verdict (``passed``, ``failed``, ``undecided``) and its reasons, a sentence each.

    A single reason to fail is enough; a set passes if nothing is left to say against it.
    """
    for verdict, reasons in (
        (FAILED, [*_copying(found, thresholds), *_leaks(found, thresholds)]),
        (UNDECIDED, [*_gaps(found, thresholds), *_doubts(found, thresholds)]),
    ):
        if reasons:
            return verdict, tuple(reasons)
    return PASSED, tuple(
        f"{_name(attack)}: AUC {_text(attack.result)}, below {thresholds.pass_auc:g} throughout"
        for attack in found.attacks
    )


def why_not_passed(store: Store, set_digest: str, thresholds: AuditConfig) -> str | None:
    """Return why a set of synthetic images has no passed audit; None if it has one.

    The findings on record are judged by the thresholds given, whatever they were in the audit.

    Args:
        store: the set's directory.
        set_digest: content digest of the set as it is now: an audit of another version is none.

    Raises:
        DataError: if the audit is damaged.
    """
    audit = read_audit(store, set_digest)
    if audit is None:
        return "it has not been audited in this version"
    verdict, reasons = decide(audit.findings, thresholds)
    return None if verdict == PASSED else f"its audit is {verdict}: {reasons[0]}"


def _copying(found: AuditFindings, thresholds: AuditConfig) -> Iterator[str]:
    """Yield what distances fail a set for."""
    copies, total = found.copies, found.images.synthetic
    if copies.resaved and not copies.held_out:
        yield (
            f"{copies.resaved} of {total} images are copies of training images (resaved, "
            "brightened or mirrored), which no held-out real image is"
        )
    if copies.singular and _enough(found, thresholds):
        yield (
            f"{copies.singular} of {total} images are less than half as far from one training "
            "patient, beside the others, as any real image is from another patient"
        )
    for near in found.near if _enough(found, thresholds) else ():
        if near.low > max(near.expected_high, thresholds.max_near_ratio * near.expected):
            yield (
                f"{near.share:.1%} of the images ({near.low:.1%} to {near.high:.1%}) are nearer to "
                f"one training patient, beside the others, than all but {near.expected:.1%} (at "
                f"most {near.expected_high:.1%}) of real images are to another, by {near.space}; "
                f"audit.max_near_ratio is {thresholds.max_near_ratio:g}"
            )


def _leaks(found: AuditFindings, thresholds: AuditConfig) -> Iterator[str]:
    """Yield attacks that succeed, beyond chance among members and any shift of the split."""
    for attack in found.attacks if _enough(found, thresholds) else ():
        if _is_alarm(attack, thresholds) and _low(attack) > _CHANCE:
            yield (
                f"{_name(attack)} tells members from held-out images: AUC {_text(attack.result)}, "
                f"between members alone {_text(attack.control)}; audit.fail_auc is "
                f"{thresholds.fail_auc:g}"
            )


def _gaps(found: AuditFindings, thresholds: AuditConfig) -> Iterator[str]:
    """Yield what the audit has not seen."""
    images, learned = found.images, found.learned_from
    if not learned.is_on_record:
        yield (
            "it is not on record what the generator learned from, so the train split was presumed "
            "to be it; only a set with a record (seen.parquet, as gemix synthesize writes it) can "
            "pass"
        )
    elif learned.unknown:
        yield f"the generator learned from images that are not on record: {learned.unknown[0]}"
    if learned.elsewhere:
        yield (
            f"{learned.elsewhere} images that the generator learned from are not at hand, so "
            "their membership was not inferred; name the sets that hold them with --real"
        )
    if found.removed_near_training:
        yield (
            f"curation removed {found.removed_near_training} images that are near to training "
            "images, so the distances of the others say nothing of the generator; audit the set "
            "that it was taken from"
        )
    wanted = min(thresholds.images, images.synthetic_total)
    if images.synthetic < wanted:
        yield (
            f"{images.synthetic} of {images.synthetic_total} images were compared and "
            f"audit.images is {thresholds.images}; audit the set again"
        )
    for kind, count, remedy in (
        ("members", images.member_patients, "prepare more patients"),
        ("held-out real images", images.held_out_patients, "raise data.val_fraction"),
    ):
        if count < thresholds.min_patients:
            yield (
                f"{kind} of {count} patients or groups, audit.min_patients is "
                f"{thresholds.min_patients}: too few to say; {remedy}"
            )
    measured = {attack.space for attack in found.attacks}
    if missing := [space for space in thresholds.spaces if space not in measured]:
        yield f"membership was not inferred by {' and '.join(missing)}"


def _doubts(found: AuditFindings, thresholds: AuditConfig) -> Iterator[str]:
    """Yield attacks that neither succeed nor certainly fail."""
    for attack in found.attacks if _enough(found, thresholds) else ():
        beside = f", without a generator {_text(attack.shift)}" if attack.shift else ""
        if _is_alarm(attack, thresholds):
            yield (
                f"{_name(attack)}: AUC {_text(attack.result)}{beside}: members and held-out images "
                "differ by themselves, so this may be no leak; split the patients at random"
            )
        elif _high(attack) >= thresholds.pass_auc:
            yield (
                f"{_name(attack)}: AUC {_text(attack.result)}{beside}, between members alone "
                f"{_text(attack.control)}: not below audit.pass_auc={thresholds.pass_auc:g} for "
                "certain; more held-out patients make it so (data.val_fraction)"
            )


def _enough(found: AuditFindings, thresholds: AuditConfig) -> bool:
    patients = found.images.member_patients, found.images.held_out_patients
    return min(patients) >= thresholds.min_patients


def _is_alarm(attack: MembershipAttack, thresholds: AuditConfig) -> bool:
    """Return whether an AUC is too large, and neither chance nor the choice of patients."""
    result = attack.result
    return (
        result.auc >= thresholds.fail_auc
        and result.low > _CHANCE
        and result.auc > attack.control.high
    )


def _low(attack: MembershipAttack) -> float:
    """Return the lower end of the interval, less what the split alone may make of it."""
    shift = attack.shift
    if shift is None or shift.low <= _CHANCE:
        return attack.result.low
    return attack.result.low - (shift.high - _CHANCE)


def _high(attack: MembershipAttack) -> float:
    """Return the upper end, and what the split may hide: held-out images that lie nearer."""
    shift = attack.shift
    if shift is None or shift.high >= _CHANCE:
        return attack.result.high
    return attack.result.high + (_CHANCE - shift.low)


def _name(attack: MembershipAttack) -> str:
    kind = "calibrated distance" if attack.attack == "calibrated" else "distance"
    return f"membership inference by {kind} of {attack.space}"


def _text(auc: Auc) -> str:
    return f"{auc.auc:.2f} ({auc.low:.2f} to {auc.high:.2f})"
