"""The report's section on privacy: the audit of each synthetic set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gemix.data.shards.manifest import Manifest
from gemix.evaluation.privacy.config import AuditConfig
from gemix.evaluation.privacy.decision import decide
from gemix.io.audit_record import AUDIT_PAIRS, Auc, Audit, read_audit
from gemix.io.storage import Store
from gemix.io.workspace import Workspace


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRow:
    """One attack as the table shows it; values are text."""

    name: str
    result: str
    control: str
    shift: str
    is_part_of_verdict: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditPart:
    """The audit of one set, judged by the thresholds of today.

    Attributes:
        method: of the set.
        audit: None if the set has none in this version.
        verdict, reasons: as :func:`gemix.evaluation.privacy.decision.decide` gives them.
        pairs: picture of the worst pairs, PNG; None if it is gone.
    """

    method: str
    audit: Audit | None = None
    verdict: str = "not audited"
    reasons: tuple[str, ...] = ()
    pairs: bytes | None = None

    @property
    def attacks(self) -> list[AttackRow]:
        """Every attack; that with the discriminator last."""
        if self.audit is None:
            return []
        rows = [
            AttackRow(
                name=f"{one.attack} distance, {one.space}",
                result=_text(one.result),
                control=_text(one.control),
                shift=_text(one.shift),
            )
            for one in self.audit.findings.attacks
        ]
        if self.audit.discriminator:
            result = _text(self.audit.discriminator)
            name = "with the discriminator, which is never shipped"
            rows.append(
                AttackRow(
                    name=name, result=result, control="–", shift="–", is_part_of_verdict=False
                )
            )
        return rows


def audit_parts(
    workspace: Workspace, sets: Mapping[str, str], thresholds: AuditConfig
) -> tuple[AuditPart, ...]:
    """Read the audits of sets.

    Args:
        sets: directories of finished sets by method.

    Raises:
        DataError: for one that is damaged.
    """
    parts = []
    for method, url in sets.items():
        digest = Manifest.load(Store(url)).digest
        audit = read_audit(Store(url), digest)
        if audit is None:
            parts.append(AuditPart(method=method))
            continue
        verdict, reasons = decide(audit.findings, thresholds)
        pictures = Store(workspace.audit(digest))
        pairs = pictures.read_bytes(AUDIT_PAIRS) if pictures.exists(AUDIT_PAIRS) else None
        parts.append(
            AuditPart(method=method, audit=audit, verdict=verdict, reasons=reasons, pairs=pairs)
        )
    return tuple(parts)


def _text(auc: Auc | None) -> str:
    return "–" if auc is None else f"{auc.auc:.2f} ({auc.low:.2f} to {auc.high:.2f})"
