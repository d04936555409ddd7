"""The privacy audits, in the order in which they are shown: one line each."""

from __future__ import annotations

from gemix.evaluation.privacy.base import AuditOutput, PrivacyAudit
from gemix.evaluation.privacy.copying import Copying

AUDITS: tuple[PrivacyAudit, ...] = (Copying(),)


def audit_outputs() -> tuple[AuditOutput, ...]:
    """Return the outputs of all audits."""
    return tuple(output for audit in AUDITS for output in audit.outputs)
